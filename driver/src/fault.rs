//! What a card did wrong, and the clause that it broke.

use qkd_contract::command::{Opcode, Outcome};
use qkd_contract::state::{Fault as CardFaultCode, State};

use crate::backing::BackingError;
use crate::name::BlockName;

/// Where a reserved field was not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservedIn {
    /// An event entry.
    Event,
    /// The reserved octets of a block header.
    BlockHeader,
    /// The flags of a block header.
    BlockFlags,
}

/// The card, or the way to it, broke the contract.
///
/// Those that [`Fault::needs_recovery`] tells take the card out of service until [`crate::Card::recover`].
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Registers read all ones, or nobody is behind them any more: pulled, unpowered, or its server has ended.
    #[error("the card is gone: pulled, without power, or its server has ended")]
    Gone,
    /// The way to the card failed.
    #[error("the way to the card failed: {0}")]
    Backing(#[source] BackingError),
    /// The card went to its fault state.
    #[error("the card reports fault {0:?}")]
    CardFault(CardFaultCode),
    /// A register holds a value that the contract does not define.
    #[error("register {register} holds {value:#x}, which the contract does not define")]
    UndefinedValue {
        /// Name of the register.
        register: &'static str,
        /// What it holds.
        value: u64,
    },
    /// A value is outside the range that the contract sets.
    #[error("{what} is {value:#x}, which is out of range")]
    ValueOutOfRange {
        /// Which value.
        what: &'static str,
        /// What it is.
        value: u64,
        /// The clause that sets the range.
        clause: &'static str,
    },
    /// The card is in another state than it must be.
    #[error("the card is {found:?} where it must be {expected:?}")]
    UnexpectedState {
        /// The state that the contract asks for.
        expected: State,
        /// The state found.
        found: State,
    },
    /// A longest time of the contract has passed.
    #[error("{what} did not happen within {ms} ms")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// The time allowed, in milliseconds.
        ms: u64,
        /// The clause that sets the time.
        clause: &'static str,
    },
    /// The card refused a command.
    #[error("the card answered {opcode:?} with {outcome:?}")]
    CommandRefused {
        /// The command.
        opcode: Opcode,
        /// Its outcome.
        outcome: Outcome,
    },
    /// `COMMAND_DONE` names a command that was not given.
    #[error("the card answered command {found:#x} where {expected:#x} had been given")]
    ForeignAnswer {
        /// The tag that was given.
        expected: u16,
        /// The tag that was answered.
        found: u16,
    },
    /// The card is another one than before the reset.
    #[error("the card at this place changed: {0}")]
    IdentityChanged(String),
    /// The card at the other end is another one than before, or than configured.
    #[error("the card at the other end has serial number {found:#x}, it must be {expected:#x}")]
    PeerChanged {
        /// Serial number known before, or configured.
        expected: u64,
        /// Serial number now.
        found: u64,
    },
    /// The self-test pattern did not arrive as defined.
    #[error("octet {octet} of the self-test pattern is wrong: DMA does not reach the memory it should")]
    SelfTestPattern {
        /// Index of the first wrong octet.
        octet: u32,
    },
    /// The number of an event entry is neither the next nor the one of a lap before.
    #[error("event {expected} was due, and its entry has number {found}")]
    EventNumber {
        /// Number of the event due.
        expected: u32,
        /// Number found in its entry.
        found: u32,
    },
    /// The CRC of an event entry is wrong.
    #[error("event {number} has a wrong CRC")]
    EventCorrupt {
        /// Its number.
        number: u32,
    },
    /// The kind of an event is not defined.
    #[error("event {number} is of kind {kind}, which the contract does not define")]
    UnknownKind {
        /// Its number.
        number: u32,
        /// Its kind.
        kind: u16,
    },
    /// A field of an event that its kind does not use is not zero.
    #[error("field {field} of event {number} must be zero for its kind")]
    EventField {
        /// Number of the event.
        number: u32,
        /// The field.
        field: &'static str,
    },
    /// A reserved field is not zero.
    #[error("a reserved field of {place:?} at event {number} is not zero")]
    ReservedBits {
        /// Where.
        place: ReservedIn,
        /// Number of the event.
        number: u32,
    },
    /// A block lies in another slot than its turn is.
    #[error("event {number} names slot {found}, and slot {expected} is due")]
    SlotMismatch {
        /// Number of the event.
        number: u32,
        /// The slot whose turn it is.
        expected: u32,
        /// The slot named.
        found: u32,
    },
    /// The length of a block is zero or beyond what a slot holds.
    #[error("block {name} claims {length} bytes, and 1 to {limit} are possible")]
    LengthBeyondSlot {
        /// The block.
        name: BlockName,
        /// The length claimed, in bytes.
        length: u32,
        /// The largest possible, in bytes.
        limit: u32,
    },
    /// A block came again or too early.
    #[error("block {found} came after block {last}")]
    BlockOutOfOrder {
        /// The newest block before it.
        last: BlockName,
        /// The block that came.
        found: BlockName,
    },
    /// A block of a session that is not the current one.
    #[error("block {found} is not of the current session {current}")]
    ForeignSession {
        /// The session announced last, 0 for none.
        current: u64,
        /// The block.
        found: BlockName,
    },
    /// A session began that is not newer than what was seen before.
    #[error("session {found} began after session {last}")]
    SessionOutOfOrder {
        /// The newest session seen before.
        last: u64,
        /// The session that began.
        found: u64,
    },
    /// Replay did not keep to its rules.
    #[error("event {number} breaks the rules of replay: {problem}")]
    Replay {
        /// Number of the event.
        number: u32,
        /// What happened.
        problem: &'static str,
        /// The clause that forbids it.
        clause: &'static str,
    },
    /// A block's header says something else than its event.
    #[error("the header of block {name} disagrees with its event in {field}")]
    HeaderMismatch {
        /// The block, as the event names it.
        name: BlockName,
        /// The field of the header.
        field: &'static str,
        /// The clause of the field.
        clause: &'static str,
    },
    /// `ACK_HEAD` went back, or beyond what was written.
    #[error("ACK_HEAD is {found}, and may be {from} to {to}")]
    AckHead {
        /// What it was before.
        from: u32,
        /// How many entries were written.
        to: u32,
        /// What it is.
        found: u32,
    },
    /// The cell went back, or beyond what was stored.
    #[error("the cell holds {found}, and must hold {from} to {to}")]
    Cell {
        /// What it held before.
        from: u64,
        /// The largest value stored.
        to: u64,
        /// What it holds.
        found: u64,
    },
    /// The card has no cell.
    #[error("the card has no host-owned cell")]
    NoCell,
    /// Zeroize ended, and something is still there.
    #[error("zeroize is not proven: {problem}")]
    NotZeroized {
        /// What is missing.
        problem: String,
    },
    /// Telemetry changed during every try to read it.
    #[error("telemetry did not hold still for {ms} ms; try again later")]
    TelemetryUnsteady {
        /// For how long it was tried, in milliseconds.
        ms: u64,
    },
    /// The name of the newest block went back.
    #[error("the newest block was {before}, and is {}", found.map_or("none".to_owned(), |name| name.to_string()))]
    NewestFell {
        /// The newest block that was seen before.
        before: BlockName,
        /// What the card shows now.
        found: Option<BlockName>,
    },
    /// The newest block's name changed during every try to read it.
    #[error("the name of the newest block did not hold still for {ms} ms; try again later")]
    NewestUnsteady {
        /// For how long it was tried, in milliseconds.
        ms: u64,
    },
    /// The card is not running, so this is not possible.
    #[error("the card is not running; start it, or recover it after a fault")]
    NotRunning,
    /// The card is not stopped, so this is not possible.
    #[error("the card is not stopped; stop it, or recover it after a fault")]
    NotStopped,
    /// The caller named a range from a later block to an earlier one.
    #[error("the range {first} to {last} is the wrong way round")]
    ReversedRange {
        /// First block of the range.
        first: BlockName,
        /// Last block of the range.
        last: BlockName,
    },
    /// Too many faults, or the card was gone: it is out of service and wiped, for good.
    #[error(
        "the card is out of service for good, after {recoveries} recoveries; have it looked at, then open it anew"
    )]
    GivenUp {
        /// How many recoveries were spent.
        recoveries: usize,
    },
}

