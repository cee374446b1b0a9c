//! The lines of a history.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::digest::Digest;
use super::position::Origin;
use super::trace::Piece;

/// Version of the format; another one is refused.
pub const VERSION: u32 = 1;
/// Runs begin at multiples of this many positions, unless something is missing.
pub const RUN_POSITIONS: u64 = 1024;
/// Digests in a run cover this many positions each, from a multiple of it on.
pub const STEP_POSITIONS: u64 = 64;
/// Octets kept of the digest of a step.
pub const STEP_DIGEST_BYTES: usize = 16;

/// Milliseconds since 1970-01-01T00:00:00Z, by the clock of the KMS's host.
pub type Milliseconds = u64;

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// The first line.
    History(Header),
    /// OPEN_CONNECT was answered.
    Open(Opened),
    /// GET_KEY was answered.
    GetKey(Called),
    /// CLOSE was answered.
    Close(Called),
    /// A chunk came for the first time.
    Chunk(Chunk),
    /// Chunks came for the first time, one position after the other, faster than they are recorded one by one.
    Run(Run),
    /// Chunks came again with the same octets.
    Duplicates(Duplicates),
    /// A chunk came again with other octets.
    Changed(Changed),
    /// Positions were passed over.
    Gap(Gap),
    /// `key-material` without key came: the module tells of trouble.
    Notice(Notice),
    /// The chunk is test key, but too little of each block to tell its place: to be told from all of both histories.
    Unexplained(Unexplained),
    /// The KMS itself saw something that must not be.
    Violation(Violation),
    /// Lines could not be written, because the disk was too slow.
    Dropped {
        /// How many.
        lines: u64,
    },
    /// The last line: the KMS ended in order.
    End {
        /// When.
        t: Milliseconds,
    },
}

/// What a history is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub version: u32,
    /// Name of this recording, made up anew for each: tells a history and its copy from two histories.
    pub recording: Uuid,
    /// URI of the KMS that wrote it.
    pub kms: String,
    /// As at OPEN_CONNECT.
    pub source: String,
    /// As at OPEN_CONNECT.
    pub destination: String,
    /// Base URL of the QKD module.
    pub module: String,
    /// When the recording began.
    pub t: Milliseconds,
}

/// OPEN_CONNECT and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// When it was sent.
    pub t: Milliseconds,
    /// When its answer was read.
    pub answered: Milliseconds,
    /// Key stream ID of the answer, or of the request where the answer has none.
    pub stream: Option<Uuid>,
    /// HTTP status; 0: no answer.
    pub http: u16,
    /// `status` of the answer.
    pub status: Option<u32>,
    /// Octets per chunk as registered.
    pub chunk_size: Option<u32>,
}

/// GET_KEY or CLOSE and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Called {
    /// When it was sent.
    pub t: Milliseconds,
    /// When its answer was read.
    pub answered: Milliseconds,
    /// Key stream.
    pub stream: Uuid,
    /// First index wanted, for GET_KEY.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// HTTP status; 0: no answer.
    pub http: u16,
    /// `status` of the answer.
    pub status: Option<u32>,
}

impl Called {
    /// True if the module accepted the call.
    #[must_use]
    pub fn accepted(&self) -> bool {
        (200..300).contains(&self.http)
    }
}

/// One chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// When it was there in full.
    pub t: Milliseconds,
    /// Key stream.
    pub stream: Uuid,
    /// As on the wire.
    pub index: u32,
    /// The index unwrapped to 64 bits.
    pub position: u64,
    /// Octets.
    pub length: u32,
    /// Digest of the octets.
    pub sha256: Digest,
    /// HTTP status that it was answered with.
    pub answer: u16,
    /// Where its octets come from; absent when the key is no test key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origin: Vec<OriginPiece>,
    /// The octets as base64; only where the user asked for key to be recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<RecordedKey>,
}

/// Key that the user asked to be written down; not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordedKey(pub String);

impl std::fmt::Debug for RecordedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecordedKey(…)")
    }
}

