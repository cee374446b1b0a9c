//! Push and the KMS behind it: ordered sending, late and lost answers, errors after acceptance, suspension.

use std::collections::VecDeque;

use qkd_daemon::agreement::{Delivery, Event};
use qkd_daemon::interface::KeyStreamId;

use super::books::Octets;
use super::checker::{Verdict, broken};
use super::faults::Fault;
use super::mutants::Mutant;
use super::trace::Trace;
use super::world::World;

/// What the engine tells a pusher, in order.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Deliver(Delivery, Octets),
    Discard(u64),
    Resume,
    Stop,
    Notice,
}

#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) position: u64,
    pub(crate) octets: Octets,
    pub(crate) sent: bool,
}

/// How a KMS is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// Nothing is answered.
    Down,
    /// Answers are rare.
    Slow,
}

#[derive(Debug, Default)]
pub(crate) struct Pusher {
    /// Which of this end's KMSs.
    pub(crate) kms: usize,
    pub(crate) orders: VecDeque<Order>,
    chunks: VecDeque<Chunk>,
    pub(crate) suspended: bool,
    pub(crate) stopped: bool,
    end: u64,
}

/// Chunks that may be on their way at once.
const IN_FLIGHT: usize = 3;

impl Pusher {
    pub(crate) fn new(kms: usize) -> Self {
        Self { kms, ..Self::default() }
    }

    pub(crate) fn is_delivering(&self) -> bool {
        self.chunks.front().is_some_and(|chunk| chunk.sent)
    }

    /// Carries out one order; returns what the core is told.
    pub(crate) fn obey(&mut self, stream: KeyStreamId) -> Result<Option<Event>, String> {
        let Some(order) = self.orders.pop_front() else { return Ok(None) };
        match order {
            Order::Deliver(delivery, octets) => {
                if delivery.first < self.end {
                    return Err(format!("a delivery from {} after one up to {}", delivery.first, self.end));
                }
                self.end = delivery.first + u64::from(delivery.count);
                if octets.len() as u64 != u64::from(delivery.count) * u64::from(delivery.chunk_size) {
                    return Err(format!("{} octets for {} chunks", octets.len(), delivery.count));
                }
                for (i, octets) in octets.chunks(delivery.chunk_size as usize).enumerate() {
                    let position = delivery.first + i as u64;
                    self.chunks.push_back(Chunk { position, octets: octets.into(), sent: false });
                }
            }
            // What was sent already is still settled; the rest goes.
            Order::Discard(up_to) => self.chunks.retain(|chunk| chunk.position >= up_to || chunk.sent),
            Order::Resume => self.suspended = false,
            Order::Notice => {}
            Order::Stop => {
                self.stopped = true;
                self.chunks.clear();
                return Ok(Some(Event::Stopped { stream, sent_up_to: self.end }));
            }
        }
        Ok(None)
    }

    /// Everything that it holds, or is to get, is destroyed.
    pub(crate) fn wipe(&mut self) {
        self.chunks.clear();
        self.orders.retain(|order| !matches!(order, Order::Deliver(..)));
    }

    /// The next chunk that goes out, for the first time or again.
    pub(crate) fn sends(&mut self) -> Option<Chunk> {
        if self.stopped || self.suspended {
            return None;
        }
        let next = self.chunks.iter().take(IN_FLIGHT).position(|chunk| !chunk.sent).unwrap_or(0);
        let chunk = self.chunks.get_mut(next)?;
        let before = chunk.clone();
        chunk.sent = true;
        Some(before)
    }

    /// The KMS takes the oldest chunk that was sent; the answer comes, or does not.
    pub(crate) fn taken(&mut self, answered: bool) -> Option<u64> {
        let position = self.chunks.front().filter(|chunk| chunk.sent)?.position;
        if answered {
            self.chunks.pop_front();
        }
        Some(position)
    }

    /// The KMS refuses; what was sent and not accepted goes out again later.
    pub(crate) fn refused(&mut self, stream: KeyStreamId) -> Event {
        self.suspended = true;
        Event::Suspended { stream, why: "403".into() }
    }
}

impl World {
    /// The pusher of one stream does something.
    pub(crate) fn push(&mut self, end: usize, stream: KeyStreamId) -> Verdict {
        let stuck = self.stuck == Some((end, stream));
        let (outcome, healed) = (self.dice.below(1_000), self.healed);
        let node = &mut self.nodes[end];
        let heard = node.heard;
        let Some(pusher) = node.pushers.get_mut(&stream) else { return Ok(()) };
        if !pusher.orders.is_empty() && (healed || outcome < 600) {
            return match pusher.obey(stream) {
                Ok(event) => {
                    node.news.extend(event);
                    Ok(())
                }
                Err(why) => broken("push", format!("end {end}, stream {stream}: {why}")),
            };
        }
        let mood = node.moods[pusher.kms];
        let told_all = pusher.orders.is_empty() && node.due.is_empty() && node.out.is_empty();
        let destroying = node.zeroizing.is_some();
        if let Some(chunk) = pusher.sends() {
            if destroying {
                return broken("zeroize", format!("end {end} sends {stream} {}", chunk.position));
            }
            let say = |trace: &Trace| {
                trace.say(|| format!("end {end} sends {stream} {}: {:?}", chunk.position, chunk.octets));
            };
            say(&self.trace);
            let heard = (told_all && !chunk.sent).then_some(heard);
            self.checker.sends(end, stream, chunk.position, &chunk.octets, heard)?;
        }
        let idle = pusher.suspended || pusher.stopped;
        let early = node.is(Mutant::TakesSendingForAcceptance);
        let takes = match mood {
            Mood::Well => outcome < 780,
            Mood::Slow => outcome < 80,
            Mood::Down => early,
        };
        let Some(pusher) = self.nodes[end].pushers.get_mut(&stream) else { return Ok(()) };
        if stuck || mood != Mood::Well && outcome > 960 {
            if (stuck && outcome < 300 || !stuck && outcome > 985) && !idle {
                let event = pusher.refused(stream);
                self.nodes[end].news.push_back(event);
            }
        } else if takes || healed && mood == Mood::Well {
            if let Some(position) = pusher.taken(true) {
                if mood != Mood::Down {
                    self.checker.taken(end, stream, position);
                }
                let event = Event::Accepted { stream, up_to: position + 1 };
                self.nodes[end].news.push_back(event);
            }
        } else if mood == Mood::Well && outcome < 900 {
            if pusher.is_delivering() && !idle && self.strikes(Fault::ErrorAfterAcceptance, end, 500) {
                let pusher = self.nodes[end].pushers.get_mut(&stream);
                if let Some(position) = pusher.and_then(|pusher| pusher.taken(false)) {
                    self.checker.taken(end, stream, position);
                }
            }
        } else if mood == Mood::Well && !idle && self.strikes(Fault::KmsRefuses, end, 300) {
            let event = self.nodes[end].pushers.get_mut(&stream).map(|pusher| pusher.refused(stream));
            self.nodes[end].news.extend(event);
        }
        Ok(())
    }
}
