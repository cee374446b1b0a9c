//! When the core wants to be woken, and for what.

use std::collections::{BTreeSet, HashMap};

use crate::interface::KeyStreamId;

/// What a time was set for. Each stands for one time at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Timer {
    /// Something must be said to the other end.
    KeepAlive,
    /// The follower's report is due.
    Report,
    /// The follower has not applied what was sent.
    Resend,
    /// Key can be granted.
    Grant,
    /// What the KMSs have accepted must be written down.
    Progress,
    /// A stream's limiter has filled.
    Tokens(KeyStreamId),
    /// A stream's oldest key is at the end of its time to live.
    Expire(KeyStreamId),
    /// A stream must be fully open by now.
    HalfOpen(KeyStreamId),
    /// A stream may have run dry.
    Dry(KeyStreamId),
    /// The other end has closed and this end has had its time.
    Linger(KeyStreamId),
    /// A call has waited long enough.
    Call(u64),
}

/// The times.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    order: BTreeSet<(u64, Timer)>,
    due: HashMap<Timer, u64>,
}

impl Timers {
    /// Sets a time, instead of one set before.
    pub(crate) fn set(&mut self, timer: Timer, at_ms: u64) {
        if let Some(before) = self.due.insert(timer, at_ms) {
            self.order.remove(&(before, timer));
        }
        self.order.insert((at_ms, timer));
    }

    /// Sets a time unless an earlier one stands.
    pub(crate) fn set_earlier(&mut self, timer: Timer, at_ms: u64) {
        if self.due.get(&timer).is_none_or(|due| *due > at_ms) {
            self.set(timer, at_ms);
        }
    }

    /// Takes a time back.
    pub(crate) fn clear(&mut self, timer: Timer) {
        if let Some(before) = self.due.remove(&timer) {
            self.order.remove(&(before, timer));
        }
    }

    /// Takes back every time of a stream.
    pub(crate) fn clear_stream(&mut self, stream: KeyStreamId) {
        for timer in [
            Timer::Tokens(stream),
            Timer::Expire(stream),
            Timer::HalfOpen(stream),
            Timer::Dry(stream),
            Timer::Linger(stream),
        ] {
            self.clear(timer);
        }
    }

    /// Whether a time stands.
    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.due.contains_key(&timer)
    }

    /// The first time.
    pub(crate) fn first(&self) -> Option<u64> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the first time that has come.
    pub(crate) fn pop_due(&mut self, now_ms: u64) -> Option<Timer> {
        let (at, timer) = *self.order.first()?;
        if at > now_ms {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }
}
