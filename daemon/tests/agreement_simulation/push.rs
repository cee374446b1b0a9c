//! Push and the KMS behind it: ordered sending, late and lost answers, suspension.

use std::collections::VecDeque;

use qkd_daemon::agreement::{Delivery, Event};
use qkd_daemon::interface::{KeyStreamId, Status};

use super::checker::Octet;

/// What the engine tells a pusher, in order.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Deliver(Delivery),
    Discard(u64),
    Resume,
    Stop,
    Notice(Status),
}

#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) position: u64,
    pub(crate) octets: Vec<Octet>,
    sent: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Pusher {
    pub(crate) orders: VecDeque<Order>,
    chunks: VecDeque<Chunk>,
    pub(crate) suspended: bool,
    pub(crate) stopped: bool,
    pub(crate) notices: Vec<Status>,
    end: u64,
}

/// Chunks that may be on their way at once.
const IN_FLIGHT: usize = 3;

impl Pusher {
    /// Carries out one order; returns what the core is told.
    pub(crate) fn obey(&mut self, stream: KeyStreamId) -> Option<Event> {
        match self.orders.pop_front()? {
            Order::Deliver(delivery) => {
                assert!(delivery.first >= self.end, "a delivery that goes back");
                self.end = delivery.first + u64::from(delivery.count);
                let octets: Vec<Octet> = delivery
                    .extents
                    .iter()
                    .flat_map(|e| (e.offset..e.offset + e.length).map(|at| (e.block, at)))
                    .collect();
                assert_eq!(octets.len() as u64, u64::from(delivery.count) * u64::from(delivery.chunk_size));
                for (i, octets) in octets.chunks(delivery.chunk_size as usize).enumerate() {
                    let position = delivery.first + i as u64;
                    self.chunks.push_back(Chunk { position, octets: octets.to_vec(), sent: false });
                }
                None
            }
            Order::Discard(up_to) => {
                // What was sent already is still settled; the rest goes.
                self.chunks.retain(|chunk| chunk.position >= up_to || chunk.sent);
                None
            }
            Order::Resume => {
                self.suspended = false;
                None
            }
            Order::Notice(status) => {
                self.notices.push(status);
                None
            }
            Order::Stop => {
                self.stopped = true;
                self.chunks.clear();
                Some(Event::Stopped { stream, sent_up_to: self.end })
            }
        }
    }

    /// The next chunk that goes out, for the first time or again.
    pub(crate) fn sends(&mut self) -> Option<&Chunk> {
        if self.stopped || self.suspended {
            return None;
        }
        let next = self.chunks.iter().take(IN_FLIGHT).position(|chunk| !chunk.sent).unwrap_or(0);
        let chunk = self.chunks.get_mut(next)?;
        chunk.sent = true;
        Some(chunk)
    }

    /// The KMS accepts the oldest chunk that was sent.
    pub(crate) fn accepted(&mut self, stream: KeyStreamId) -> Option<Event> {
        if self.chunks.front().is_none_or(|chunk| !chunk.sent) {
            return None;
        }
        let position = self.chunks.pop_front()?.position;
        Some(Event::Accepted { stream, up_to: position + 1 })
    }

    /// The KMS refuses; what was sent and not accepted goes out again later.
    pub(crate) fn refused(&mut self, stream: KeyStreamId) -> Event {
        self.suspended = true;
        Event::Suspended { stream, why: "403".into() }
    }
}
