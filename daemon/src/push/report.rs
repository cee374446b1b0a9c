//! What the pushing of key streams tells the engine.

use std::time::{Duration, Instant};

use super::answer::AnswerError;
use crate::interface::KeyStreamId;
use crate::vault::VaultError;

/// News of one key stream. Positions are 64-bit; `up_to` is one past the last position meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Every chunk below `up_to` was accepted by the KMS or discarded; its octets are wiped. Several chunks share
    /// one report.
    Accepted {
        /// Key stream.
        stream: KeyStreamId,
        /// One past the last position.
        up_to: u64,
    },
    /// Chunks were discarded before their first transmission, and wiped.
    Discarded {
        /// Key stream.
        stream: KeyStreamId,
        /// The greatest discard so far.
        up_to: u64,
        /// Chunks since the last such report.
        chunks: u64,
    },
    /// The KMS refused a chunk for good. Nothing is sent until [`super::PushHandle::resume`].
    Suspended {
        /// Key stream.
        stream: KeyStreamId,
        /// HTTP status of the answer.
        status: u16,
        /// Words of the answer's body that cannot be key; may be empty.
        excerpt: String,
    },
    /// The KMS does not take a chunk, which is tried again. Comes at the first failure and then at most every
    /// half minute.
    Failing {
        /// Key stream.
        stream: KeyStreamId,
        /// The latest failure.
        why: Failure,
        /// When the first failure in a row was.
        since: Instant,
    },
    /// After [`Report::Failing`]: the KMS takes chunks again.
    Recovered {
        /// Key stream.
        stream: KeyStreamId,
        /// How long it took none.
        after: Duration,
    },
    /// The stream is no longer pushed. The last report of a stream.
    Stopped(Stopped),
}

/// The end of a stream's pushing: nothing of it is on its way any more, and what was left is wiped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Key stream.
    pub stream: KeyStreamId,
    /// Every chunk below was sent at least once or discarded, and none at or above was.
    pub sent_up_to: u64,
    /// Every chunk below was accepted or discarded.
    pub accepted_up_to: u64,
}

/// Why a chunk has to be sent again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The KMS's host name has no address.
    #[error("the KMS's host name cannot be resolved: {0}; check `endpoint` of the KMS")]
    Unresolved(String),
    /// The host name leads off this machine, which the configuration does not allow without TLS.
    #[error(
        "the KMS's host name leads beyond loopback, where keys would travel in plain text; see \
         transport.plain_text_beyond_loopback_gives_keys_away"
    )]
    BeyondLoopback,
    /// The connection was not made.
    #[error("the KMS does not take a connection: {0}")]
    Unconnected(String),
    /// It is not the KMS, or does not take this module for what it is.
    #[error("no TLS connection with the KMS: {0}")]
    Untrusted(String),
    /// Neither name nor connection in time.
    #[error("the KMS did not take a connection in time")]
    ConnectDeadline,
    /// The connection broke.
    #[error("the connection to the KMS broke: {0}")]
    Broken(String),
    /// The KMS closed the connection before it answered.
    #[error("the KMS closed the connection without an answer")]
    Closed,
    /// No whole answer in time.
    #[error("the KMS did not answer in time")]
    AnswerDeadline,
    /// The answer is no HTTP, or too large.
    #[error("the KMS's answer cannot be read: {0}")]
    Unreadable(#[from] AnswerError),
    /// No memory to write the request in, or to read the answer.
    #[error("there is no send buffer for the key stream now: {0}")]
    NoMemory(VaultError),
    /// The KMS asked to be tried again later.
    #[error("the KMS answered with HTTP status {0}")]
    Status(u16),
}
