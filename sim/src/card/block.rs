//! A block of key and its name.

use std::fmt;

use zeroize::Zeroize;

/// Name of a block within one link: session and sequence (SES-1, SES-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Session, never 0.
    pub session: u64,
    /// Place within the session, from 0.
    pub sequence: u64,
}

/// Octets of secret key. Wiped when dropped; neither copied nor shown.
pub struct KeyOctets(Box<[u8]>);

impl KeyOctets {
    /// Makes room for `length` octets and has them written by `fill`.
    pub fn filled_by(length: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        let mut octets = Self(vec![0; length].into_boxed_slice());
        fill(&mut octets.0);
        octets
    }

    /// Number of octets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The octets, to be delivered.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The same octets for the card at the other end of the link, which is the only place that may have them too.
    #[must_use]
    pub fn for_other_end(&self) -> Self {
        Self(self.expose().into())
    }
}

impl Drop for KeyOctets {
    fn drop(&mut self) {
        // As a slice, all at once: a box would be wiped octet by octet.
        self.0.as_mut().zeroize();
    }
}

impl fmt::Debug for KeyOctets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyOctets({} octets, not shown)", self.len())
    }
}

/// A distilled block as one end holds it.
#[derive(Debug)]
pub struct Block {
    /// Its name, the same at both ends.
    pub name: Name,
    /// Error rate of the raw key behind it, parts per million.
    pub qber: u32,
    /// Microseconds since its session began.
    pub distilled_at: u64,
    /// Its octets, 1 to `BLOCK_MAX`.
    pub key: KeyOctets,
}

impl Block {
    /// The same block for the card at the other end.
    #[must_use]
    pub fn for_other_end(&self) -> Self {
        Self {
            name: self.name,
            qber: self.qber,
            distilled_at: self.distilled_at,
            key: self.key.for_other_end(),
        }
    }
}
