//! Takes a block's payload out of its slot: each octet is loaded once, and the sum is that of the copy, so that nothing that a
//! card writes later can differ from what was checked. What was copied is wiped while the nearest cache has it.

use crc_fast::{CrcAlgorithm, Digest, checksum};

use crate::dma::DmaMemory;
use crate::shared_memory::fetch_to_fill;

/// Octets that are copied, summed up and wiped at a time.
const STRIDE: usize = 4096;

/// Moves the key that lies at `at`, a multiple of 8, into `room`, and leaves zeroes behind. Gives the CRC-32C of what is in `room`
/// (BLK-5).
pub(crate) fn take(memory: &DmaMemory, mut at: usize, room: &mut [u8]) -> u32 {
    let mut crc = Digest::new(CrcAlgorithm::Crc32Iscsi);
    let mut pieces = room.chunks_mut(STRIDE);
    let mut next = pieces.next();
    fetch(memory, at, next.as_deref_mut());
    while let Some(piece) = next {
        next = pieces.next();
        fetch(memory, at + STRIDE, next.as_deref_mut());
        memory.copy_out(at, piece);
        memory.wipe_key(at, piece.len());
        crc.update(piece);
        at += piece.len();
    }
    low(crc.finalize())
}

/// Has the processor fetch what is taken next, and what it goes to.
fn fetch(memory: &DmaMemory, at: usize, piece: Option<&mut [u8]>) {
    if let Some(piece) = piece {
        memory.fetch_to_take(at, piece.len());
        fetch_to_fill(piece);
    }
}

/// The CRC-32C (BLK-5) of what was copied already.
pub(crate) fn crc32c(octets: &[u8]) -> u32 {
    low(checksum(CrcAlgorithm::Crc32Iscsi, octets))
}

/// A sum of 32 bits comes in 64.
fn low(sum: u64) -> u32 {
    u32::try_from(sum & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{crc32c, take};
    use crate::dma::DmaMemory;
    use crate::shared_memory::SharedMemory;

    proptest! {
        #[test]
        fn what_is_taken_is_what_lay_there_and_its_sum_and_nothing_else_is_wiped(
            key in prop::collection::vec(any::<u8>(), 0..13_000),
            at in 0usize..100,
        ) {
            let memory = DmaMemory::new(Arc::new(SharedMemory::anonymous(16_384).unwrap()), 1 << 32);
            memory.copy_in(0, &[0xee; 16_384]);
            memory.copy_in(at * 8, &key);
            let mut room = vec![0; key.len()];
            prop_assert_eq!(take(&memory, at * 8, &mut room), ::crc32c::crc32c(&key));
            prop_assert_eq!(&room, &key);
            let mut all = vec![1; 16_384];
            memory.copy_out(0, &mut all);
            let mut expected = vec![0xee; 16_384];
            expected[at * 8..at * 8 + key.len()].fill(0);
            prop_assert!(all == expected);
        }

        #[test]
        fn the_sum_is_that_of_another_implementation(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(crc32c(&octets), ::crc32c::crc32c(&octets));
        }
    }
}
