//! Totals over all pushers, those that have ended included. Nothing is counted here while key flows: pushers count for
//! themselves, and whoever asks adds them up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::push::{CountersSnapshot, LatencySnapshot, Meter};

/// What some pushers have counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) counters: CountersSnapshot,
    pub(super) latency: LatencySnapshot,
    /// Octets of key that KMSs accepted.
    pub(super) accepted_bytes: u64,
}

impl Totals {
    pub(super) fn add(&mut self, meter: &Meter, chunk_size: u32) {
        let (counters, latency) = meter.read();
        self.counters = self.counters.plus(&counters);
        self.latency = self.latency.plus(&latency);
        let bytes = counters.chunks_accepted.saturating_mul(chunk_size.into());
        self.accepted_bytes = self.accepted_bytes.saturating_add(bytes);
    }
}

/// Pushers that have ended, or are told to and settle what is on its way.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally(Arc<Mutex<Ended>>);

#[derive(Debug, Default)]
struct Ended {
    ended: Totals,
    leaving: HashMap<u64, (Meter, u32)>,
    next: u64,
}

/// Held until the pusher has ended.
#[derive(Debug)]
pub(super) struct Leaving {
    tally: Tally,
    number: u64,
}

impl Tally {
    /// A pusher has been told to stop.
    pub(super) fn leaves(&self, meter: Meter, chunk_size: u32) -> Leaving {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = ended.next;
        ended.next += 1;
        ended.leaving.insert(number, (meter, chunk_size));
        Leaving { tally: self.clone(), number }
    }

    /// Of all that do not run any more.
    pub(super) fn totals(&self) -> Totals {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = ended.ended;
        ended.leaving.values().for_each(|(meter, chunk_size)| totals.add(meter, *chunk_size));
        totals
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut ended = self.tally.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((meter, chunk_size)) = ended.leaving.remove(&self.number) {
            ended.ended.add(&meter, chunk_size);
        }
    }
}
