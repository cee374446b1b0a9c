//! Takes a block's payload out of its slot: each octet is loaded once, and the sum is that of the copy, so that nothing that a
//! card writes later can differ from what was checked.

use crate::dma::DmaMemory;

/// Octets that are copied and then summed up, so that the sum finds them in the nearest cache.
const STRIDE: usize = 4096;

/// Copies what lies at `at` into `room`. Gives the CRC-32C of the copy (BLK-5).
pub(crate) fn copy_and_sum(memory: &DmaMemory, mut at: usize, room: &mut [u8]) -> u32 {
    let mut crc = 0;
    for piece in room.chunks_mut(STRIDE) {
        memory.copy_out(at, piece);
        crc = crc32c::crc32c_append(crc, piece);
        at += piece.len();
    }
    crc
}
