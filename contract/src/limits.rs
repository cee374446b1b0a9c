//! Limits and longest times (clauses TIM and RNG).

/// Largest payload of a block, in bytes (BLK-4).
pub const BLOCK_BYTES_MAX: u32 = 1 << 20;
/// Octets of the block header that precede the payload in its slot (BLK-1).
pub const BLOCK_HEADER_BYTES: u32 = 64;
/// Octets of an event entry (EVT-1).
pub const EVENT_BYTES: u32 = 64;
/// Octets of an acknowledgement entry (ACK-2).
pub const ACK_BYTES: u32 = 32;
/// Alignment of ring base addresses and slot sizes in bytes (RNG-1).
pub const RING_ALIGNMENT: u32 = 4096;
/// Fewest and most slots (RNG-2).
pub const SLOT_COUNT: core::ops::RangeInclusive<u32> = 2..=65_536;
/// Fewest and most event entries (RNG-2).
pub const EVENT_COUNT: core::ops::RangeInclusive<u32> = 64..=65_536;
/// Fewest and most acknowledgement entries (RNG-2).
pub const ACK_COUNT: core::ops::RangeInclusive<u32> = 64..=65_536;
/// Largest value of `MODERATION`, in microseconds (INT-4).
pub const MODERATION_MAX_US: u32 = 10_000;
/// Octets of the self-test pattern written to slot 0 (CMD-9).
pub const SELF_TEST_BYTES: u32 = 4096;

/// Power-on or reset to `Stopped`, `Zeroized` or `Fault`, in milliseconds (TIM-1).
pub const BOOT_MS: u64 = 2_000;
/// `START` to `Running`, in milliseconds (TIM-2).
pub const START_MS: u64 = 100;
/// `STOP` to `Stopped`, in milliseconds (TIM-3).
pub const STOP_MS: u64 = 100;
/// `ZEROIZE` to `Zeroized`, in milliseconds (TIM-4).
pub const ZEROIZE_MS: u64 = 1_000;
/// `SELF_TEST` to its outcome, in milliseconds (TIM-5).
pub const SELF_TEST_MS: u64 = 1_000;
/// Any other command to its outcome, in milliseconds (TIM-6).
pub const COMMAND_MS: u64 = 100;
/// `CELL_STORE` to `CELL`, in milliseconds (TIM-7).
pub const CELL_MS: u64 = 10;
/// Longest time between two changes of `HEARTBEAT`, in milliseconds (TIM-8).
pub const HEARTBEAT_MS: u64 = 100;
/// Function-level reset to the first legal configuration access, in milliseconds (TIM-9).
pub const FUNCTION_RESET_MS: u64 = 100;
/// `ACK_TAIL` to `ACK_HEAD`, in milliseconds (TIM-10).
pub const ACK_MS: u64 = 100;
/// Longest time that the first octet of a block waits for the block to be filled, in milliseconds (TIM-11).
pub const BLOCK_FLUSH_MS: u64 = 1_000;
/// Longest time between two renewals of the telemetry, in milliseconds (TIM-12).
pub const TELEMETRY_MS: u64 = 2_000;
/// Longest time that registers which belong together may not match, in milliseconds (TIM-13).
pub const TORN_MS: u64 = 100;
/// Room for the next event to the event, in milliseconds (TIM-14).
pub const DELIVERY_MS: u64 = 1_000;
