//! Decides what is sent when, and what an answer means. Knows no sockets; time is told to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::StreamPush;
use super::answer::{Answer, AnswerError};
use super::backoff::Backoff;
use super::buffer::SendBuffer;
use super::counters::{add, set};
use super::flight::{Flight, Request};
use super::handle::{Command, Shared};
use super::notices::Notices;
use super::outbox::Outbox;
use super::queue::KeyQueue;
use super::report::{Failure, Stopped};
use super::request::Template;
use super::window::Window;
use crate::config;
use crate::interface::KeyStreamId;

/// What an answer other than 2xx means for the chunks.
#[derive(Debug)]
enum Setback {
    /// The same chunk again, later.
    Again { why: Failure, retry_after: Option<Duration> },
    /// The same chunk again, at once: the connection ended, but it had done its work.
    Reconnect,
    /// Nothing until the KMS asks for key again.
    Refused { status: u16, excerpt: String },
}

enum Next {
    Key(u64),
    Notice,
    Nothing,
}

/// One key stream on its way to its KMS.
#[derive(Debug)]
pub(super) struct Sender {
    stream: KeyStreamId,
    template: Template,
    queue: KeyQueue,
    flight: Flight,
    window: Window,
    backoff: Backoff,
    answer_deadline: Duration,
    notices: Notices,
    suspended: bool,
    /// No more key is sent, only what is on its way is settled.
    ending: bool,
    retry_at: Option<Instant>,
    /// The first setback since all was well, with the requests that were on their way then. It takes effect when
    /// nothing is on its way any more.
    setback: Option<(Setback, usize)>,
    /// Since when the oldest request on its way is the one to be answered next.
    oldest_since: Instant,
    /// Of one request on its way: answers up to and with its own, and when it was written.
    timed: Option<(usize, Instant)>,
    shared: Arc<Shared>,
    pub(super) outbox: Outbox,
}

impl Sender {
    pub(super) fn new(what: &StreamPush, settings: &config::Push, shared: Arc<Shared>, now: Instant) -> Self {
        let window = Window::new(settings.most_in_flight, settings.most_bytes_in_flight);
        set(&shared.counters.window, window.width() as u64);
        Self {
            stream: what.stream,
            template: Template::new(&what.endpoint, what.stream, what.chunk_size),
            queue: KeyQueue::new(what.chunk_size),
            flight: Flight::new(what.first, settings.most_in_flight),
            window,
            backoff: Backoff::new(settings),
            answer_deadline: Duration::from_millis(u64::from(settings.answer_deadline_ms)),
            notices: Notices::new(Arc::clone(&shared)),
            suspended: false,
            ending: false,
            retry_at: None,
            setback: None,
            oldest_since: now,
            timed: None,
            shared,
            outbox: Outbox::new(what.stream, what.first),
        }
    }

