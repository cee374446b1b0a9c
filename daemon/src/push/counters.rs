//! Counters of one key stream's pushing.

use std::sync::atomic::{AtomicU64, Ordering};

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

        impl Counters {
            pub(super) fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot { $($name: self.$name.load(Ordering::Relaxed),)+ }
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

/// Adds to a counter. There is one writer, so a load and a store do.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// Sets a gauge.
pub(super) fn set(gauge: &AtomicU64, value: u64) {
    gauge.store(value, Ordering::Relaxed);
}