impl From<BackingError> for Fault {
    fn from(error: BackingError) -> Self {
        match error {
            BackingError::Gone { .. } => Self::Gone,
            other => Self::Backing(other),
        }
    }
}

impl Fault {
    /// The clause of the card contract that was broken; empty where it is no clause of the card's.
    #[must_use]
    pub const fn clause(&self) -> &'static str {
        match self {
            Self::Gone => "REG-8",
            Self::CardFault(_) => "ST-9",
            Self::UndefinedValue { .. } => "REG-5",
            Self::ValueOutOfRange { clause, .. } => clause,
            Self::UnexpectedState { .. } => "ST-1",
            Self::Timeout { clause, .. } => clause,
            Self::CommandRefused { .. } => "CMD-4",
            Self::ForeignAnswer { .. } => "CMD-3",
            Self::IdentityChanged(_) => "ID-4",
            Self::PeerChanged { .. } => "ID-5",
            Self::NewestFell { .. } => "SES-7",
            Self::EventField { .. } => "EVT-2",
            Self::SelfTestPattern { .. } => "CMD-9",
            Self::EventNumber { .. } => "EVT-3",
            Self::EventCorrupt { .. } => "EVT-4",
            Self::UnknownKind { .. } => "EVT-2",
            Self::ReservedBits { place: ReservedIn::Event, .. } => "EVT-1",
            Self::ReservedBits { place: ReservedIn::BlockHeader, .. } => "BLK-2",
            Self::ReservedBits { place: ReservedIn::BlockFlags, .. } => "BLK-3",
            Self::SlotMismatch { .. } => "RNG-5",
            Self::LengthBeyondSlot { .. } => "BLK-4",
            Self::BlockOutOfOrder { .. } => "SES-8",
            Self::ForeignSession { .. } => "EVT-6",
            Self::SessionOutOfOrder { .. } => "SES-1",
            Self::Replay { clause, .. } | Self::HeaderMismatch { clause, .. } => clause,
            Self::AckHead { .. } => "ACK-3",
            Self::Cell { from, found, .. } if *found < *from => "CEL-1",
            Self::Cell { .. } => "CEL-2",
            Self::NoCell => "ID-3",
            Self::NotZeroized { .. } => "ZER-3",
            Self::TelemetryUnsteady { .. } => "TEL-1",
            Self::NewestUnsteady { .. } => "SES-7",
            Self::Backing(_)
            | Self::NotRunning
            | Self::NotStopped
            | Self::ReversedRange { .. }
            | Self::GivenUp { .. } => "",
        }
    }

    /// Short name of the cause, the key of [`crate::Counters::faults`].
    #[must_use]
    pub const fn cause(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Backing(_) => "backing",
            Self::CardFault(_) => "card_fault",
            Self::UndefinedValue { .. } => "undefined_value",
            Self::ValueOutOfRange { .. } => "value_out_of_range",
            Self::UnexpectedState { .. } => "unexpected_state",
            Self::Timeout { .. } => "timeout",
            Self::CommandRefused { .. } => "command_refused",
            Self::ForeignAnswer { .. } => "foreign_answer",
            Self::IdentityChanged(_) => "identity_changed",
            Self::PeerChanged { .. } => "peer_changed",
            Self::NewestFell { .. } => "newest_fell",
            Self::EventField { .. } => "event_field",
            Self::SelfTestPattern { .. } => "self_test_pattern",
            Self::EventNumber { .. } => "event_number",
            Self::EventCorrupt { .. } => "event_corrupt",
            Self::UnknownKind { .. } => "unknown_kind",
            Self::ReservedBits { .. } => "reserved_bits",
            Self::SlotMismatch { .. } => "slot_mismatch",
            Self::LengthBeyondSlot { .. } => "length_beyond_slot",
            Self::BlockOutOfOrder { .. } => "block_out_of_order",
            Self::ForeignSession { .. } => "foreign_session",
            Self::SessionOutOfOrder { .. } => "session_out_of_order",
            Self::Replay { .. } => "replay",
            Self::HeaderMismatch { .. } => "header_mismatch",
            Self::AckHead { .. } => "ack_head",
            Self::Cell { .. } => "cell",
            Self::NoCell => "no_cell",
            Self::NotZeroized { .. } => "not_zeroized",
            Self::TelemetryUnsteady { .. } => "telemetry_unsteady",
            Self::NewestUnsteady { .. } => "newest_unsteady",
            Self::NotRunning => "not_running",
            Self::NotStopped => "not_stopped",
            Self::ReversedRange { .. } => "reversed_range",
            Self::GivenUp { .. } => "given_up",
        }
    }

    /// Whether the card is out of service until it has been recovered.
    #[must_use]
    pub const fn needs_recovery(&self) -> bool {
        !matches!(
            self,
            Self::TelemetryUnsteady { .. }
                | Self::NewestUnsteady { .. }
                | Self::NotRunning
                | Self::NotStopped
                | Self::NoCell
                | Self::ReversedRange { .. }
        )
    }
}
