//! Counters of one key stream's pushing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

macro_rules! counters {
    ($($(#[doc = $meaning:literal])+ $name:ident),+ $(,)?) => {
        /// Counted since the stream's pushing began. Written by one task, read by anyone.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)+
        }

        /// Counters of one key stream at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct CountersSnapshot {
            $($(#[doc = $meaning])+ pub $name: u64,)+
        }

        impl CountersSnapshot {
            /// Counters of two key streams together. [`Self::window`] is not a count and stays as it is.
            #[must_use]
            pub fn plus(self, other: &Self) -> Self {
                let sum = Self { $($name: self.$name.saturating_add(other.$name),)+ };
                Self { window: self.window, ..sum }
            }
        }

        impl Counters {
            pub(super) fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }

            #[cfg(test)]
            fn each(&self, mut with: impl FnMut(&AtomicU64)) {
                $(with(&self.$name);)+
            }
        }
    };
}

counters! {
    /// Chunks sent for the first time.
    chunks_sent,
    /// Chunks accepted.
    chunks_accepted,
    /// Chunks sent again, once for each time.
    chunks_sent_again,
    /// Chunks discarded before they were sent.
    chunks_discarded,
    /// Octets of requests, heads included, handed to the operating system.
    octets_sent,
    /// Notices sent, once for each attempt.
    notices_sent,
    /// Notices given up.
    notices_lost,
    /// Answers with a 2xx status.
    answers_2xx,
    /// Answers with a 3xx status.
    answers_3xx,
    /// Answers with a 4xx status.
    answers_4xx,
    /// Answers with a 5xx status.
    answers_5xx,
    /// Answers with any other final status.
    answers_other,
    /// Answers that could not be read.
    answers_unreadable,
    /// Times that an answer did not come in time.
    answer_deadlines,
    /// Connections made.
    connections,
    /// Attempts to connect that failed.
    connections_failed,
    /// Times that the KMS refused a chunk for good.
    suspensions,
    /// Requests that may be on their way at once now.
    window,
}

/// Upper bounds of the latency's buckets, in microseconds.
pub const LATENCY_BOUNDS_US: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 1_000_000, 5_000_000];

/// From when a request was written until it was answered. Of the requests in flight one is watched at a time.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    counts: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// Latencies at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencySnapshot {
    /// Observations in each bucket of [`LATENCY_BOUNDS_US`], and above all of them.
    pub counts: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// Sum of all observations, in microseconds.
    pub sum_us: u64,
}

impl Latencies {
    /// There is one writer.
    pub(super) fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(count) = self.counts.get(bucket) {
            add(count, 1);
        }
        add(&self.sum_us, us);
    }

    pub(super) fn snapshot(&self) -> LatencySnapshot {
        LatencySnapshot {
            counts: self.counts.each_ref().map(|count| count.load(Ordering::Relaxed)),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

impl LatencySnapshot {
    /// Observations of two key streams together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (mine, others) in self.counts.iter_mut().zip(other.counts) {
            *mine = mine.saturating_add(others);
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self
    }
}

/// Adds to a counter. There is one writer, so a load and a store do.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// Sets a gauge.
pub(super) fn set(gauge: &AtomicU64, value: u64) {
    gauge.store(value, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CountersSnapshot, LATENCY_BOUNDS_US, Latencies};

    #[test]
    fn a_latency_on_a_bound_counts_below_it_and_none_is_too_long_to_be_counted() {
        let latencies = Latencies::default();
        for us in [0, 100, 101, 5_000_000, 5_000_001] {
            latencies.observe(Duration::from_micros(us));
        }
        let snapshot = latencies.snapshot();
        let last = LATENCY_BOUNDS_US.len();
        assert_eq!((snapshot.counts[0], snapshot.counts[1]), (2, 1));
        assert_eq!((snapshot.counts[last - 1], snapshot.counts[last]), (1, 1));
        assert_eq!(snapshot.counts.iter().sum::<u64>(), 5);
        assert_eq!(snapshot.plus(&snapshot).sum_us, 2 * (100 + 101 + 5_000_000 + 5_000_001));
    }

    #[test]
    fn every_counter_but_the_window_is_added() {
        let snapshot = format!("{:?}", CountersSnapshot::default()).replace(": 0", ": 1");
        let counters = super::Counters::default();
        counters.each(|counter| super::set(counter, 1));
        assert_eq!(format!("{:?}", counters.snapshot()), snapshot, "the test sets each");
        let sum = format!("{:?}", counters.snapshot().plus(&counters.snapshot()));
        assert_eq!(sum, snapshot.replace(": 1", ": 2").replace("window: 2", "window: 1"));
    }
}
