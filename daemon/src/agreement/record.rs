//! The changes that the ledger keeps, one by one.

use serde::{Deserialize, Serialize};

use super::entry::{Digest, Entry};
use super::event::LossCause;
use super::names::{Mark, Position};
use super::settings::Role;
use crate::interface::{KeyStreamId, QosRequest};

/// When key was committed at this end, for its time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The run of the operating system.
    pub boot_id: u128,
    /// Boot time in that run, ms.
    pub boot_ms: u64,
    /// Wall time, ms since 1970.
    pub wall_ms: u64,
}

/// The pair that a ledger belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// This end's role.
    pub role: Role,
    /// Serial number of this end's card.
    pub card: u64,
    /// Serial number of the other end's card.
    pub peer_card: u64,
}

/// How a KMS opened a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The KMS.
    pub kms: String,
    /// As it asked; the same again gets the same answer.
    pub qos: QosRequest,
}

/// One change. Each touches one keyed row, but for `Epoch`, which clears the tables of entries and streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The ledger belongs to this pair.
    Pair(Pair),
    /// Write numbers go on above this one: the card's cell has seen it.
    WriteNumber(u64),
    /// An epoch begins: no streams, no entries, everything below `mark` is used up.
    Epoch {
        /// Its number; 0: none yet.
        epoch: u64,
        /// Where its chain begins.
        hash: Digest,
        /// The mark.
        mark: Mark,
    },
    /// Appended at the leader, applied at the follower.
    Entry {
        /// The entry.
        entry: Entry,
        /// When.
        stamp: Stamp,
    },
    /// The entry is owed to nobody any more.
    Trimmed {
        /// Its number.
        number: u64,
    },
    /// At the leader: the follower has applied the log up to here. No action waits for it; it goes with other writes.
    PeerApplied {
        /// Number of the last entry applied.
        number: u64,
        /// Its hash.
        hash: Digest,
    },
    /// This end's KMS has opened the stream.
    Opened {
        /// Key stream.
        stream: KeyStreamId,
        /// How.
        opened: Opened,
    },
    /// The other end's KMS has opened the stream.
    PeerOpened {
        /// Key stream.
        stream: KeyStreamId,
    },
    /// This end's KMS has sent get-key.
    Wanted {
        /// Key stream.
        stream: KeyStreamId,
    },
    /// This end's KMS wants nothing below `position`.
    Wish {
        /// Key stream.
        stream: KeyStreamId,
        /// First position wanted.
        position: Position,
    },
    /// Everything below `position` is settled at this end.
    Progress {
        /// Key stream.
        stream: KeyStreamId,
        /// First position that is not.
        position: Position,
    },
    /// Chunks are lost at this end and counted.
    Lost {
        /// Key stream.
        stream: KeyStreamId,
        /// First position.
        first: Position,
        /// Chunks.
        count: u64,
        /// Why.
        cause: LossCause,
    },
    /// This end is closed.
    Closed {
        /// Key stream.
        stream: KeyStreamId,
    },
    /// The ID is never used again.
    Forbidden {
        /// Key stream.
        stream: KeyStreamId,
    },
}
