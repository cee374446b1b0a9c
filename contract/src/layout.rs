//! What lies in DMA memory: block header, event entry, acknowledgement entry (clauses BLK, EVT, ACK).
//!
//! All fields are little-endian and reserved fields are zero.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Value of [`BlockHeader::magic`], `QBLK` in little-endian octets (BLK-2).
pub const BLOCK_MAGIC: u32 = 0x4B4C_4251;
/// Value of [`BlockHeader::version`] (BLK-2).
pub const BLOCK_VERSION: u16 = 1;
/// Flag of a block that is delivered again after START (BLK-3).
pub const BLOCK_REPLAYED: u16 = 1 << 0;

/// Header at the start of a slot; the payload follows at octet 64 (BLK-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BlockHeader {
    /// [`BLOCK_MAGIC`].
    pub magic: U32,
    /// [`BLOCK_VERSION`].
    pub version: U16,
    /// [`BLOCK_REPLAYED`] or zero.
    pub flags: U16,
    /// Session (SES-1).
    pub session: U64,
    /// Sequence within the session, from 0 (SES-3).
    pub sequence: U64,
    /// Octets of payload, 1 to `BLOCK_MAX` (BLK-4).
    pub length: U32,
    /// Error rate of the raw key behind this block, parts per million (BLK-6).
    pub qber: U32,
    /// Microseconds since the session began (BLK-6).
    pub distilled_at: U64,
    /// Zero.
    pub reserved: [u8; 16],
    /// CRC-32C of the payload (BLK-5).
    pub payload_crc: U32,
    /// CRC-32C of octets 0 to 59 of this header (BLK-5).
    pub header_crc: U32,
}

/// What an [`Event`] tells, its `kind` (EVT-2).
pub mod event {
    /// A block lies in `slot`.
    pub const BLOCK: u16 = 1;
    /// All that was retained at START has been announced again.
    pub const REPLAY_END: u16 = 2;
    /// A session has begun; `session` is its number, `sequence` counts the blocks of the session before it.
    pub const SESSION: u16 = 3;
    /// The link state changed; `detail` is the new one.
    pub const LINK: u16 = 4;
}

/// One entry of the event ring, 64 octets (EVT-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Event {
    /// One of [`event`].
    pub kind: U16,
    /// Zero.
    pub flags: U16,
    /// Slot index, for `BLOCK`; else zero.
    pub slot: U32,
    /// Session.
    pub session: U64,
    /// Sequence, as the kind says.
    pub sequence: U64,
    /// Octets of payload, for `BLOCK`; else zero.
    pub length: U32,
    /// As the kind says.
    pub detail: U32,
    /// Zero.
    pub reserved: [u8; 24],
    /// CRC-32C of octets 0 to 55 (EVT-4).
    pub crc: U32,
    /// Number of this event modulo 2^32, the first after START is 1 (EVT-3).
    pub number: U32,
}

/// One entry of the acknowledgement ring, 32 octets: every block from first to last, both included, in the order
/// (session, sequence) (ACK-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Acknowledgement {
    /// Session of the first block.
    pub first_session: U64,
    /// Sequence of the first block.
    pub first_sequence: U64,
    /// Session of the last block.
    pub last_session: U64,
    /// Sequence of the last block.
    pub last_sequence: U64,
}

const _: () = assert!(size_of::<BlockHeader>() == 64);
const _: () = assert!(core::mem::offset_of!(BlockHeader, header_crc) == 60);
const _: () = assert!(size_of::<Event>() == 64);
const _: () = assert!(core::mem::offset_of!(Event, number) == 60);
const _: () = assert!(size_of::<Acknowledgement>() == 32);

/// Octet `index` of the self-test pattern (CMD-9). Two exclusive ORs of a counter, so that gateware needs no memory for it.
#[must_use]
pub const fn self_test_octet(index: u32) -> u8 {
    ((index ^ (index >> 8)) & 0xFF) as u8 ^ 0xA5
}
