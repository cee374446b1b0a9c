//! Life cycle, commands and resets (clauses ST, CMD, FLR, RST, ZER, FLT).

use qkd_contract::command::{Opcode, Outcome};
use qkd_contract::layout::self_test_octet;
use qkd_contract::limits::SELF_TEST_BYTES;
use qkd_contract::pci::{CONTROL_VECTOR, VECTORS};
use qkd_contract::registers::{self as reg, MAGIC_VALUE};
use qkd_contract::state::{Fault, State};

use super::bus::{Bus, read_u32};
use super::delivery::{Delivery, Notice};
use super::interrupts::{Interrupts, raise};
use super::registers::Registers;
use super::rings::Rings;
use super::{Card, Counters, LinkView, Telemetry};

/// What a card takes for each transition, in microseconds; all well under the longest times of clauses TIM.
const COLD_BOOT_US: u64 = 50_000;
const WARM_BOOT_US: u64 = 10_000;
const START_US: u64 = 200;
const STOP_US: u64 = 200;
const ZEROIZE_US: u64 = 2_000;
const SELF_TEST_US: u64 = 500;

/// A command under way.
#[derive(Debug)]
struct Open {
    tag: u32,
    due: u64,
    effect: Effect,
}

#[derive(Debug)]
enum Effect {
    Start(Rings),
    Stop,
    Zeroize,
    SelfTest(Rings),
}

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
    fault: Fault,
    powered: bool,
    boot: Option<Boot>,
    last_tag: u32,
    open: Option<Open>,
    reset_after_erasure: Option<u32>,
    done: u32,
    zeroized: u32,
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
    fn reset(&mut self, bus: &mut dyn Bus, tag: u32, now: u64) {
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
    fn leave_link(&mut self) {
        self.link.go_dark();
        self.telemetry = Telemetry { qber_ppm: 0, visibility_ppm: 0, ..self.telemetry };
        self.telemetry.secret_key_rate = 0;
        self.telemetry.sifted_key_rate = 0;
        self.life.restarts += 1;
    }

    /// Shows a state after everything that must be read with it (ORD-7).
    fn change_state(&mut self, bus: &mut dyn Bus, state: State) {
        self.life.state = state;
        self.publish_telemetry(bus);
        self.registers.set(bus, &reg::ZEROIZED, u64::from(self.life.zeroized));
        self.publish_link(bus);
        self.registers.set(bus, &reg::FAULT, u64::from(self.life.fault.value()));
        self.registers.set(bus, &reg::STATE, u64::from(state.value()));
    }

    fn complete(&mut self, bus: &mut dyn Bus, done: u32) {
        self.life.done = done;
        self.registers.set(bus, &reg::COMMAND_DONE, u64::from(done));
    }

    fn answer(&mut self, bus: &mut dyn Bus, tag: u32, outcome: Outcome) {
        self.complete(bus, tag << 16 | outcome.value());
        raise(bus, CONTROL_VECTOR);
    }

    /// Takes a command whose tag is new (CMD-2). While one is under way only RESET is taken.
    fn poll_command(&mut self, bus: &mut dyn Bus, now: u64) -> bool {
        let word = read_u32(bus, &reg::COMMAND);
        let (tag, code) = (word >> 16, word & 0xFFFF);
        if tag == 0 || tag == self.life.last_tag {
            return false;
        }
        let opcode = Opcode::try_from(code).ok();
        if self.life.open.is_some() && opcode != Some(Opcode::Reset) {
            return false;
        }
        let argument = read_u32(bus, &reg::COMMAND_ARGUMENT);
        self.life.last_tag = tag;
        if let Err(refusal) = self.begin(bus, tag, opcode, argument, now) {
            self.answer(bus, tag, refusal);
        }
        true
    }

    /// Checks a command in the order of CMD-4 and begins it.
    fn begin(
        &mut self,
        bus: &mut dyn Bus,
        tag: u32,
        opcode: Option<Opcode>,
        argument: u32,
        now: u64,
    ) -> Result<(), Outcome> {
        let opcode = opcode.ok_or(Outcome::UnknownOpcode)?;
        let state = self.life.state;
        let legal = match opcode {
            Opcode::Start | Opcode::SelfTest => state == State::Stopped,
            Opcode::Stop => state == State::Running,
            Opcode::Zeroize => matches!(state, State::Stopped | State::Running | State::Fault),
            Opcode::Reset => true,
            Opcode::Raise => state != State::Boot,
        };
        if !legal {
            return Err(Outcome::WrongState);
        }
        let allowed = if opcode == Opcode::Raise { argument < VECTORS } else { argument == 0 };
        if !allowed {
            return Err(Outcome::BadConfiguration);
        }
        let block_max = self.identity.block_max;
        let latch = |bus: &dyn Bus| Rings::latch(bus, block_max).map_err(|_| Outcome::BadConfiguration);
        let (effect, takes) = match opcode {
            Opcode::Start => (Effect::Start(latch(bus)?), START_US),
            Opcode::SelfTest => (Effect::SelfTest(latch(bus)?), SELF_TEST_US),
            Opcode::Stop => {
                self.delivery = None;
                self.change_state(bus, State::Stopping);
                (Effect::Stop, STOP_US)
            }
            Opcode::Zeroize => {
                self.delivery = None;
                self.retention.erase_all();
                self.leave_link();
                self.life.fault = Fault::None;
                self.change_state(bus, State::Zeroizing);
                (Effect::Zeroize, ZEROIZE_US)
            }
            Opcode::Reset => {
                if state == State::Zeroizing {
                    self.life.reset_after_erasure = Some(tag);
                } else {
                    self.reset(bus, tag, now);
                }
                return Ok(());
            }
            Opcode::Raise => {
                raise(bus, argument);
                self.answer(bus, tag, Outcome::Done);
                return Ok(());
            }
        };
        self.life.open = Some(Open { tag, due: now + takes, effect });
        Ok(())
    }

    fn finish(&mut self, bus: &mut dyn Bus, open: Open, now: u64) {
        match open.effect {
            Effect::Start(rings) => self.start(bus, rings),
            Effect::Stop => self.change_state(bus, State::Stopped),
            Effect::Zeroize => {
                self.life.zeroized = self.life.zeroized.wrapping_add(1);
                self.change_state(bus, State::Zeroized);
                if let Some(tag) = self.life.reset_after_erasure {
                    self.reset(bus, tag, now);
                    return;
                }
            }
            Effect::SelfTest(rings) => {
                if let Err(refused) = bus.dma_write(rings.slot_address(0), &self.self_test_pattern()) {
                    self.counters.dma_errors += 1;
                    log::warn!("card {:#x}: self-test: {refused}", self.identity.serial);
                    self.life.open = Some(Open { effect: Effect::SelfTest(rings), ..open });
                    self.enter_fault(bus, Fault::Dma);
                    return;
                }
            }
        }
        self.answer(bus, open.tag, Outcome::Done);
    }

    fn self_test_pattern(&mut self) -> Vec<u8> {
        let mut pattern: Vec<u8> = (0..SELF_TEST_BYTES).map(self_test_octet).collect();
        if self.misbehaviour.takes_wrong_pattern()
            && let Some(octet) = pattern.get_mut(SELF_TEST_BYTES as usize / 2)
        {
            *octet ^= 1;
        }
        pattern
    }

    /// Begins a run (CMD-5, EVT-5).
    fn start(&mut self, bus: &mut dyn Bus, rings: Rings) {
        let mut delivery = Delivery::begin(rings, &self.retention);
        let after = self.retention.newest();
        if self.link.session != 0 {
            let notice =
                Notice::Session { session: self.link.session, blocks_before: self.link.blocks_before };
            delivery.notice(&self.retention, after, notice);
        }
        delivery.notice(&self.retention, after, Notice::Link(self.link.state));
        self.delivery = Some(delivery);
        self.interrupts.take_as_served(bus);
        self.registers.set(bus, &reg::ACK_HEAD, 0);
        self.change_state(bus, State::Running);
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
