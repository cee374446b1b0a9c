//! The simulated card: a deterministic state machine, written from the card contract.
//!
//! [`Card::step`] does whatever the time and the host's registers ask for, through a [`Bus`]; [`Card::receive`] takes
//! what the link brings. Neither blocks, reads a clock of its own or draws random numbers.

mod block;
mod bus;
mod command;
mod delivery;
mod identity;
mod interrupts;
mod life;
mod memory;
mod misbehaviour;
mod optics;
mod registers;
mod retention;
mod rings;
mod telemetry;
#[cfg(test)]
pub(crate) mod tests;

use qkd_contract::registers as reg;
use qkd_contract::state::{Fault, LinkState, State};

pub use block::{Block, KeyOctets, Name};
pub(crate) use bus::low32;
pub use bus::{Bus, DmaRefused};
pub use identity::{BadIdentity, Identity};
pub use memory::{NonVolatile, Remembered, WhileRunning};
pub use misbehaviour::OnDelivery;
pub use optics::{Cause, FromLink};
pub use telemetry::{Counters, Telemetry};

use delivery::{Broken, Delivery};
use interrupts::Interrupts;
use life::Life;
use misbehaviour::Misbehaviour;
use optics::LinkView;
use registers::Registers;
use retention::Retention;
use telemetry::TelemetryWriter;

/// Microseconds between two changes of HEARTBEAT; the contract allows 100 000 (TIM-8).
const HEARTBEAT_US: u64 = 25_000;

/// Whether a step found something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Nothing; the next step may wait.
    Idle,
    /// Something; more may follow soon.
    Busy,
}

/// What a card does wrong on demand, beyond single deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The next deliveries are wrong in this way.
    Deliveries(OnDelivery, u32),
    /// The next blocks are refused as if retention were full.
    Overflow(u32),
    /// Power is lost and comes back: everything but the non-volatile memory is gone.
    PowerLoss,
    /// The card does nothing for this many microseconds.
    Freeze(u64),
    /// The card leaves the bus for this many microseconds; it comes back as from power loss.
    Gone(u64),
    /// The next self-tests write a wrong pattern.
    WrongPattern(u32),
    /// The next boot finds the card defective.
    BootFails,
    /// The card enters this fault now.
    Fault(Fault),
    /// The card claims this PCI device identifier.
    DeviceId(u16),
    /// The card claims this contract version.
    Version(u32),
    /// The card shows its own device identifier and contract version again.
    OwnIdentity,
}

/// One simulated card.
pub struct Card {
    identity: Identity,
    /// Device identifier and contract version that it was made with.
    made_as: (u16, u32),
    memory: Box<dyn NonVolatile>,
    remembered: Remembered,
    registers: Registers,
    life: Life,
    retention: Retention,
    delivery: Option<Delivery>,
    interrupts: Interrupts,
    link: LinkView,
    telemetry: Telemetry,
    counters: Counters,
    telemetry_writer: TelemetryWriter,
    heartbeat: u64,
    heartbeat_due: u64,
    misbehaviour: Misbehaviour,
}

impl Card {
    /// A card that powers on at its first step.
    ///
    /// # Errors
    /// [`BadIdentity`] when the identity breaks the contract.
    pub fn new(
        identity: Identity,
        remembered: Remembered,
        memory: Box<dyn NonVolatile>,
    ) -> Result<Self, BadIdentity> {
        identity.check()?;
        let retention = Retention::new(identity.retention_bytes, identity.retention_blocks);
        Ok(Self {
            made_as: (identity.device_id, identity.version),
            identity,
            memory,
            remembered,
            registers: Registers::new(),
            life: Life::unpowered(),
            retention,
            delivery: None,
            interrupts: Interrupts::default(),
            link: LinkView::dark(),
            telemetry: Telemetry::default(),
            counters: Counters::default(),
            telemetry_writer: TelemetryWriter::default(),
            heartbeat: 0,
            heartbeat_due: 0,
            misbehaviour: Misbehaviour::default(),
        })
    }

    /// Does what is due. A step's work is bounded and does not grow with what is retained.
    pub fn step(&mut self, bus: &mut dyn Bus) -> Activity {
        let now = bus.now();
        if self.is_absent(bus, now) {
            return Activity::Idle;
        }
        let mut busy = self.run_life(bus, now);
        busy |= self.store_cell(bus);
        self.publish_link(bus);
        busy |= self.run_rings(bus);
        self.publish_telemetry(bus);
        self.beat(bus, now);
        if busy { Activity::Busy } else { Activity::Idle }
    }

    /// Makes the card misbehave.
    pub fn trouble(&mut self, trouble: Trouble, now: u64) {
        let wrong = &mut self.misbehaviour;
        match trouble {
            Trouble::Deliveries(fault, count) => wrong.on_delivery(fault, count),
            Trouble::Overflow(count) => wrong.refuse = wrong.refuse.saturating_add(count),
            Trouble::PowerLoss => self.life.power_lost(),
            Trouble::Freeze(duration) => wrong.frozen_until = Some(now.saturating_add(duration)),
            Trouble::Gone(duration) => wrong.gone_until = Some(now.saturating_add(duration)),
            Trouble::WrongPattern(count) => wrong.wrong_patterns = wrong.wrong_patterns.saturating_add(count),
            Trouble::BootFails => wrong.boot_fails = true,
            Trouble::Fault(fault) => self.life.break_down(fault),
            Trouble::DeviceId(id) => self.identity.device_id = id,
            Trouble::Version(version) => self.identity.version = version,
            Trouble::OwnIdentity => (self.identity.device_id, self.identity.version) = self.made_as,
        }
    }

