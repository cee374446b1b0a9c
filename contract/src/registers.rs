//! The register table of BAR 0 (clauses REG-1 to REG-9 and the clause named in each row).

/// Who writes a register (REG-2). No register has two writers and reading never has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Written by the card, read by the host.
    Card,
    /// Written by the host; reads give back what was written.
    Host,
}

/// One row of the register table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Name as in the document.
    pub name: &'static str,
    /// Byte offset in BAR 0, a multiple of `width`.
    pub offset: u32,
    /// Width in bytes, 4 or 8; the only legal access size (REG-3).
    pub width: u32,
    /// Who writes it.
    pub access: Access,
    /// The clause that defines it.
    pub clause: &'static str,
}

macro_rules! registers {
    ($($(#[$doc:meta])* $name:ident = $offset:literal, $width:literal, $access:ident, $clause:literal;)*) => {
        $($(#[$doc])*
        pub const $name: Register =
            Register { name: stringify!($name), offset: $offset, width: $width, access: Access::$access, clause: $clause };)*
        /// Every register, in order of offset.
        pub const ALL: &[Register] = &[$($name),*];
    };
}

registers! {
    /// `QKD1` in little-endian octets; all ones: the card is gone.
    MAGIC = 0x0000, 4, Card, "ID-1";
    /// Contract version, major in bits 31..16, minor in bits 15..0.
    VERSION = 0x0004, 4, Card, "ID-2";
    /// Feature bits, see [`feature`].
    FEATURES = 0x0008, 8, Card, "ID-3";
    /// This card's serial number, never 0.
    SERIAL = 0x0010, 8, Card, "ID-4";
    /// Serial number of the card at the link's other end, 0 while unknown.
    PEER_SERIAL = 0x0018, 8, Card, "ID-5";
    /// [`crate::state::Role`].
    ROLE = 0x0020, 4, Card, "ID-6";
    /// Largest block payload in bytes, a multiple of 64, at most [`crate::limits::BLOCK_BYTES_MAX`].
    BLOCK_MAX = 0x0024, 4, Card, "ID-7";
    /// Bytes of payload the card can retain.
    RETENTION_BYTES = 0x0028, 8, Card, "ID-8";
    /// Blocks the card can retain.
    RETENTION_BLOCKS = 0x0030, 4, Card, "ID-8";
    /// [`crate::state::State`].
    STATE = 0x0040, 4, Card, "ST-1";
    /// [`crate::state::Fault`], 0 when there is none.
    FAULT = 0x0044, 4, Card, "ST-9";
    /// [`crate::state::LinkState`].
    LINK_STATE = 0x0048, 4, Card, "LNK-1";
    /// Tag (31..16) and [`crate::command::Outcome`] (15..0) of the newest command that is done.
    COMMAND_DONE = 0x0050, 4, Card, "CMD-3";
    /// Number of times that a zeroize has been completed since power-on.
    ZEROIZED = 0x0054, 4, Card, "ZER-3";
    /// The host-owned monotone cell, non-volatile.
    CELL = 0x0058, 8, Card, "CEL-1";
    /// Current session, 0 while there is none.
    SESSION = 0x0060, 8, Card, "SES-1";
    /// Session of the newest block announced, 0 before the first.
    NEWEST_SESSION = 0x0068, 8, Card, "SES-7";
    /// Sequence of the newest block announced.
    NEWEST_SEQUENCE = 0x0070, 8, Card, "SES-7";
    /// Changes at least every 100 ms while the card lives.
    HEARTBEAT = 0x0078, 8, Card, "ST-10";
    /// Tag (31..16) and [`crate::command::Opcode`] (15..0).
    COMMAND = 0x0080, 4, Host, "CMD-1";
    /// Argument of the command, written before it.
    COMMAND_ARGUMENT = 0x0084, 4, Host, "CMD-1";
    /// Value to raise the cell to.
    CELL_STORE = 0x0088, 8, Host, "CEL-2";
    /// I/O virtual address of slot 0, a multiple of 4096.
    SLOT_BASE = 0x0090, 8, Host, "RNG-1";
    /// I/O virtual address of the event ring, a multiple of 4096.
    EVENT_BASE = 0x0098, 8, Host, "RNG-1";
    /// I/O virtual address of the acknowledgement ring, a multiple of 4096.
    ACK_BASE = 0x00A0, 8, Host, "RNG-1";
    /// Bytes per slot, a multiple of 4096, at least header and `BLOCK_MAX`.
    SLOT_BYTES = 0x00A8, 4, Host, "RNG-2";
    /// Number of slots, a power of two from 2 to 65536.
    SLOT_COUNT = 0x00AC, 4, Host, "RNG-2";
    /// Entries of the event ring, a power of two from 64 to 65536.
    EVENT_COUNT = 0x00B0, 4, Host, "RNG-2";
    /// Entries of the acknowledgement ring, a power of two from 64 to 65536.
    ACK_COUNT = 0x00B4, 4, Host, "RNG-2";
    /// Bit per vector: 1 lets the card raise it.
    INTERRUPT_ENABLE = 0x00B8, 4, Host, "INT-2";
    /// Longest time in microseconds that the card may hold back an armed event interrupt, at most 10 000.
    MODERATION = 0x00BC, 4, Host, "INT-4";
    /// Slots given to the card since START, free running.
    SLOT_CREDIT = 0x1000, 4, Host, "RNG-5";
    /// Events consumed by the host since START, free running.
    EVENT_CONSUMED = 0x1040, 4, Host, "RNG-6";
    /// Arm serial (63..32) and number of the event waited for (31..0).
    ARM = 0x1080, 8, Host, "INT-1";
    /// Acknowledgement entries written since START, free running.
    ACK_TAIL = 0x10C0, 4, Host, "ACK-1";
    /// Acknowledgement entries taken since START, free running.
    ACK_HEAD = 0x1100, 4, Card, "ACK-3";
    /// Odd while the card changes the telemetry, even otherwise.
    TELEMETRY_SEQUENCE = 0x2000, 4, Card, "TEL-1";
    /// Quantum bit error rate of the last interval, parts per million.
    QBER = 0x2004, 4, Card, "TEL-2";
    /// Interference visibility of the last interval, parts per million.
    VISIBILITY = 0x2008, 4, Card, "TEL-2";
    /// Detector temperature in millidegrees Celsius, two's complement.
    DETECTOR_TEMPERATURE = 0x200C, 4, Card, "TEL-3";
    /// Secret key rate in bit/s over the last interval.
    SECRET_KEY_RATE = 0x2010, 8, Card, "TEL-2";
    /// Sifted key rate in bit/s over the last interval.
    SIFTED_KEY_RATE = 0x2018, 8, Card, "TEL-2";
    /// Board temperature in millidegrees Celsius, two's complement.
    BOARD_TEMPERATURE = 0x2020, 4, Card, "TEL-3";
    /// Blocks announced since power-on.
    BLOCKS_ANNOUNCED = 0x2028, 8, Card, "TEL-4";
    /// Payload bytes announced since power-on.
    BYTES_ANNOUNCED = 0x2030, 8, Card, "TEL-4";
    /// Blocks refused because retention was full.
    DROPPED_OVERFLOW = 0x2038, 8, Card, "TEL-4";
    /// Payload bytes refused because retention was full.
    DROPPED_OVERFLOW_BYTES = 0x2040, 8, Card, "TEL-4";
    /// Blocks lost because the error rate was too high.
    DROPPED_QBER = 0x2048, 8, Card, "TEL-4";
    /// Blocks lost at this end because reconciliation or verification failed.
    DROPPED_RECONCILIATION = 0x2050, 8, Card, "TEL-4";
    /// Blocks lost because the classical channel could not be authenticated.
    DROPPED_AUTHENTICATION = 0x2058, 8, Card, "TEL-4";
    /// DMA writes or reads that failed.
    DMA_ERRORS = 0x2060, 8, Card, "TEL-4";
    /// Blocks retained now.
    RETAINED_BLOCKS = 0x2068, 4, Card, "TEL-5";
    /// Payload bytes retained now.
    RETAINED_BYTES = 0x2070, 8, Card, "TEL-5";
}

/// Value of [`MAGIC`] (ID-1).
pub const MAGIC_VALUE: u32 = 0x3144_4B51;
/// Contract version of this crate, major 1, minor 0 (ID-2).
pub const VERSION_VALUE: u32 = 0x0001_0000;

/// Feature bits of [`FEATURES`] (ID-3).
pub mod feature {
    /// The card has the host-owned cell.
    pub const CELL: u64 = 1 << 0;
    /// The card honours `MODERATION`.
    pub const MODERATION: u64 = 1 << 1;
    /// The card delivers positional test key: nothing it delivers is secret.
    pub const TEST_KEY: u64 = 1 << 63;
    /// Bits this contract version defines; others are zero.
    pub const DEFINED: u64 = CELL | MODERATION | TEST_KEY;
}
