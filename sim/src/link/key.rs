//! Where the octets of a block come from.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::card::{KeyOctets, Name};

/// Octets of a cell of positional test key (TST-1).
const CELL: usize = 16;

/// The source of key for both ends.
pub enum KeySource {
    /// Key from a seeded generator: not secret from whoever has the seed.
    Random(Box<ChaCha8Rng>),
    /// Positional test key: every cell names its session, sequence and offset.
    Positional,
}

impl KeySource {
    /// Whether the card must say that its key is test key.
    #[must_use]
    pub const fn is_test_key(&self) -> bool {
        matches!(self, Self::Positional)
    }

    /// The key of a block of `length` octets.
    pub fn distil(&mut self, name: Name, length: usize) -> KeyOctets {
        KeyOctets::filled_by(length, |octets| match self {
            Self::Random(generator) => generator.fill_bytes(octets),
            Self::Positional => fill_with_cells(name, octets),
        })
    }
}

fn fill_with_cells(name: Name, octets: &mut [u8]) {
    for (number, cell) in (0_u32..).zip(octets.chunks_mut(CELL)) {
        cell.copy_from_slice(test_key_cell(name, number).split_at(cell.len()).0);
    }
}

/// The cell that begins at octet 16 × `number` of the block (TST-1, TST-2).
#[must_use]
pub fn test_key_cell(name: Name, number: u32) -> [u8; CELL] {
    let place = u128::from(name.session & 0xFFFF_FFFF)
        | u128::from(name.sequence & 0xFF_FFFF_FFFF) << 32
        | u128::from(number & 0xFF_FFFF) << 72;
    let mut cell = place.to_le_bytes();
    let (named, check) = cell.split_at_mut(12);
    check.copy_from_slice(&crc32c::crc32c(named).to_le_bytes());
    cell
}
