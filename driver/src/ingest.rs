//! Takes a block's payload out of its slot: each octet is loaded once, and the sum is that of the copy, so that nothing that a
//! card writes later can differ from what was checked. What was copied is wiped while the nearest cache has it.

use crc_fast::{CrcAlgorithm, Digest, checksum};
use zerocopy::IntoBytes;

use crate::dma::DmaMemory;

/// Octets that are copied, summed up and wiped at a time where the processor cannot do it in one pass.
const STRIDE: usize = 4096;

/// Moves the key that lies at `at`, a multiple of 8, into `room`, and leaves zeroes behind. Gives the CRC-32C of what is in `room`
/// (BLK-5).
pub(crate) fn take(memory: &DmaMemory, at: usize, room: &mut [u8]) -> u32 {
    let mut crc = Digest::new(CrcAlgorithm::Crc32Iscsi);
    let (units, rest) = room.as_chunks_mut();
    if let Some(folded) = memory.take_key_folded(at, units) {
        crc.update(folded.as_bytes());
        take_in_pieces(memory, at + units.as_flattened().len(), rest, &mut crc);
    } else {
        take_in_pieces(memory, at, room, &mut crc);
    }
    low(crc.finalize())
}

fn take_in_pieces(memory: &DmaMemory, mut at: usize, room: &mut [u8], crc: &mut Digest) {
    for piece in room.chunks_mut(STRIDE) {
        memory.copy_out(at, piece);
        memory.wipe_key(at, piece.len());
        crc.update(piece);
        at += piece.len();
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

    use crc_fast::{CrcAlgorithm, Digest};

    use super::{crc32c, low, take, take_in_pieces};
    use crate::dma::DmaMemory;
    use crate::shared_memory::SharedMemory;

    /// Lets `take` have a key that lies at `at` between other octets, which it must leave alone.
    fn check(key: &[u8], at: usize, take: impl Fn(&DmaMemory, usize, &mut [u8]) -> u32) {
        let memory = DmaMemory::new(Arc::new(SharedMemory::anonymous(16_384).unwrap()), 1 << 32);
        memory.copy_in(0, &[0xee; 16_384]);
        memory.copy_in(at, key);
        let mut around = vec![0xdd; key.len() + 600];
        let room = &mut around[300..][..key.len()];
        assert_eq!(take(&memory, at, room), ::crc32c::crc32c(key));
        assert!(room == key, "what was taken is what lay there");
        room.fill(0xdd);
        assert!(around.iter().all(|&octet| octet == 0xdd), "nothing around the room was written to");
        let mut all = vec![1; 16_384];
        memory.copy_out(0, &mut all);
        let mut expected = vec![0xee; 16_384];
        expected[at..][..key.len()].fill(0);
        assert!(all == expected, "the key and nothing else was wiped");
    }

    #[cfg(all(target_arch = "x86_64", not(feature = "no-wipe-for-tests")))]
    #[test]
    fn a_processor_that_can_do_it_in_one_pass_is_not_left_to_do_it_in_three() {
        let can = std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("vpclmulqdq");
        let memory = DmaMemory::new(Arc::new(SharedMemory::anonymous(4096).unwrap()), 1 << 32);
        assert_eq!(memory.take_key_folded(0, &mut [[0; 256]]).is_some(), can);
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_lay_there_and_its_sum_and_nothing_else_is_wiped(
            key in prop::collection::vec(any::<u8>(), 0..13_000),
            at in 0usize..100,
        ) {
            check(&key, at * 8, take);
        }

        #[test]
        fn so_it_is_on_a_processor_that_needs_more_than_one_pass(
            key in prop::collection::vec(any::<u8>(), 0..13_000),
            at in 0usize..100,
        ) {
            check(&key, at * 8, |memory, at, room| {
                let mut crc = Digest::new(CrcAlgorithm::Crc32Iscsi);
                take_in_pieces(memory, at, room, &mut crc);
                low(crc.finalize())
            });
        }

        #[test]
        fn the_sum_is_that_of_another_implementation(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(crc32c(&octets), ::crc32c::crc32c(&octets));
        }
    }
}