/// Many chunks at consecutive positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// When the first was there.
    pub t: Milliseconds,
    /// When the last was there.
    pub until: Milliseconds,
    /// Key stream.
    pub stream: Uuid,
    /// Position of the first.
    pub first: u64,
    /// How many, at most [`RUN_POSITIONS`].
    pub count: u64,
    /// Octets of each.
    pub length: u32,
    /// Base64 of one digest per step (see [`steps`]): the first [`STEP_DIGEST_BYTES`] octets of SHA-256 over the
    /// SHA-256 digests of its chunks in order.
    pub steps: String,
    /// Digest of the first chunk.
    pub sample: Digest,
    /// As in [`Chunk`], for all chunks together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origin: Vec<OriginPiece>,
}

/// The steps of the positions `first..first + count`: each from a multiple of [`STEP_POSITIONS`] to the next one,
/// except that the first and the last may be cut short.
pub fn steps(first: u64, count: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    let end = first.saturating_add(count);
    let mut next = first;
    std::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        let to = (next / STEP_POSITIONS + 1).saturating_mul(STEP_POSITIONS).min(end);
        let step = next..to;
        next = to;
        Some(step)
    })
}

/// Chunks that came again unchanged since the last such line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicates {
    /// When the last of them came.
    pub t: Milliseconds,
    /// Key stream.
    pub stream: Uuid,
    /// How many were compared with what had come before, and were the same.
    pub count: u64,
    /// How many were too old for their digest to be remembered.
    pub unchecked: u64,
}

/// A chunk that came with two contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// When it came again.
    pub t: Milliseconds,
    /// Key stream.
    pub stream: Uuid,
    /// Position.
    pub position: u64,
    /// Digest of what came first.
    pub first: Digest,
    /// Digest of what came now.
    pub sha256: Digest,
}

/// Positions that were passed over: `from` to before `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// When the chunk after it came.
    pub t: Milliseconds,
    /// Key stream.
    pub stream: Uuid,
    /// First one missing.
    pub from: u64,
    /// First one there again.
    pub to: u64,
}

/// The module's word about trouble on a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When it came.
    pub t: Milliseconds,
    /// Key stream.
    pub stream: Uuid,
    /// Its `status`.
    pub status: u32,
    /// Its `index`: the next one that will be delivered.
    pub index: u32,
    /// The index unwrapped to 64 bits.
    pub position: u64,
}

/// A chunk whose octets could not be placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unexplained {
    /// Key stream.
    pub stream: Uuid,
    /// Position.
    pub position: u64,
    /// Octets.
    pub length: u32,
    /// Digest of the octets.
    pub sha256: Digest,
}

/// What the KMS itself judged to be wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// When.
    pub t: Milliseconds,
    /// Key stream, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Uuid>,
    /// Position, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Invariant that is broken.
    pub invariant: Invariant,
    /// What was seen, in words.
    pub what: String,
}

/// What must hold for the two histories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Invariant {
    /// Agreement: the same octets at both ends.
    I1,
    /// No reuse: no key under two positions, none shifted, none invented.
    I2,
    /// Stability: a chunk that comes twice is the same twice.
    I3,
    /// Order: positions rise, gaps only with a counted loss.
    I4,
    /// Consent: nothing before both get-keys, nothing after close.
    I5,
    /// The interface: form of requests and answers.
    Interface,
}

impl Invariant {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [Self::I1, Self::I2, Self::I3, Self::I4, Self::I5, Self::Interface];

    /// Name with its one-word meaning.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::I1 => "I1 agreement",
            Self::I2 => "I2 no reuse",
            Self::I3 => "I3 stability",
            Self::I4 => "I4 order",
            Self::I5 => "I5 consent",
            Self::Interface => "interface",
        }
    }
}

/// A [`Piece`] as it stands in a history: `[session, sequence, offset, length]`, or `[length]` where the place cannot
/// be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OriginPiece {
    /// Low 32 bits of the session, low 40 of the sequence, offset in the block, octets.
    Named(u32, u64, u32, u32),
    /// Octets.
    Unknown([u32; 1]),
}

impl From<Piece> for OriginPiece {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Named { from, length } => Self::Named(from.session, from.sequence, from.offset, length),
            Piece::Unknown { length } => Self::Unknown([length]),
        }
    }
}

impl From<OriginPiece> for Piece {
    fn from(piece: OriginPiece) -> Self {
        match piece {
            OriginPiece::Named(session, sequence, offset, length) => {
                Self::Named { from: Origin { session, sequence, offset }, length }
            }
            OriginPiece::Unknown([length]) => Self::Unknown { length },
        }
    }
}
