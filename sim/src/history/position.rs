//! The positional test key: key whose octets name their own place (section "Positional test key" of the contract).
//!
//! A block is a row of cells of 16 octets at offsets that are multiples of 16; what would not fit is cut off.

use crate::card::Name;
use crate::link::test_key_cell;

/// Octets of a cell.
pub const CELL_BYTES: usize = 16;
/// Sequences are written modulo 2^40.
pub const SEQUENCE_MASK: u64 = (1 << 40) - 1;
/// Cell numbers are written in 24 bits.
const NUMBER_LIMIT: u32 = 1 << 24;

/// Place of one octet of key among all that the link ever made, as far as the test key can name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Low 32 bits of the session.
    pub session: u32,
    /// Low 40 bits of the sequence.
    pub sequence: u64,
    /// Offset in the block, in octets.
    pub offset: u32,
}

impl Origin {
    /// The place `octets` further on in the same block.
    #[must_use]
    pub fn advanced(self, octets: u32) -> Self {
        Self { offset: self.offset.saturating_add(octets), ..self }
    }

    /// True if both lie in the same block.
    #[must_use]
    pub fn same_block(&self, other: &Self) -> bool {
        self.session == other.session && self.sequence == other.sequence
    }
}

fn cell(session: u32, sequence: u64, number: u32) -> [u8; CELL_BYTES] {
    test_key_cell(Name { session: session.into(), sequence }, number)
}

/// What a whole cell says, if its checksum is right: the place of its first octet.
#[must_use]
pub fn decode(octets: &[u8]) -> Option<Origin> {
    let cell: &[u8; CELL_BYTES] = octets.first_chunk()?;
    let (name, sum) = cell.split_at(12);
    if crc32c::crc32c(name).to_le_bytes() != *sum {
        return None;
    }
    let [a, b, c, d, s0, s1, s2, s3, s4, n0, n1, n2, ..] = *cell;
    Some(Origin {
        session: u32::from_le_bytes([a, b, c, d]),
        sequence: u64::from_le_bytes([s0, s1, s2, s3, s4, 0, 0, 0]),
        // At most 2^28: a cell number has 24 bits.
        offset: u32::from_le_bytes([n0, n1, n2, 0]) * 16,
    })
}

/// Writes the test key of a block, from `offset` octets into it, over `key`.
///
/// Offsets beyond the last cell that can be numbered (2^28 octets, far above the largest block) repeat its number.
pub fn fill(session: u32, sequence: u64, offset: u32, key: &mut [u8]) {
    for (at, part) in cells(offset, key.len()) {
        let cell = cell(session, sequence, at.number);
        if let (Some(to), Some(from)) = (key.get_mut(part), cell.get(at.from..at.to)) {
            to.copy_from_slice(from);
        }
    }
}

/// How many octets at the start of `key` are the test key of `origin` and what follows it in its block.
#[must_use]
pub fn matching(origin: Origin, key: &[u8]) -> usize {
    let mut matched = 0;
    for (at, part) in cells(origin.offset, key.len()) {
        let cell = cell(origin.session, origin.sequence, at.number);
        let (Some(got), Some(named)) = (key.get(part), cell.get(at.from..at.to)) else { break };
        if got == named {
            matched += got.len();
        } else {
            return matched + got.iter().zip(named).take_while(|(a, b)| a == b).count();
        }
    }
    matched
}

/// How many octets at the end of `key` are the test key that leads up to `origin` in its block.
#[must_use]
pub fn matching_before(origin: Origin, key: &[u8]) -> usize {
    let reach = key.len().min(origin.offset as usize);
    let mut matched = 0;
    while matched < reach {
        let Some(&got) = key.get(key.len() - 1 - matched) else { break };
        // `matched` is below `reach`, which is at most the offset, a u32.
        let offset = origin.offset - 1 - u32::try_from(matched).unwrap_or(u32::MAX);
        let cell = cell(origin.session, origin.sequence, offset / 16);
        if cell.get(offset as usize % CELL_BYTES) != Some(&got) {
            break;
        }
        matched += 1;
    }
    matched
}

/// Octets `from..to` of cell `number`.
struct Part {
    number: u32,
    from: usize,
    to: usize,
}

/// The cells that `length` octets from `offset` on touch, each with the range of the octets that it covers.
fn cells(offset: u32, length: usize) -> impl Iterator<Item = (Part, std::ops::Range<usize>)> {
    let mut number = offset / 16;
    let mut from = offset as usize % CELL_BYTES;
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= length {
            return None;
        }
        let to = CELL_BYTES.min(from + length - done);
        let part = Part { number: number.min(NUMBER_LIMIT - 1), from, to };
        let range = done..done + to - from;
        done = range.end;
        number = number.saturating_add(1);
        from = 0;
        Some((part, range))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_is_not_the_documents_layout_is_caught() {
        // From the document: LE u32 session, u40 sequence, u24 offset/16, CRC-32C of these (computed with Python).
        let cell = cell(0x0403_0201, 0x0009_0807_0605, 0x0C_0B0A);
        assert_eq!(cell[..12], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(cell[12..], [0x63, 0x55, 0xA1, 0x51]);
        assert_eq!(
            decode(&cell),
            Some(Origin { session: 0x0403_0201, sequence: 0x0009_0807_0605, offset: 0x0C_0B0A * 16 })
        );
    }

    #[test]
    fn one_wrong_bit_in_a_cell_is_caught() {
        let good = cell(7, 9, 3);
        for bit in 0..128 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
        assert_eq!(decode(&good[..15]), None);
    }

    #[test]
    fn filling_from_any_offset_gives_the_same_block() {
        let mut whole = [0; 100];
        fill(5, 6, 0, &mut whole);
        for offset in 0..100 {
            let mut part = vec![0; 100 - offset];
            fill(5, 6, u32::try_from(offset).unwrap(), &mut part);
            assert_eq!(part, whole[offset..]);
        }
    }

    #[test]
    fn a_match_that_runs_past_a_wrong_octet_is_caught() {
        let mut key = [0; 90];
        fill(5, 6, 7, &mut key);
        let origin = Origin { session: 5, sequence: 6, offset: 7 };
        assert_eq!(matching(origin, &key), 90);
        assert_eq!(matching_before(origin.advanced(90), &key), 90);
        for wrong in 0..90 {
            let mut bad = key;
            bad[wrong] ^= 0x40;
            assert_eq!(matching(origin, &bad), wrong);
            assert_eq!(matching_before(origin.advanced(90), &bad), 89 - wrong);
        }
        assert_eq!(matching_before(Origin { offset: 0, ..origin }, &key), 0);
    }
}
