//! Takes a block's payload out of its slot: each octet is loaded once, and the sum is that of the copy, so that nothing that a
//! card writes later can differ from what was checked. What was copied is wiped while the nearest cache has it.

use crate::dma::DmaMemory;

/// Octets that are copied, summed up and wiped at a time.
const STRIDE: usize = 4096;

/// Moves the key that lies at `at`, a multiple of 8, into `room`, and leaves zeroes behind. Gives the CRC-32C of what is in `room`
/// (BLK-5).
pub(crate) fn take(memory: &DmaMemory, mut at: usize, room: &mut [u8]) -> u32 {
    let mut crc = 0;
    for piece in room.chunks_mut(STRIDE) {
        memory.copy_out(at, piece);
        memory.wipe_key(at, piece.len());
        crc = crc32c::crc32c_append(crc, piece);
        at += piece.len();
    }
    crc
}
