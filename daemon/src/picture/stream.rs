//! One key stream, as an operator sees it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{shown, words};

shown! {
    /// How one key stream stands at this end. Positions are those of its next key chunk.
    struct Stream {
        /// Key stream ID.
        pub id: String,
        /// URI of the KMS that is its source.
        pub source: String,
        /// URI of the KMS that is its destination.
        pub destination: String,
        /// How it stands.
        pub state: StreamState,
        /// The same in words, with the reason.
        pub words: String,
        /// Octets of one key chunk.
        pub chunk_size: u32,
        /// Everything below has been granted or skipped.
        pub granted: u64,
        /// Everything below has been handed to push.
        pub delivered: u64,
        /// Everything below has been accepted by the KMS, or is lost.
        pub accepted: u64,
        /// Key chunks granted and not settled at this end.
        pub lag_chunks: u64,
        /// Octets of these.
        pub lag_bytes: u64,
        /// Key chunks lost at this end, by cause.
        pub lost_chunks: BTreeMap<String, u64>,
        /// Its quality of service.
        pub qos: Quality,
    }

    /// Quality of service as registered.
    struct Quality {
        /// Most bit/s; 0: no limit.
        pub max_bps: u64,
        /// Least bit/s that the KMS wants.
        pub min_bps: u64,
        /// Greatest deviation, in milliseconds.
        pub jitter: u64,
        /// Larger is served first.
        pub priority: u64,
        /// Time of a call, in milliseconds.
        pub timeout_ms: u64,
        /// Time after which its keys are erased, in seconds.
        pub ttl_s: u64,
    }
}

words! {
    /// How a key stream stands at this end.
    StreamState {
        /// A KMS has yet to open it or to ask for key.
        Waiting = "waiting",
        /// Key flows, as soon as there is some.
        Delivering = "delivering",
        /// The KMS refused key; push waits for its next get-key.
        Suspended = "suspended",
        /// The KMS does not take key; push tries again.
        Failing = "failing",
        /// This end's KMS has accepted all that was granted, and nothing more is granted for some seconds, because the other end's
        /// has much of it still to accept.
        HeldUp = "held_up",
        /// It is being closed.
        Closing = "closing",
    }
}