    /// Octets of the longest request.
    pub(super) fn longest_request(&self) -> usize {
        self.template.longest()
    }

    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Deliver(delivery) => {
                let end = delivery.first + u64::from(delivery.count);
                let discarded_to = self.flight.discarded_to();
                let unsent = discarded_to.min(end).saturating_sub(delivery.first);
                let empty = self.queue.push(delivery);
                self.extents_gone(empty);
                // What was discarded before it came.
                if unsent > 0 {
                    self.wipe_discarded(discarded_to, unsent);
                }
            }
            Command::Discard(up_to) => self.discard(up_to),
            Command::Resume => {
                if self.suspended {
                    self.suspended = false;
                    self.retry_at = None;
                }
            }
            Command::Notice(status, position) => self.notices.give(status, position),
        }
    }

    fn discard(&mut self, up_to: u64) {
        let unsent = self.flight.discard(up_to, &self.queue);
        self.wipe_discarded(up_to, unsent);
    }

    /// Also the key of requests on their way: they are written out already, and will not be sent again.
    fn wipe_discarded(&mut self, up_to: u64, unsent: u64) {
        let ended = self.queue.wipe_below(up_to);
        self.extents_gone(ended);
        if unsent > 0 {
            add(&self.shared.counters.chunks_discarded, unsent);
            self.outbox.discarded(self.flight.discarded_to(), unsent);
        }
    }

    fn extents_gone(&self, number: usize) {
        if number > 0 {
            self.shared.extents.fetch_sub(number, Ordering::Relaxed);
        }
    }

    /// Sends no more key.
    pub(super) fn end(&mut self, now: Instant) {
        self.ending = true;
        self.give_up_late_notices(now);
    }

    /// A KMS that does not take anything now must not keep its own close waiting for a notice.
    fn give_up_late_notices(&mut self, now: Instant) {
        if self.ending && self.retry_at.is_some_and(|at| now < at) {
            self.notices.give_up_all();
        }
    }

    /// After [`Self::end`]: whether nothing is left to be done.
    pub(super) fn has_ended(&self) -> bool {
        self.ending && self.flight.requests() == 0 && self.notices.is_empty()
    }

    /// Whether requests are on their way.
    pub(super) fn is_in_flight(&self) -> bool {
        self.flight.requests() > 0
    }

    /// Whether something can be sent now.
    pub(super) fn has_work(&self, now: Instant) -> bool {
        !matches!(self.next(now), Next::Nothing)
    }

    /// When something other than reports has to be done though nothing happens.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let waits = !self.notices.is_empty() || (!self.suspended && self.flight.next(&self.queue).is_some());
        let retry = self.retry_at.filter(|at| waits && *at > now);
        [self.answer_due(), retry].into_iter().flatten().min()
    }

    /// When the oldest request on its way must have been answered.
    pub(super) fn answer_due(&self) -> Option<Instant> {
        (self.flight.requests() > 0).then(|| self.oldest_since + self.answer_deadline)
    }

    fn next(&self, now: Instant) -> Next {
        if self.setback.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return Next::Nothing;
        }
        if !self.notices.is_empty() {
            return if self.flight.requests() == 0 { Next::Notice } else { Next::Nothing };
        }
        if self.suspended || self.ending {
            return Next::Nothing;
        }
        self.flight.next(&self.queue).map_or(Next::Nothing, Next::Key)
    }

    /// Writes requests into an empty buffer, as many as the window and the buffer take. Whether it was the buffer that took
    /// no more.
    pub(super) fn fill(&mut self, buffer: &mut SendBuffer, now: Instant) -> bool {
        let longest = self.template.longest();
        let (mut first, mut again) = (0, 0);
        let before = self.flight.requests();
        while buffer.free_mut().len() >= longest {
            match self.next(now) {
                Next::Nothing => break,
                Next::Notice => {
                    let Some(notice) = self.notices.front() else { break };
                    // What was accepted since it was ordered is not next any more.
                    let next = notice.position.max(self.flight.accepted_up_to());
                    let written = self.template.write_notice(buffer.free_mut(), notice.status, next);
                    let Some(octets) = written else { break };
                    buffer.fill(octets);
                    self.flight.sent_notice(octets);
                    add(&self.shared.counters.notices_sent, 1);
                    break;
                }
                Next::Key(position) => {
                    if !self.window.admits(self.flight.requests(), self.flight.octets(), longest) {
                        break;
                    }
                    let parts = self.queue.parts(position);
                    let Some(octets) = self.template.write_key(buffer.free_mut(), position, parts) else {
                        // Cannot be: deliveries are whole chunks. Better no key than a wrong one.
                        log::error!(
                            id = "stream.key_not_whole"; "key stream {}: the key of position {position} is not whole",
                            self.stream
                        );
                        buffer.wipe_all();
                        self.suspended = true;
                        break;
                    };
                    buffer.fill(octets);
                    if self.flight.sent(position, octets) {
                        first += 1;
                    } else {
                        again += 1;
                    }
                }
            }
        }
        // It lies in no cache: at speed the vault is larger than they are.
        if let Some(position) = self.flight.next(&self.queue) {
            self.queue.fetch(position);
        }
        if before == 0 {
            self.oldest_since = now;
        }
        if self.timed.is_none() && self.flight.requests() > before {
            self.timed = Some((self.flight.requests(), now));
        }
        if first > 0 {
            add(&self.shared.counters.chunks_sent, first);
        }
        if again > 0 {
            add(&self.shared.counters.chunks_sent_again, again);
        }
        buffer.free_mut().len() < longest
    }

    /// The oldest request on its way was answered.
    pub(super) fn answered(&mut self, answer: Answer, now: Instant) -> Result<(), AnswerError> {
        let on_their_way = self.flight.requests();
        let request = self.flight.take_oldest().ok_or(AnswerError::Unasked)?;
        self.oldest_since = now;
        self.time(now);
        self.count(answer.status);
        if answer.is_success() {
            self.backoff.reset();
            self.outbox.recovered(now);
            match request {
                Request::Key(_) => {
                    self.window.accepted();
                    add(&self.shared.counters.chunks_accepted, 1);
                }
                Request::Notice => self.notices.arrived(),
            }
        } else {
            let setback = match answer.status {
                408 | 425 | 429 | 500..600 => {
                    Setback::Again { why: Failure::Status(answer.status), retry_after: answer.retry_after }
                }
                status => Setback::Refused { status, excerpt: answer.excerpt },
            };
            match (request, setback) {
                (Request::Key(position), setback) => {
                    self.flight.failed(position);
                    self.set_back(setback, on_their_way);
                }
                // A notice that is refused is not worth stopping the keys for.
                (Request::Notice, Setback::Refused { .. }) => self.notices.give_up(),
                (Request::Notice, setback) => {
                    self.notices.failed(self.ending);
                    self.set_back(setback, on_their_way);
                }
            }
        }
        if self.flight.requests() == 0 {
            self.settle(now);
        }
        Ok(())
    }

    /// The connection is gone, and with it every answer that was still to come. `progressed`: it had brought one.
    pub(super) fn broke(&mut self, why: Failure, progressed: bool, now: Instant) {
        let on_their_way = self.flight.requests();
        if on_their_way == 0 {
            return;
        }
        self.timed = None;
        while let Some(request) = self.flight.take_oldest() {
            match request {
                Request::Key(position) => self.flight.failed(position),
                Request::Notice => self.notices.failed(self.ending),
            }
        }
        let closed = matches!(why, Failure::Closed | Failure::Broken(_));
        let setback =
            if closed && progressed { Setback::Reconnect } else { Setback::Again { why, retry_after: None } };
        self.set_back(setback, on_their_way);
        self.settle(now);
    }

    /// There is no connection to be had.
    pub(super) fn unconnected(&mut self, why: Failure, now: Instant) {
        self.notices.failed(self.ending);
        self.set_back(Setback::Again { why, retry_after: None }, 0);
        self.settle(now);
    }

    /// The first setback decides: later ones may only follow from it.
    fn set_back(&mut self, setback: Setback, on_their_way: usize) {
        self.setback.get_or_insert((setback, on_their_way));
    }

    /// With nothing on its way: goes on from the lowest chunk that was not accepted.
    fn settle(&mut self, now: Instant) {
        let Some((setback, on_their_way)) = self.setback.take() else { return };
        self.flight.settle();
        self.window.setback(on_their_way);
        match setback {
            Setback::Again { why, retry_after } => {
                self.retry_at = Some(now + self.backoff.next(retry_after));
                self.outbox.failing(why, now);
            }
            Setback::Reconnect => {}
            Setback::Refused { status, excerpt } => {
                self.suspended = true;
                add(&self.shared.counters.suspensions, 1);
                self.outbox.suspended(status, excerpt);
            }
        }
        self.give_up_late_notices(now);
    }

    /// After a round of answers or commands: wipes what was accepted and reports how far things are.
    pub(super) fn account(&mut self, now: Instant) {
        let accepted = self.flight.accepted_up_to();
        let ended = self.queue.wipe_below(accepted);
        self.extents_gone(ended);
        set(&self.shared.counters.window, self.window.width() as u64);
        let idle = self.flight.requests() == 0;
        self.outbox.progress(accepted, idle, now);
    }

    /// One past the highest position that was sent.
    pub(super) fn sent_up_to(&self) -> u64 {
        self.flight.sent_up_to()
    }

    /// Where it ended; call it when the connection is gone.
    pub(super) fn stopped(&self) -> Stopped {
        Stopped {
            stream: self.stream,
            sent_up_to: self.flight.sent_up_to(),
            accepted_up_to: self.flight.accepted_up_to(),
        }
    }

    /// One more answer has come.
    fn time(&mut self, now: Instant) {
        if let Some((answers, since)) = &mut self.timed {
            *answers -= 1;
            if *answers == 0 {
                self.shared.latencies.observe(now.duration_since(*since));
                self.timed = None;
            }
        }
    }

    fn count(&self, status: u16) {
        let counters = &self.shared.counters;
        let class = match status {
            200..300 => &counters.answers_2xx,
            300..400 => &counters.answers_3xx,
            400..500 => &counters.answers_4xx,
            500..600 => &counters.answers_5xx,
            _ => &counters.answers_other,
        };
        add(class, 1);
    }
}

#[cfg(test)]
mod tests;
