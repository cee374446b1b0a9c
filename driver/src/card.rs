//! One card: what it is, how it is opened, what can be asked of it at any time.

mod acknowledge;
mod command;
mod events;
mod lifecycle;
mod open;
mod shutdown;
mod spin;
mod waiting;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use qkd_contract::limits::TORN_MS;
use qkd_contract::registers as reg;
use qkd_contract::state::LinkState;

pub use events::{BlockFault, CardEvent, PendingBlock, TakeError};
pub use open::{CardOptions, OpenError};
pub use shutdown::CloseError;
pub use waiting::{Health, Woken};

use crate::backing::{Backing, BackingError, COMMAND, Signals};
use crate::counters::Counters;
use crate::dma::DmaMemory;
use crate::fault::Fault;
use crate::identity::Identity;
use crate::mmio::Registers;
use crate::name::BlockName;
use crate::ring::{Progress, RingLayout};
use crate::telemetry::Telemetry;

/// Time between two looks at registers that belong together and do not yet match.
const LOOK_AGAIN: Duration = Duration::from_micros(20);
/// Bits of the command register that no function has.
const COMMAND_RESERVED: u16 = 0xF800;

/// How the driver holds the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Ready to start.
    Stopped,
    /// Delivering.
    Running,
    /// Everything is erased; only a card reset goes on from here.
    Zeroized,
    /// Broke the contract; [`Card::recover`] goes on from here.
    Faulted,
    /// Out of service for good.
    GivenUp,
}

/// What the events since START have told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Announced {
    /// Blocks are those that had been retained at START.
    replaying: bool,
    /// Newest block delivered since START.
    last: Option<BlockName>,
    /// Session announced last, 0 for none.
    session: u64,
}

impl Announced {
    const AT_START: Self = Self { replaying: true, last: None, session: 0 };
}

/// A QKD card that this process owns.
///
/// Dropping it stops the card, proves that it has stopped, and wipes and frees the memory that it delivered to.
/// [`Card::close`] does the same and tells how it went.
#[derive(Debug)]
pub struct Card<B: Backing> {
    backing: B,
    options: CardOptions,
    identity: Identity,
    layout: RingLayout,
    /// `None` once it has been given back.
    memory: Option<DmaMemory>,
    /// Bytes of it that were left to a card which may still write to them.
    leaked: usize,
    life: Life,
    progress: Progress,
    announced: Announced,
    /// The block whose event has been judged, and which was not taken yet.
    pending: Option<events::Arrival>,
    command_tag: u16,
    arm_serial: u32,
    heartbeat: Option<(u64, Duration)>,
    /// When `ACK_HEAD` was last seen to move, or to have nothing to do.
    acks_idle_at: Duration,
    /// Serial number that the card at the other end must have: the configured one, or the first one seen.
    known_peer: Option<u64>,
    /// `None` until it was looked at.
    cell: Option<acknowledge::Cell>,
    /// Newest block that the card has shown since it was last reset.
    newest: Option<BlockName>,
    last_activity: Duration,
    spin: spin::Spin,
    /// When the latest recoveries were, oldest first.
    recoveries: VecDeque<Duration>,
    /// The platform has asked for the card to be given back, whoever was waiting for something else then.
    removal_requested: bool,
    counters: Counters,
}

impl<B: Backing> Card<B> {
    /// Who the card is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What has been counted since the card was opened.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Where the card is, for log lines.
    pub fn location(&self) -> String {
        self.backing.location()
    }

    /// The backing's clock, which all times of this card are by.
    pub fn now(&self) -> Duration {
        self.backing.now()
    }

    /// Whether the card is delivering.
    pub fn is_running(&self) -> bool {
        self.life == Life::Running
    }

    /// Whether the platform has asked for the card to be given back: close it. [`Card::health`] looks, and so does
    /// everything that waits.
    pub const fn removal_requested(&self) -> bool {
        self.removal_requested
    }

    /// Whether nobody answers configuration accesses any more. A mapping of a simulated card's registers outlives the card.
    /// Kernel and hypervisor may answer by themselves for what does not change, so the reserved bits of the command register are
    /// looked at: they are 0 in every function, and 1 where nobody answers.
    fn has_left_the_bus(&mut self) -> bool {
        let mut command = [0; 2];
        match self.backing.read_config(COMMAND, &mut command) {
            Ok(()) => u16::from_le_bytes(command) & COMMAND_RESERVED == COMMAND_RESERVED,
            Err(error) => matches!(error, BackingError::Gone { .. }),
        }
    }

