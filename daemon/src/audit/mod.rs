//! The audit record: who opened, started, closed, was refused, reloaded or zeroized. IDs and sizes, never key.
//!
//! A directory holds numbered files of JSON lines. Each line holds its number, the time, and the SHA-256 digest of the line
//! before it, over the files' bounds; `audit.head` holds number and digest of the last. So a line that was changed, removed,
//! inserted or moved is found, and so is a tail that was cut off. Whoever has the daemon's rights can write all of it anew:
//! against that helps a head that was noted elsewhere, and the daemon's log has one at each start, each end and each new file.
//!
//! A line is on the disk before what it tells of is answered. When it cannot be written the daemon ends, as with its
//! ledger: key that nobody could account for is not handed out.

mod file;
mod verify;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::interface::KeyStreamId;

pub use self::file::{AuditError, AuditFile};
pub use self::verify::{Verdict, Wrong, verify};

/// Digest of a line, in hexadecimal.
pub type DigestText = String;

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// A KMS at this end, by its URI; without one where the call does not tell it.
    Kms(Option<String>),
    /// An operator of this host, by user number.
    Operator(u32),
    /// The module at the other end.
    Peer,
    /// This daemon by itself.
    Daemon,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// The daemon has begun to work.
    DaemonStarted {
        /// Its version.
        version: String,
        /// Name of the module.
        module: String,
        /// Serial number of its card.
        card: u64,
    },
    /// The daemon ends.
    DaemonStopped {
        /// "stopped as asked", or the failure.
        why: String,
    },
    /// A key stream was opened at this end.
    Opened {
        /// Key stream.
        stream: KeyStreamId,
        /// Octets per chunk.
        chunk_size: u32,
    },
    /// The KMS has asked for key for the first time since the daemon started.
    Started {
        /// Key stream.
        stream: KeyStreamId,
    },
    /// The KMS has closed.
    Closed {
        /// Key stream.
        stream: KeyStreamId,
    },
    /// A key stream has ended at this end.
    Ended {
        /// Key stream.
        stream: KeyStreamId,
    },
    /// Something was refused.
    Refused {
        /// What was asked for.
        call: String,
        /// Key stream, where one was named.
        stream: Option<KeyStreamId>,
        /// Status of the interface.
        status: u32,
    },
    /// More was refused, or came and went, than is recorded one by one.
    NotRecordedOneByOne {
        /// How many.
        count: u64,
    },
    /// The other module was connected.
    PeerConnected,
    /// The other module was disconnected.
    PeerDisconnected,
    /// Settings or certificates were read anew.
    Reloaded {
        /// Which.
        settings: String,
    },
    /// Every key is to be destroyed.
    ZeroizeOrdered,
    /// It is proven that every key is destroyed.
    Zeroized {
        /// Blocks wiped in the vault.
        blocks: u64,
        /// Key streams that ended.
        streams: u64,
    },
    /// That every key is destroyed is not proven.
    NotZeroized,
}

/// One event for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who.
    pub who: Who,
    /// What.
    pub what: What,
}

/// One line of the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counts from 1.
    pub number: u64,
    /// Milliseconds since 1970, by this host's clock.
    pub time_ms: u64,
    /// Digest of the line before.
    pub previous: DigestText,
    /// Who.
    pub who: Who,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// Number and digest of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number; 0 before the first line.
    pub number: u64,
    /// Digest.
    pub digest: DigestText,
}

impl Head {
    /// Before the first line.
    #[must_use]
    pub fn none() -> Self {
        Self { number: 0, digest: "0".repeat(64) }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, {}", self.number, self.digest)
    }
}

/// Name of the file with the head.
const HEAD: &str = "audit.head";

/// Digest of a line without its end.
fn digest(line: &[u8]) -> DigestText {
    use std::fmt::Write;
    let digest = ring::digest::digest(&ring::digest::SHA256, line);
    digest.as_ref().iter().fold(String::new(), |mut text, octet| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

fn file_name(number: u64) -> String {
    format!("audit.{number:06}.jsonl")
}

/// Number of a file of this name, if it is one of the record's.
fn file_number(name: &str) -> Option<u64> {
    let number: u64 = name.strip_prefix("audit.")?.strip_suffix(".jsonl")?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}
