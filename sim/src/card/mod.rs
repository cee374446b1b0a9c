//! The simulated card: a deterministic state machine, written from the card contract.
//!
//! [`Card::step`] does whatever the time and the host's registers ask for, through a [`Bus`]; [`Card::receive`] takes
//! what the link brings. Neither blocks, reads a clock of its own or draws random numbers.

mod block;
mod bus;
mod delivery;
mod identity;
mod interrupts;
mod life;
mod memory;
mod misbehaviour;
mod registers;
mod retention;
mod rings;
mod telemetry;
#[cfg(test)]
mod tests;

use qkd_contract::registers as reg;
use qkd_contract::state::{Fault, LinkState, State};

pub use block::{Block, KeyOctets, Name};
pub(crate) use bus::low32;
pub use bus::{Bus, DmaRefused};
pub use identity::{BadIdentity, Identity};
pub use memory::{NonVolatile, Remembered, WhileRunning};
pub use misbehaviour::OnDelivery;
pub use telemetry::{Counters, Telemetry};

use delivery::{Broken, Delivery, Notice};
use interrupts::Interrupts;
use life::Life;
use misbehaviour::Misbehaviour;
use registers::Registers;
use retention::{Full, Retention};
use telemetry::TelemetryWriter;

/// Microseconds between two changes of HEARTBEAT; the contract allows 100 000 (TIM-8).
const HEARTBEAT_US: u64 = 25_000;

/// What the link tells a card.
#[derive(Debug)]
pub enum FromLink {
    /// The state of the link changed.
    State(LinkState),
    /// A session with this number has begun.
    SessionBegan(u64),
    /// The session has ended.
    SessionEnded,
    /// A block has been distilled.
    Block(Block),
    /// The block of this name was lost at this end in reconciliation or verification.
    Lost(Name),
    /// Both ends gave up a block, before it had a name.
    GivenUp(Cause),
    /// A new interval of telemetry.
    Telemetry(Telemetry),
}

/// Why both ends gave up a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The error rate was too high.
    Qber,
    /// The classical channel was not authenticated.
    Authentication,
}

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
}

/// The card's view of the link.
#[derive(Debug)]
struct LinkView {
    state: LinkState,
    /// Present session, 0 while there is none.
    session: u64,
    /// Next unused sequence of the present session, or of the last one while there is none.
    blocks: u64,
    /// Blocks of the session before the present one.
    blocks_before: u64,
    newest: Option<Name>,
    peer_known: bool,
}

impl LinkView {
    const fn dark() -> Self {
        Self {
            state: LinkState::Off,
            session: 0,
            blocks: 0,
            blocks_before: 0,
            newest: None,
            peer_known: false,
        }
    }

    const fn go_dark(&mut self) {
        self.state = LinkState::Off;
        self.session = 0;
    }
}

/// One simulated card.
pub struct Card {
    identity: Identity,
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

    /// Takes a message of the link.
    pub fn receive(&mut self, message: FromLink) {
        match message {
            FromLink::State(state) => {
                if self.link.state != state {
                    self.link.state = state;
                    self.notice(Notice::Link(state));
                }
            }
            FromLink::SessionBegan(session) => self.begin_session(session),
            FromLink::SessionEnded => self.link.session = 0,
            FromLink::Block(block) => self.announce(block),
            FromLink::Lost(name) => {
                if self.uses_up(name) {
                    self.counters.dropped_reconciliation += 1;
                }
            }
            FromLink::GivenUp(Cause::Qber) => self.counters.dropped_qber += 1,
            FromLink::GivenUp(Cause::Authentication) => self.counters.dropped_authentication += 1,
            FromLink::Telemetry(telemetry) => self.telemetry = telemetry,
        }
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

    /// Makes the number of a session durable before either end distils under it (SES-2). False when it cannot; no
    /// session begins then.
    pub fn agree_session(&mut self, session: u64) -> bool {
        session > self.remembered.session_counter
            && self.remember(Remembered { session_counter: session, ..self.remembered })
    }

    fn notice(&mut self, notice: Notice) {
        let after = self.retention.newest();
        if let Some(delivery) = &mut self.delivery {
            delivery.notice(&self.retention, after, notice);
        }
    }

    fn begin_session(&mut self, session: u64) {
        if session != self.remembered.session_counter || session == 0 {
            // Only a defective link begins a session that was not agreed; its keys could bear a used name.
            self.life.break_down(Fault::NonVolatile);
            return;
        }
        self.link.blocks_before = std::mem::take(&mut self.link.blocks);
        self.link.session = session;
        self.link.peer_known = true;
        self.notice(Notice::Session { session, blocks_before: self.link.blocks_before });
    }

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

    /// Counts a sequence number as used; false for a block of a session that the card is not in.
    fn uses_up(&mut self, name: Name) -> bool {
        let belongs = self.link.session != 0 && name.session == self.link.session;
        if belongs {
            self.link.blocks = name.sequence.saturating_add(1);
        }
        belongs
    }

    fn announce(&mut self, block: Block) {
        if !self.uses_up(block.name) {
            return;
        }
        let (name, length) = (block.name, block.key.len() as u64);
        let kept =
            if self.misbehaviour.takes_refusal() { Err(Full(block)) } else { self.retention.keep(block) };
        match kept {
            Ok(()) => {
                self.link.newest = Some(name);
                self.counters.blocks_announced += 1;
                self.counters.bytes_announced += length;
            }
            Err(Full(refused)) => {
                drop(refused);
                self.counters.dropped_overflow += 1;
                self.counters.dropped_overflow_bytes += length;
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