    /// Waits for the backing's signals. A request to give the card back is remembered.
    fn await_signals(&mut self, timeout: Duration, waker: Option<BorrowedFd<'_>>) -> Result<Signals, Fault> {
        let signals = self.backing.wait(timeout, waker)?;
        self.removal_requested |= signals.removal_requested;
        if signals.gone { Err(Fault::Gone) } else { Ok(signals) }
    }

    /// State of the QKD link, read from its register.
    ///
    /// # Errors
    /// [`Fault::Gone`] or [`Fault::UndefinedValue`].
    pub fn link_state(&mut self) -> Result<LinkState, Fault> {
        self.read_link_state().map_err(|fault| self.fail(fault))
    }

    /// The newest block that the card has announced, taken or not (SES-7). `None` before the first.
    ///
    /// # Errors
    /// [`Fault::NewestUnsteady`], which passes; any other fault takes the card out of service.
    pub fn newest(&mut self) -> Result<Option<BlockName>, Fault> {
        let found = self.read_newest().map_err(|fault| self.fail(fault))?;
        if let Some(before) = self.newest
            && found < self.newest
        {
            return Err(self.fail(Fault::NewestFell { before, found }));
        }
        self.newest = found;
        Ok(found)
    }

    fn read_newest(&mut self) -> Result<Option<BlockName>, Fault> {
        let ms = self.longest(TORN_MS);
        let deadline = self.backing.now().saturating_add(Duration::from_millis(ms));
        loop {
            let late = self.backing.now() >= deadline;
            let registers = self.backing.registers();
            let session = registers.get64(reg::NEWEST_SESSION);
            let sequence = registers.get64(reg::NEWEST_SEQUENCE);
            let steady = registers.get64(reg::NEWEST_SESSION) == session;
            if session == u64::MAX {
                return Err(self.undefined(reg::NEWEST_SESSION, session));
            }
            // Zero also stands there while the card changes the name.
            let none_yet = steady && session == 0 && (late || registers.get64(reg::BLOCKS_ANNOUNCED) == 0);
            match (steady, session) {
                (true, 0) if none_yet => return Ok(None),
                (true, 1..) => return Ok(Some(BlockName { session, sequence })),
                _ if late => return Err(Fault::NewestUnsteady { ms }),
                _ => self.backing.pause(LOOK_AGAIN),
            }
        }
    }

    /// The card's current session; `None` while there is none.
    ///
    /// # Errors
    /// [`Fault::Gone`] or [`Fault::UndefinedValue`].
    pub fn session(&mut self) -> Result<Option<u64>, Fault> {
        match self.backing.registers().get64(reg::SESSION) {
            u64::MAX => {
                let fault = self.undefined(reg::SESSION, u64::MAX);
                Err(self.fail(fault))
            }
            session => Ok((session != 0).then_some(session)),
        }
    }

    /// One consistent reading of the telemetry (TEL-1).
    ///
    /// # Errors
    /// [`Fault::TelemetryUnsteady`], which passes; any other fault takes the card out of service.
    pub fn telemetry(&mut self) -> Result<Telemetry, Fault> {
        let ms = self.longest(TORN_MS);
        let reading = Telemetry::read(&mut self.backing, ms).and_then(|reading| {
            reading.check(&self.identity)?;
            Ok(reading)
        });
        reading.map_err(|fault| self.fail(fault))
    }

    fn read_link_state(&self) -> Result<LinkState, Fault> {
        let value = self.backing.registers().get32(reg::LINK_STATE);
        LinkState::try_from(value).map_err(|_| self.undefined(reg::LINK_STATE, value.into()))
    }

    /// The fault of a register that holds an undefined value: that, or the card is gone.
    fn undefined(&self, register: reg::Register, value: u64) -> Fault {
        if self.backing.registers().get32(reg::MAGIC) == u32::MAX {
            Fault::Gone
        } else {
            Fault::UndefinedValue { register: register.name, value }
        }
    }

    /// Counts a fault, and takes the card out of service if it is one that needs recovery.
    fn fail(&mut self, fault: Fault) -> Fault {
        self.counters.count_fault(fault.cause());
        if fault.needs_recovery() && self.life != Life::GivenUp {
            log::error!(id = "card.fault"; "{}: {fault} [{}]", self.backing.location(), fault.clause());
            self.life = Life::Faulted;
            self.pending = None;
        }
        fault
    }

    /// A longest time of the contract in milliseconds, with the configured grace.
    fn longest(&self, ms: u64) -> u64 {
        open::with_grace(ms, self.options.grace)
    }
}
