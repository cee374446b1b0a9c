//! The limits of the peer protocol, and what breaks them.

use super::entry::Decision;
use super::message::{Log, PROTOCOL_VERSION, Range, Report};
use super::settings::Role;
use crate::interface::Qos;

/// Largest message in octets of JSON.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Most log entries in a message.
pub(crate) const ENTRIES_MAX: usize = 256;
/// Most extents in an entry.
pub(crate) const EXTENTS_MAX: usize = 4_096;
/// Most extents in all entries of a message.
pub(crate) const EXTENTS_IN_MESSAGE_MAX: usize = 4_096;
/// Most ranges of blocks in a report.
pub(crate) const RANGES_MAX: usize = 2_048;
/// Most lines about key streams in a message.
pub(crate) const LINES_MAX: usize = 512;
/// Most KMS URIs in a hello.
pub(crate) const KMS_MAX: usize = 256;
/// Longest URI, name or sentence, in octets.
pub(crate) const TEXT_MAX: usize = 2_048;
/// Largest chunk in octets, whatever the settings of the two ends.
pub(crate) const CHUNK_BYTES_MAX: u32 = 1 << 20;
/// Epochs beyond this one are nobody's: room is left to count on.
pub(crate) const EPOCH_MAX: u64 = u64::MAX / 2;
/// Most chunks in an entry.
pub(crate) const CHUNKS_MAX: u32 = 1 << 22;

/// The other end broke a rule of the protocol. The connection ends; nothing else has happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// The frame is too large.
    #[error("a message of {0} octets is longer than {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    /// The frame is not a message of this version.
    #[error("not a message of peer protocol version {PROTOCOL_VERSION}: {0}")]
    Malformed(String),
    /// More members than the protocol allows.
    #[error("{what}: {count} are more than the {most} that the peer protocol allows")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// Most.
        most: usize,
    },
    /// A text is too long.
    #[error("{what} has {length} octets, more than {TEXT_MAX}")]
    LongText {
        /// What.
        what: &'static str,
        /// Its octets.
        length: usize,
    },
    /// A value makes no sense.
    #[error("{what}: {why}")]
    Nonsense {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// A message that is not the sender's to send.
    #[error("a {message} message, but the other end is the {role}")]
    WrongRole {
        /// Which message.
        message: &'static str,
        /// The sender's role.
        role: Role,
    },
    /// An entry that does not follow from what is known.
    #[error("log entry {number}: {why}")]
    WrongEntry {
        /// Its number.
        number: u64,
        /// Why.
        why: &'static str,
    },
}

/// At most [`TEXT_MAX`] octets of `text`, cut at a character, with control characters replaced.
#[must_use]
pub(crate) fn excerpt(text: &str) -> String {
    let mut cut = String::new();
    for c in text.chars() {
        let c = if c.is_control() { '?' } else { c };
        if cut.len() + c.len_utf8() > 200 {
            cut.push('…');
            break;
        }
        cut.push(c);
    }
    cut
}

pub(super) fn few(what: &'static str, count: usize, most: usize) -> Result<(), PeerFault> {
    if count > most { Err(PeerFault::TooMany { what, count, most }) } else { Ok(()) }
}

pub(super) fn short(what: &'static str, text: &str) -> Result<(), PeerFault> {
    if text.len() > TEXT_MAX { Err(PeerFault::LongText { what, length: text.len() }) } else { Ok(()) }
}

pub(super) fn check_qos(qos: &Qos) -> Result<(), PeerFault> {
    short("the mimetype", &qos.metadata_mimetype)?;
    let nonsense = |why: &str| Err(PeerFault::Nonsense { what: "qos", why: why.into() });
    if qos.key_chunk_size == 0 || qos.key_chunk_size > CHUNK_BYTES_MAX {
        return nonsense("a chunk has no octets, or too many");
    }
    if qos.timeout == 0 {
        return nonsense("the timeout is 0");
    }
    Ok(())
}

pub(super) fn check_epoch(epoch: u64) -> Result<(), PeerFault> {
    if epoch > EPOCH_MAX {
        return Err(PeerFault::Nonsense { what: "epoch", why: format!("{epoch} is beyond all epochs") });
    }
    Ok(())
}

pub(super) fn check_log(log: &Log) -> Result<(), PeerFault> {
    check_epoch(log.epoch)?;
    few("log entries", log.entries.len(), ENTRIES_MAX)?;
    few("lines about key streams", log.streams.len(), LINES_MAX)?;
    let mut extents = 0;
    let mut before: Option<u64> = None;
    for entry in &log.entries {
        let number = entry.number;
        if before.is_some_and(|b| b.checked_add(1) != Some(number)) || number == 0 {
            return Err(PeerFault::WrongEntry { number, why: "entries are not numbered without gaps" });
        }
        before = Some(number);
        match &entry.decision {
            Decision::Open(open) => {
                short("the source", &open.source)?;
                short("the destination", &open.destination)?;
                check_qos(&open.qos)?;
            }
            Decision::Grant(grant) => {
                few("extents", grant.extents.len(), EXTENTS_MAX)?;
                extents += grant.extents.len();
                if grant.count == 0 || grant.count > CHUNKS_MAX {
                    return Err(PeerFault::WrongEntry { number, why: "no chunks, or too many" });
                }
            }
            Decision::Skip { .. } | Decision::Burn { .. } | Decision::End { .. } => {}
        }
    }
    few("extents in a message", extents, EXTENTS_IN_MESSAGE_MAX)
}

pub(super) fn check_report(report: &Report) -> Result<(), PeerFault> {
    few("ranges of blocks", report.have.len(), RANGES_MAX)?;
    few("lines about key streams", report.streams.len(), LINES_MAX)?;
    if !report.complete.is_usable() {
        return Err(PeerFault::Nonsense { what: "blocks held", why: "complete beyond all blocks".into() });
    }
    let mut before: Option<Range> = None;
    for range in &report.have {
        let rising = before.is_none_or(|b| (b.session, b.last) < (range.session, range.first));
        if range.first > range.last || range.last == u64::MAX || !rising {
            return Err(PeerFault::Nonsense {
                what: "blocks held",
                why: format!("{}/{} to {} is empty or out of order", range.session, range.first, range.last),
            });
        }
        before = Some(*range);
    }
    Ok(())
}
