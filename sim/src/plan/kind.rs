//! The kinds of fault by name.

use qkd_contract::pci::DEVICE_ID;
use qkd_contract::registers::VERSION_VALUE;
use qkd_contract::state::Fault as CardFault;

use super::Deed;
use crate::card::{OnDelivery, Trouble};

/// Error rate that the kind `qber` adds: beyond what BB84 can distil from.
const QBER_RISE: f64 = 0.12;

/// A kind of fault. `count` and `for` matter where it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The next `count` blocks are lost at this end.
    LoseBlock,
    /// `count` blocks are delivered twice.
    Duplicate,
    /// `count` pairs of blocks come in the wrong order.
    OutOfOrder,
    /// `count` blocks have a payload that does not match its check.
    BadCrc,
    /// `count` blocks have a header that does not match its check.
    BadHeaderCrc,
    /// `count` events do not match their check.
    BadEventCrc,
    /// `count` blocks claim a length beyond their slot.
    Length,
    /// `count` blocks name a session that was never begun.
    ForeignSession,
    /// The events of `count` blocks are never written.
    SkipEvent,
    /// The next `count` blocks are refused as if retention were full.
    Overflow,
    /// The link is realigned `for` this long; the session goes on.
    Realign,
    /// The link is dark `for` this long; the session ends.
    Outage,
    /// The error rate is too high `for` this long.
    Qber,
    /// The classical channel has no authentication key `for` this long; the session ends.
    NoAuthenticationKey,
    /// The card loses power for a moment: what it retained is gone.
    PowerLoss,
    /// The card does nothing `for` this long; its heartbeat stops.
    Freeze,
    /// The card leaves the bus `for` this long, reading all ones, and comes back as from power loss.
    Gone,
    /// The next `count` self-tests write a wrong pattern.
    SelfTest,
    /// The card loses power and boots to Fault, code `SelfTest`.
    BootFails,
    /// The card enters Fault with code `Internal`.
    Internal,
    /// The card enters Fault with code `Temperature`.
    Temperature,
    /// The card enters Fault with code `NonVolatile`, for good.
    NonVolatile,
    /// The card erases its keys and enters Fault with code `Tamper`, for good.
    Tamper,
    /// The card shows another PCI device identifier.
    DeviceId,
    /// The card claims a contract version with a newer major number.
    Version,
    /// The card shows its own identifier and version again, the version from its next reset on.
    OwnIdentity,
}

impl Kind {
    /// Kinds from which a system that works recovers by itself.
    pub const RECOVERABLE: &[Self] = &[
        Self::LoseBlock,
        Self::Duplicate,
        Self::OutOfOrder,
        Self::BadCrc,
        Self::BadHeaderCrc,
        Self::BadEventCrc,
        Self::Length,
        Self::ForeignSession,
        Self::SkipEvent,
        Self::Overflow,
        Self::Realign,
        Self::Outage,
        Self::Qber,
        Self::NoAuthenticationKey,
        Self::PowerLoss,
        Self::Freeze,
        Self::Internal,
    ];

    /// What the kind does, `count` times or for `duration` microseconds.
    #[must_use]
    pub fn deed(self, count: u32, duration: u64) -> Deed {
        let deliveries = |fault| Deed::Card(Trouble::Deliveries(fault, count));
        let fault = |fault| Deed::Card(Trouble::Fault(fault));
        match self {
            Self::LoseBlock => Deed::LoseBlocks(count),
            Self::Duplicate => deliveries(OnDelivery::Duplicate),
            Self::OutOfOrder => deliveries(OnDelivery::OutOfOrder),
            Self::BadCrc => deliveries(OnDelivery::BadPayloadCrc),
            Self::BadHeaderCrc => deliveries(OnDelivery::BadHeaderCrc),
            Self::BadEventCrc => deliveries(OnDelivery::BadEventCrc),
            Self::Length => deliveries(OnDelivery::LengthBeyondSlot),
            Self::ForeignSession => deliveries(OnDelivery::ForeignSession),
            Self::SkipEvent => deliveries(OnDelivery::EventSkipped),
            Self::Overflow => Deed::Card(Trouble::Overflow(count)),
            Self::Realign => Deed::Realign(duration),
            Self::Outage => Deed::Outage(duration),
            Self::Qber => Deed::Qber(QBER_RISE, duration),
            Self::NoAuthenticationKey => Deed::NoAuthenticationKey(duration),
            Self::PowerLoss => Deed::Card(Trouble::PowerLoss),
            Self::Freeze => Deed::Card(Trouble::Freeze(duration)),
            Self::Gone => Deed::Card(Trouble::Gone(duration)),
            Self::SelfTest => Deed::Card(Trouble::WrongPattern(count)),
            Self::BootFails => Deed::Card(Trouble::BootFails),
            Self::Internal => fault(CardFault::Internal),
            Self::Temperature => fault(CardFault::Temperature),
            Self::NonVolatile => fault(CardFault::NonVolatile),
            Self::Tamper => fault(CardFault::Tamper),
            Self::DeviceId => Deed::Card(Trouble::DeviceId(DEVICE_ID ^ 0xFF)),
            Self::Version => Deed::Card(Trouble::Version(VERSION_VALUE + 0x0001_0000)),
            Self::OwnIdentity => Deed::Card(Trouble::OwnIdentity),
        }
    }
}