    /// The highest session number the card has taken part in (SES-1).
    #[must_use]
    pub fn session_counter(&self) -> u64 {
        self.remembered.session_counter
    }

    /// The session the card takes part in, 0 when in none.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.link.session
    }

    /// Whether the optical part works, so that the link may come up.
    #[must_use]
    pub fn optics_ready(&self) -> bool {
        self.misbehaviour.gone_until.is_none() && self.life.optics_ready()
    }

    /// Newest block that was delivered to the host since START.
    pub(crate) fn newest_delivered(&self) -> Option<Name> {
        self.delivery.as_ref().and_then(Delivery::newest)
    }

    /// Whether the card has left the bus: all its registers and its configuration space read all ones.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.misbehaviour.gone_until.is_some()
    }

    /// Life-cycle state.
    #[must_use]
    pub fn state(&self) -> State {
        self.life.state()
    }

    /// Why the card is in `Fault`.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.life.fault()
    }

    /// Link state as the card shows it.
    #[must_use]
    pub fn link_state(&self) -> LinkState {
        self.link.state
    }

    /// Telemetry of the last interval.
    #[must_use]
    pub fn telemetry(&self) -> Telemetry {
        self.telemetry
    }

    /// Counters since power-on.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Blocks and payload bytes retained.
    #[must_use]
    pub fn retained(&self) -> (u32, u64) {
        (self.retention.count(), self.retention.bytes())
    }

    /// What the card is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How often the card has left the link by itself: power-on, RESET, ZEROIZE, a fault of its own.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.life.restarts()
    }

    /// Makes a change durable, or finds the card broken.
    fn remember(&mut self, remembered: Remembered) -> bool {
        match self.memory.store(remembered) {
            Ok(()) => {
                self.remembered = remembered;
                true
            }
            Err(error) => {
                log::error!("card {:#x}: non-volatile memory: {error}", self.identity.serial);
                self.life.break_down(Fault::NonVolatile);
                false
            }
        }
    }

    /// Raises the cell when the host asks for more than it holds (CEL-2).
    fn store_cell(&mut self, bus: &mut dyn Bus) -> bool {
        let wanted = bus::read(bus, &reg::CELL_STORE);
        let broken = self.life.fault() == Fault::NonVolatile;
        if self.life.state() == State::Boot || broken || wanted <= self.remembered.cell {
            return false;
        }
        self.remember(Remembered { cell: wanted, ..self.remembered });
        self.registers.set(bus, &reg::CELL, self.remembered.cell);
        true
    }

    fn run_rings(&mut self, bus: &mut dyn Bus) -> bool {
        let Some(delivery) = &mut self.delivery else { return false };
        let done = delivery.take_acknowledgements(bus, &mut self.retention).and_then(|acknowledged| {
            self.registers.set(bus, &reg::ACK_HEAD, u64::from(delivery.ack_head()));
            let written = delivery.deliver(bus, &self.retention, &mut self.misbehaviour)?;
            Ok(acknowledged + written)
        });
        match done {
            Ok(work) => self.interrupts.run(bus, delivery.written()) || work > 0,
            Err(broken) => {
                if let Broken::Dma(refused) = broken {
                    self.counters.dma_errors += 1;
                    log::warn!("card {:#x}: {refused}", self.identity.serial);
                }
                self.enter_fault(bus, broken.fault());
                true
            }
        }
    }

    /// Shows that the card's work goes on, and mends what a host has written over (ST-10, REG-2).
    fn beat(&mut self, bus: &mut dyn Bus, now: u64) {
        if now >= self.heartbeat_due {
            self.heartbeat = self.heartbeat.wrapping_add(1);
            self.heartbeat_due = now + HEARTBEAT_US;
            self.registers.set(bus, &reg::HEARTBEAT, self.heartbeat);
            self.registers.refresh(bus);
        }
    }

    /// Shows link, session and newest block; the latter so that it cannot be read half changed (SES-7).
    fn publish_link(&mut self, bus: &mut dyn Bus) {
        let peer = if self.link.peer_known { self.identity.peer_serial } else { 0 };
        let newest = self.link.newest.unwrap_or(Name { session: 0, sequence: 0 });
        let torn = self.registers.get(&reg::NEWEST_SESSION) != newest.session;
        if torn {
            self.registers.set(bus, &reg::NEWEST_SESSION, 0);
        }
        for (register, value) in [
            (&reg::PEER_SERIAL, peer),
            (&reg::NEWEST_SEQUENCE, newest.sequence),
            (&reg::NEWEST_SESSION, newest.session),
            (&reg::SESSION, self.link.session),
            (&reg::LINK_STATE, u64::from(self.link.state.value())),
            (&reg::VERSION, u64::from(self.identity.version)),
        ] {
            self.registers.set(bus, register, value);
        }
    }

    fn publish_telemetry(&mut self, bus: &mut dyn Bus) {
        let retained = self.retained();
        self.telemetry_writer.write(&mut self.registers, bus, (self.telemetry, self.counters), retained);
    }
}
