//! Life cycle, resets and faults (clauses ST, FLR, RST, ZER, FLT).

use qkd_contract::command::Outcome;
use qkd_contract::pci::CONTROL_VECTOR;
use qkd_contract::registers::{self as reg, MAGIC_VALUE};
use qkd_contract::state::{Fault, State};

use super::bus::Bus;
use super::command::Open;
use super::interrupts::{Interrupts, raise};
use super::registers::Registers;
use super::{Card, Counters, LinkView, Telemetry};

/// What a card takes to boot, in microseconds; well under the longest time (TIM-1).
const COLD_BOOT_US: u64 = 50_000;
const WARM_BOOT_US: u64 = 10_000;

/// Boot under way.
#[derive(Clone, Copy, Debug)]
struct Boot {
    due: u64,
    /// Where it leads: Stopped, Zeroized or Fault.
    to: State,
    cause: Fault,
    /// After power-on or RESET; the optics start anew then.
    cold: bool,
}

/// The life cycle of one card.
#[derive(Debug)]
pub(super) struct Life {
    state: State,
    pub(super) fault: Fault,
    powered: bool,
    boot: Option<Boot>,
    /// Last command tag taken (CMD-2).
    pub(super) last_tag: u32,
    pub(super) open: Option<Open>,
    /// Tag of a RESET that waits for the erasure (CMD-8).
    pub(super) reset_after_erasure: Option<u32>,
    done: u32,
    pub(super) zeroized: u32,
    broken: Option<Fault>,
    /// A cause that no reset clears (FLT-2).
    lasting: Option<Fault>,
    restarts: u64,
}

impl Life {
    pub(super) const fn unpowered() -> Self {
        Self {
            state: State::Boot,
            fault: Fault::None,
            powered: false,
            boot: None,
            last_tag: 0,
            open: None,
            reset_after_erasure: None,
            done: 0,
            zeroized: 0,
            broken: None,
            lasting: None,
            restarts: 0,
        }
    }

    pub(super) const fn state(&self) -> State {
        self.state
    }

    pub(super) const fn fault(&self) -> Fault {
        self.fault
    }

    pub(super) const fn restarts(&self) -> u64 {
        self.restarts
    }

    /// The card finds a fault; it enters it at its next step, unless another came first.
    pub(super) fn break_down(&mut self, fault: Fault) {
        self.broken.get_or_insert(fault);
    }

    /// Power is lost; the next step is a power-on.
    pub(super) const fn power_lost(&mut self) {
        self.powered = false;
    }

    pub(super) fn optics_ready(&self) -> bool {
        let booting = self.boot.is_some_and(|boot| boot.cold || boot.to != State::Stopped);
        self.powered
            && !booting
            && !matches!(self.state, State::Zeroizing | State::Zeroized)
            && matches!(self.fault, Fault::None | Fault::Dma | Fault::Ring)
    }
}

impl Card {
    /// Runs power-on, boot, faults and commands. Tells whether it did anything.
    pub(super) fn run_life(&mut self, bus: &mut dyn Bus, now: u64) -> bool {
        if !self.life.powered {
            self.power_on(bus, now);
            return true;
        }
        let broken = self.life.broken.take();
        if let Some(fault) = broken {
            self.enter_fault(bus, fault);
        }
        let booted = self.life.boot.take_if(|boot| now >= boot.due);
        if let Some(boot) = booted {
            self.life.fault = boot.cause;
            self.change_state(bus, boot.to);
            raise(bus, CONTROL_VECTOR);
        }
        let finished = self.life.open.take_if(|open| now >= open.due);
        let worked = broken.is_some() || booted.is_some() || finished.is_some();
        if let Some(open) = finished {
            self.finish(bus, open, now);
        }
        self.poll_command(bus, now) || worked
    }

    /// Function-level reset, or any bus reset under power (FLR-1): keeps what is retained, the session, the cell.
    pub fn function_reset(&mut self, bus: &mut dyn Bus) {
        if self.is_gone() || !self.life.powered {
            return;
        }
        let now = bus.now();
        self.misbehaviour.frozen_until = None;
        let was_zeroizing = self.life.state == State::Zeroizing;
        let mut to = match self.life.boot {
            Some(boot) => boot.to,
            None if was_zeroizing || self.life.state == State::Zeroized => State::Zeroized,
            None => State::Stopped,
        };
        let mut cause = self.life.boot.map_or(self.life.fault, |boot| boot.cause);
        match cause {
            Fault::None | Fault::Dma | Fault::Ring => cause = Fault::None,
            _ => to = State::Fault,
        }
        if was_zeroizing {
            // The keys are gone since the command was taken; only its outcome is cut short.
            self.life.zeroized = self.life.zeroized.wrapping_add(1);
        }
        let cold = self.life.boot.is_some_and(|boot| boot.cold);
        self.begin_boot(bus, Boot { due: now + WARM_BOOT_US, to, cause, cold });
        self.complete(bus, 0);
    }

