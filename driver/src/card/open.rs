//! Opening a card.

use std::collections::VecDeque;
use std::time::Duration;

use qkd_contract::command::Outcome;
use qkd_contract::limits::{ACK_COUNT, BOOT_MS, MODERATION_MAX_US, SLOT_COUNT};
use qkd_contract::pci::{DEVICE_ID, VENDOR_ID};
use qkd_contract::registers as reg;
use qkd_contract::state::{Fault as CardFaultCode, State};

use super::spin::Spin;
use super::{Announced, Card, Life};
use crate::backing::{Backing, BackingError, PciIdentity};
use crate::counters::Counters;
use crate::fault::Fault;
use crate::identity::{Identity, IdentityError};
use crate::mmio::Registers;
use crate::ring::{Progress, RingLayout};

/// What configuration space reads as where nobody answers.
const ALL_ONES: PciIdentity = PciIdentity { vendor: u16::MAX, device: u16::MAX };
/// Time between two looks at a state that is to come.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// How a card is used.
#[derive(Clone, Debug)]
pub struct CardOptions {
    /// PCI identity that the card must have.
    pub pci: PciIdentity,
    /// Serial number that the card must have, if one is configured.
    pub serial: Option<u64>,
    /// Serial number that the card at the other end must have, if one is configured. One that is still unknown passes.
    pub peer_serial: Option<u64>,
    /// Number of slots for blocks, a power of two from 2 to 65536. Memory: this times the card's largest block.
    pub slots: u32,
    /// Entries of the acknowledgement ring, a power of two from 64 to 65536.
    pub acknowledgements: u32,
    /// Longest time in microseconds that the card may hold back an interrupt, at most 10 000.
    pub moderation_us: u32,
    /// How long to poll after the last event, at most, before blocking for an interrupt: less where events come seldom.
    pub spin: Duration,
    /// Whether a card that delivers positional test key is accepted: nothing that it delivers is secret (VER-4).
    pub allow_test_key: bool,
    /// Time added to each longest time of the contract: none for a card, some for a simulated one, which shares the
    /// processors with everything else.
    pub grace: Duration,
    /// Recoveries allowed within [`CardOptions::recovery_window`].
    pub recoveries: usize,
    /// The time that [`CardOptions::recoveries`] counts over.
    pub recovery_window: Duration,
}

impl Default for CardOptions {
    fn default() -> Self {
        Self {
            pci: PciIdentity { vendor: VENDOR_ID, device: DEVICE_ID },
            serial: None,
            peer_serial: None,
            slots: 64,
            acknowledgements: 1024,
            moderation_us: 0,
            spin: Duration::from_micros(50),
            allow_test_key: false,
            grace: Duration::ZERO,
            recoveries: 5,
            recovery_window: Duration::from_secs(600),
        }
    }
}

