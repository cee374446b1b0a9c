//! Which requests are on their way, and which chunks have to be sent again.

use std::collections::VecDeque;

use super::queue::KeyQueue;

/// What a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// The chunk at this position.
    Key(u64),
    /// The notice at the front.
    Notice,
}

/// Requests in the order of their transmission, and what became of them.
///
/// Positions in `in_flight`, `failed` and `again` rise, and each is lower than those behind it in this order:
/// `failed`, `in_flight`, `again`, `next_new`.
#[derive(Debug)]
pub(super) struct Flight {
    in_flight: VecDeque<(Request, usize)>,
    octets: usize,
    /// Sent and not accepted, in the round that is being settled.
    failed: VecDeque<u64>,
    /// To be sent again.
    again: VecDeque<u64>,
    /// Lowest position that was never sent.
    next_new: u64,
    /// Nothing below is sent any more.
    discarded_to: u64,
}

impl Flight {
    pub(super) fn new(first: u64, most_requests: u32) -> Self {
        let room = || VecDeque::with_capacity(most_requests as usize);
        Self {
            in_flight: room(),
            octets: 0,
            failed: VecDeque::new(),
            again: VecDeque::new(),
            next_new: first,
            discarded_to: first,
        }
    }

    /// Requests on their way.
    pub(super) fn requests(&self) -> usize {
        self.in_flight.len()
    }

    /// Octets of the requests on their way.
    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    /// The position to send next.
    pub(super) fn next(&self, queue: &KeyQueue) -> Option<u64> {
        self.again.front().copied().or_else(|| queue.next_from(self.next_new))
    }

    /// What [`Self::next`] gave is on its way, in a request of so many octets. Says whether it is the first time.
    pub(super) fn sent(&mut self, position: u64, octets: usize) -> bool {
        self.put(Request::Key(position), octets);
        if position >= self.next_new {
            self.next_new = position + 1;
            return true;
        }
        self.again.pop_front();
        false
    }

    /// A notice is on its way.
    pub(super) fn sent_notice(&mut self, octets: usize) {
        self.put(Request::Notice, octets);
    }

    fn put(&mut self, request: Request, octets: usize) {
        self.in_flight.push_back((request, octets));
        self.octets += octets;
    }

    /// Takes the oldest request, which has been answered or never will be.
    pub(super) fn take_oldest(&mut self) -> Option<Request> {
        let (request, octets) = self.in_flight.pop_front()?;
        self.octets -= octets;
        Some(request)
    }

    /// A chunk that [`Self::take_oldest`] gave was not accepted.
    pub(super) fn failed(&mut self, position: u64) {
        if position >= self.discarded_to {
            self.failed.push_back(position);
        }
    }

    /// With nothing on its way any more: what failed is to be sent again, in the same order as the first time.
    pub(super) fn settle(&mut self) {
        while let Some(position) = self.failed.pop_back() {
            self.again.push_front(position);
        }
    }

    /// Sends nothing below `up_to` any more. Gives how many chunks of `queue` will never be sent.
    pub(super) fn discard(&mut self, up_to: u64, queue: &KeyQueue) -> u64 {
        self.discarded_to = self.discarded_to.max(up_to);
        let unsent = queue.count(self.next_new, self.discarded_to);
        self.next_new = self.next_new.max(self.discarded_to);
        self.failed.retain(|position| *position >= up_to);
        self.again.retain(|position| *position >= up_to);
        unsent
    }

    /// Nothing below is sent any more.
    pub(super) fn discarded_to(&self) -> u64 {
        self.discarded_to
    }

    /// Everything below was sent at least once or discarded, nothing from it on was.
    pub(super) fn sent_up_to(&self) -> u64 {
        self.next_new
    }

    /// Everything below was accepted or discarded.
    pub(super) fn accepted_up_to(&self) -> u64 {
        let oldest = self.in_flight.iter().find_map(|(request, _)| match request {
            Request::Key(position) => Some(*position),
            Request::Notice => None,
        });
        let candidates = [self.failed.front().copied(), oldest, self.again.front().copied()];
        candidates.into_iter().flatten().next().unwrap_or(self.next_new)
    }
}