    /// Goes to Fault; only the first cause is shown (ST-9, FLT-1).
    pub(super) fn enter_fault(&mut self, bus: &mut dyn Bus, fault: Fault) {
        if self.life.state == State::Fault {
            return;
        }
        log::warn!("card {:#x}: fault {fault:?}", self.identity.serial);
        self.delivery = None;
        self.life.boot = None;
        if matches!(fault, Fault::Tamper | Fault::NonVolatile) {
            self.life.lasting = Some(fault);
        }
        if fault == Fault::Tamper {
            self.retention.erase_all();
        }
        if !matches!(fault, Fault::Dma | Fault::Ring) {
            self.leave_link();
        }
        self.life.fault = fault;
        self.change_state(bus, State::Fault);
        if let Some(open) = self.life.open.take() {
            self.complete(bus, open.tag << 16 | Outcome::Failed.value());
        }
        raise(bus, CONTROL_VECTOR);
    }

    fn power_on(&mut self, bus: &mut dyn Bus, now: u64) {
        self.registers = Registers::new();
        self.retention.erase_all();
        self.counters = Counters::default();
        self.leave_link();
        self.link = LinkView::dark();
        self.telemetry = Telemetry::default();
        self.life = Life {
            powered: true,
            lasting: self.life.lasting,
            broken: None,
            restarts: self.life.restarts,
            ..Life::unpowered()
        };
        self.begin_cold_boot(bus, now);
        for (register, value) in [
            (&reg::FEATURES, self.identity.features()),
            (&reg::SERIAL, self.identity.serial),
            (&reg::ROLE, u64::from(self.identity.role.value())),
            (&reg::BLOCK_MAX, u64::from(self.identity.block_max)),
            (&reg::RETENTION_BYTES, self.identity.retention_bytes),
            (&reg::RETENTION_BLOCKS, u64::from(self.identity.retention_blocks)),
            (&reg::CELL, self.remembered.cell),
            (&reg::VERSION, u64::from(self.identity.version)),
            (&reg::MAGIC, u64::from(MAGIC_VALUE)),
        ] {
            self.registers.set(bus, register, value);
        }
        self.telemetry_writer.forget();
        self.registers.refresh(bus);
    }

    /// The command RESET: drops what is retained, ends the session (RST-1, CMD-8).
    pub(super) fn reset(&mut self, bus: &mut dyn Bus, tag: u32, now: u64) {
        self.retention.erase_all();
        self.leave_link();
        self.link = LinkView::dark();
        self.telemetry = Telemetry::default();
        self.begin_cold_boot(bus, now);
        self.complete(bus, tag << 16 | Outcome::Done.value());
    }

    fn begin_cold_boot(&mut self, bus: &mut dyn Bus, now: u64) {
        let defective = std::mem::take(&mut self.misbehaviour.boot_fails).then_some(Fault::SelfTest);
        let (to, cause) = self
            .life
            .lasting
            .or(defective)
            .map_or((State::Stopped, Fault::None), |cause| (State::Fault, cause));
        self.begin_boot(bus, Boot { due: now + COLD_BOOT_US, to, cause, cold: true });
    }

    fn begin_boot(&mut self, bus: &mut dyn Bus, boot: Boot) {
        self.delivery = None;
        self.interrupts = Interrupts::default();
        self.life.open = None;
        self.life.reset_after_erasure = None;
        self.life.last_tag = 0;
        self.life.fault = Fault::None;
        self.life.boot = Some(boot);
        Registers::clear_host_written(bus);
        self.registers.set(bus, &reg::ACK_HEAD, 0);
        self.change_state(bus, State::Boot);
    }

    /// Ends the card's part in the session; the link sees it by the count of restarts.
    pub(super) fn leave_link(&mut self) {
        self.link.go_dark();
        self.telemetry = Telemetry { qber_ppm: 0, visibility_ppm: 0, ..self.telemetry };
        self.telemetry.secret_key_rate = 0;
        self.telemetry.sifted_key_rate = 0;
        self.life.restarts += 1;
    }

    /// Shows a state after everything that must be read with it (ORD-7).
    pub(super) fn change_state(&mut self, bus: &mut dyn Bus, state: State) {
        self.life.state = state;
        self.publish_telemetry(bus);
        self.registers.set(bus, &reg::ZEROIZED, u64::from(self.life.zeroized));
        self.publish_link(bus);
        self.registers.set(bus, &reg::FAULT, u64::from(self.life.fault.value()));
        self.registers.set(bus, &reg::STATE, u64::from(state.value()));
    }

    pub(super) fn complete(&mut self, bus: &mut dyn Bus, done: u32) {
        self.life.done = done;
        self.registers.set(bus, &reg::COMMAND_DONE, u64::from(done));
    }

    /// Whether the card is gone or does nothing; brings a card that was gone back with power-on.
    pub(super) fn is_absent(&mut self, bus: &mut dyn Bus, now: u64) -> bool {
        if let Some(until) = self.misbehaviour.gone_until {
            if self.life.powered {
                self.retention.erase_all();
                self.delivery = None;
                self.leave_link();
                self.life.power_lost();
                Registers::all_ones(bus);
            }
            if now < until {
                return true;
            }
            self.misbehaviour.gone_until = None;
        }
        self.misbehaviour.frozen_until = self.misbehaviour.frozen_until.filter(|&until| now < until);
        self.misbehaviour.frozen_until.is_some()
    }
}