/// A card could not be opened. It is left stopped, with its memory wiped.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another device is at this place (PCI-1).
    #[error(
        "the device is {:04x}:{:04x}, not {:04x}:{:04x}; is the right device named?",
        found.vendor, found.device, expected.vendor, expected.device
    )]
    OtherDevice {
        /// What is configured.
        expected: PciIdentity,
        /// What is there.
        found: PciIdentity,
    },
    /// It is no card, or not one for this driver.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It is another card than the configured one.
    #[error(
        "{which} has serial number {found:#x}, configured is {expected:#x}; are the fibres or cards swapped?"
    )]
    OtherCard {
        /// `this card` or `the card at the other end`.
        which: &'static str,
        /// The configured serial number.
        expected: u64,
        /// The one found.
        found: u64,
    },
    /// The card delivers test key, and that was not allowed (VER-4).
    #[error("the card delivers positional test key, nothing of which is secret; allow test key to use it")]
    TestKey,
    /// An option is outside its range.
    #[error("option {option} is {value}: {rule}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        value: u64,
        /// What it must be.
        rule: &'static str,
    },
    /// The way to the card failed.
    #[error(transparent)]
    Backing(#[from] BackingError),
    /// The card broke the contract while it was brought up.
    #[error("the card did not come up: {0}")]
    Fault(#[from] Fault),
}

impl CardOptions {
    fn check(&self) -> Result<(), OpenError> {
        let wrong = |option, value, rule| Err(OpenError::Option { option, value, rule });
        if !self.slots.is_power_of_two() || !SLOT_COUNT.contains(&self.slots) {
            return wrong("slots", self.slots.into(), "a power of two from 2 to 65536");
        }
        if !self.acknowledgements.is_power_of_two() || !ACK_COUNT.contains(&self.acknowledgements) {
            return wrong(
                "acknowledgements",
                self.acknowledgements.into(),
                "a power of two from 64 to 65536",
            );
        }
        if self.moderation_us > MODERATION_MAX_US {
            return wrong("moderation_us", self.moderation_us.into(), "at most 10000 microseconds");
        }
        Ok(())
    }

    pub(super) fn check_identity(&self, identity: &Identity) -> Result<(), OpenError> {
        if identity.test_key && !self.allow_test_key {
            return Err(OpenError::TestKey);
        }
        let other = |which, expected, found| Err(OpenError::OtherCard { which, expected, found });
        match (self.serial, self.peer_serial, identity.peer_serial) {
            (Some(expected), _, _) if expected != identity.serial => {
                other("this card", expected, identity.serial)
            }
            (_, Some(expected), Some(found)) if expected != found => {
                other("the card at the other end", expected, found)
            }
            _ => Ok(()),
        }
    }
}

impl<B: Backing> Card<B> {
    /// Opens the card at `backing`: resets the function (which keeps what the card retains, FLR-1), checks who it is,
    /// sets its rings up, and tests that DMA and interrupts arrive. The card is then stopped; [`Card::start`] lets it
    /// deliver.
    ///
    /// # Errors
    /// When it is not the card that `options` describe, breaks the contract, or cannot be reached.
    pub fn open(mut backing: B, options: CardOptions) -> Result<Self, OpenError> {
        options.check()?;
        let found = backing.pci_identity()?;
        if found == ALL_ONES {
            return Err(IdentityError::Gone.into());
        }
        if found != options.pci {
            return Err(OpenError::OtherDevice { expected: options.pci, found });
        }
        // Whoever had the card before may have left it delivering, to addresses that are not his any more.
        backing.set_bus_mastering(false)?;
        // A card that is gone must not be reset, nor one of another version touched.
        Identity::check_version(backing.registers())?;
        backing.reset_function()?;
        // The reset has cleared the command register, so that registers do not answer.
        backing.set_bus_mastering(false)?;
        Identity::check_version(backing.registers())?;
        let state = await_boot(&mut backing, options.grace)?;
        let identity = Identity::read(backing.registers())?;
        options.check_identity(&identity)?;
        let capability = backing.pci_serial()?.unwrap_or_default();
        if capability != identity.serial {
            return Err(IdentityError::OtherCapability { serial: identity.serial, capability }.into());
        }
        let layout = RingLayout::new(identity.block_max, options.slots, options.acknowledgements).ok_or(
            OpenError::Option {
                option: "slots",
                value: options.slots.into(),
                rule: "the slots do not fit in memory",
            },
        )?;
        let memory = backing.map_dma(layout.total())?;
        let now = backing.now();
        let mut card = Self {
            backing,
            known_peer: options.peer_serial.or(identity.peer_serial),
            spin: Spin::new(options.spin),
            options,
            identity,
            layout,
            memory: Some(memory),
            leaked: 0,
            life: Life::Stopped,
            progress: Progress::default(),
            announced: Announced::AT_START,
            pending: None,
            command_tag: 0,
            arm_serial: 0,
            heartbeat: None,
            acks_idle_at: now,
            cell: None,
            newest: None,
            last_activity: now,
            recoveries: VecDeque::new(),
            removal_requested: false,
            counters: Counters::default(),
        };
        // From here on, dropping the card on an error cleans up.
        card.counters.resets = 1;
        card.counters.resets_tried = 1;
        if let Err(fault) = card.set_up(state) {
            card.set_up_again(fault)?;
        }
        Ok(card)
    }

    /// A card that lost power while it was set up does not answer, or is in another state than it was: it is set up once
    /// more, from the function reset on. Whatever else went wrong stays wrong.
    fn set_up_again(&mut self, fault: Fault) -> Result<(), Fault> {
        let fault = self.fail(fault);
        let may_have_restarted = matches!(
            fault,
            Fault::CommandRefused { outcome: Outcome::WrongState, .. }
                | Fault::ForeignAnswer { .. }
                | Fault::Timeout { .. }
                | Fault::UnexpectedState { .. }
        );
        if !may_have_restarted {
            return Err(fault);
        }
        log::warn!(id = "card.restarted"; "{}: {fault}; it may have restarted, and is set up once more", self.backing.location());
        self.recover()
    }
}

/// A longest time of the contract in milliseconds, with the configured grace.
pub(super) fn with_grace(ms: u64, grace: Duration) -> u64 {
    ms.saturating_add(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX))
}

/// Waits until the card has booted after a reset; gives the state it came to (ST-1, TIM-1).
pub(super) fn await_boot<B: Backing>(backing: &mut B, grace: Duration) -> Result<State, Fault> {
    let ms = with_grace(BOOT_MS, grace);
    let deadline = backing.now().saturating_add(Duration::from_millis(ms));
    loop {
        let late = backing.now() >= deadline;
        let value = backing.registers().get32(reg::STATE);
        match State::try_from(value) {
            Ok(state @ (State::Stopped | State::Zeroized | State::Fault)) => return Ok(state),
            Ok(_) if late => return Err(Fault::Timeout { what: "booting", ms, clause: "TIM-1" }),
            Ok(_) => backing.pause(LOOK_EVERY),
            Err(_) if backing.registers().get32(reg::MAGIC) == u32::MAX => return Err(Fault::Gone),
            Err(_) => return Err(Fault::UndefinedValue { register: reg::STATE.name, value: value.into() }),
        }
    }
}

/// The fault that a card in its fault state reports.
pub(super) fn card_fault<B: Backing>(backing: &B) -> Fault {
    let value = backing.registers().get32(reg::FAULT);
    CardFaultCode::try_from(value)
        .map_or(Fault::UndefinedValue { register: reg::FAULT.name, value: value.into() }, Fault::CardFault)
}
