//! The entries of the log, and the chain of hashes that holds them together.

use ring::digest;
use serde::{Deserialize, Serialize};

use super::names::{Extent, Mark, Position};
use super::settings::Role;
use crate::interface::{KeyStreamId, Qos};

/// SHA-256 over an entry and all before it in its epoch; 64 hexadecimal digits on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

/// A hash was not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 hexadecimal digits")]
pub struct NoDigest;

impl Digest {
    /// The digest of nothing known, as a fresh ledger has it.
    pub const NONE: Self = Self([0; 32]);

    fn of(parts: &[&[u8]]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in parts {
            context.update(part);
        }
        let mut value = [0; 32];
        for (to, from) in value.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        Self(value)
    }

    /// Where the chain of an epoch begins. The serial numbers tie it to the pair of cards.
    #[must_use]
    pub fn of_epoch(epoch: u64, leader_card: u64, follower_card: u64) -> Self {
        Self::of(&[
            b"qkd key agreement, epoch",
            &epoch.to_le_bytes(),
            &leader_card.to_le_bytes(),
            &follower_card.to_le_bytes(),
        ])
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        use std::fmt::Write;
        let mut text = Self::with_capacity(64);
        for octet in digest.0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "{octet:02x}");
        }
        text
    }
}

impl TryFrom<String> for Digest {
    type Error = NoDigest;

    fn try_from(text: String) -> Result<Self, NoDigest> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NoDigest);
        }
        let mut value = [0; 32];
        for (octet, pair) in value.iter_mut().zip(digits.chunks_exact(2)) {
            let mut both = 0;
            for digit in pair {
                let digit = char::from(*digit).to_digit(16).ok_or(NoDigest)?;
                both = both * 16 + digit;
            }
            *octet = u8::try_from(both).map_err(|_| NoDigest)?;
        }
        Ok(Self(value))
    }
}

/// What an entry does, at both ends alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Decision {
    /// Registers a key stream.
    Open(OpenDecision),
    /// Gives `count` chunks from position `first` on to a stream; the extents in their order are their octets.
    Grant(Grant),
    /// The stream's next chunk is at `to`; what was not granted before is no loss.
    Skip {
        /// Key stream.
        stream: KeyStreamId,
        /// Next position.
        to: Position,
    },
    /// Nothing below `to` will be granted any more.
    Burn {
        /// The new mark.
        to: Mark,
    },
    /// The stream is over; its ID stays forbidden.
    End {
        /// Key stream.
        stream: KeyStreamId,
    },
}

/// Registers a key stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenDecision {
    /// Key stream.
    pub stream: KeyStreamId,
    /// One KMS.
    pub source: String,
    /// The other.
    pub destination: String,
    /// As registered.
    pub qos: Qos,
    /// At which end it was opened first.
    pub opener: Role,
}

/// Gives key to a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Key stream.
    pub stream: KeyStreamId,
    /// Position of the first chunk.
    pub first: Position,
    /// Chunks, at least 1.
    pub count: u32,
    /// Where the octets are, in rising order.
    pub extents: Vec<Extent>,
    /// The new mark, at or beyond the end of the last extent.
    pub mark: Mark,
}

impl Grant {
    /// The position after the last chunk.
    #[must_use]
    pub const fn end(&self) -> Position {
        self.first.saturating_add(self.count as u64)
    }

    /// Octets.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.extents.iter().map(|e| u64::from(e.length)).sum()
    }
}

/// A numbered entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// From 1 in each epoch, without gaps.
    pub number: u64,
    /// Over this entry and all before it.
    pub hash: Digest,
    /// What it does.
    pub decision: Decision,
}

impl Entry {
    /// The entry that follows one with hash `before`.
    #[must_use]
    pub fn chained(before: &Digest, number: u64, decision: Decision) -> Self {
        Self { number, hash: hash(before, number, &decision), decision }
    }

    /// Whether this entry follows one with hash `before`.
    #[must_use]
    pub fn follows(&self, before: &Digest) -> bool {
        self.hash == hash(before, self.number, &self.decision)
    }
}

/// Every field in a fixed order and width, strings with their length before them, so that no two entries share an image.
fn hash(before: &Digest, number: u64, decision: &Decision) -> Digest {
    let mut image = Vec::with_capacity(128);
    let mut number64 = |value: u64| image.extend_from_slice(&value.to_le_bytes());
    match decision {
        Decision::Open(open) => {
            number64(1);
            id(&mut number64, open.stream);
            for text in [&open.source, &open.destination, &open.qos.metadata_mimetype] {
                number64(text.len() as u64);
                for chunk in text.as_bytes().chunks(8) {
                    let mut padded = [0; 8];
                    for (to, from) in padded.iter_mut().zip(chunk) {
                        *to = *from;
                    }
                    number64(u64::from_le_bytes(padded));
                }
            }
            let qos = &open.qos;
            for value in
                [qos.key_chunk_size, qos.max_bps, qos.min_bps, qos.jitter, qos.priority, qos.timeout, qos.ttl]
            {
                number64(u64::from(value));
            }
            number64(u64::from(open.opener == Role::Leader));
        }
        Decision::Grant(grant) => {
            number64(2);
            id(&mut number64, grant.stream);
            number64(grant.first);
            number64(u64::from(grant.count));
            number64(grant.extents.len() as u64);
            for extent in &grant.extents {
                number64(extent.block.session);
                number64(extent.block.sequence);
                number64(u64::from(extent.offset));
                number64(u64::from(extent.length));
            }
            mark(&mut number64, grant.mark);
        }
        Decision::Skip { stream, to } => {
            number64(3);
            id(&mut number64, *stream);
            number64(*to);
        }
        Decision::Burn { to } => {
            number64(4);
            mark(&mut number64, *to);
        }
        Decision::End { stream } => {
            number64(5);
            id(&mut number64, *stream);
        }
    }
    Digest::of(&[&before.0, &number.to_le_bytes(), &image])
}

fn id(number64: &mut impl FnMut(u64), stream: KeyStreamId) {
    let (high, low) = stream.as_u64_pair();
    number64(high);
    number64(low);
}

fn mark(number64: &mut impl FnMut(u64), mark: Mark) {
    number64(mark.block.session);
    number64(mark.block.sequence);
    number64(u64::from(mark.offset));
}
