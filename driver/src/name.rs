//! The name of a block.

use std::fmt;

/// Name of a block of key: both ends of a QKD link hold the same octets under the same name (SES-1, SES-3).
///
/// Names are ordered as the card announces them: by session, then by sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockName {
    /// Session number, never 0 and never used twice by the two cards of a link.
    pub session: u64,
    /// Number of the block within its session, from 0.
    pub sequence: u64,
}

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.session, self.sequence)
    }
}
