//! Commands (clauses CMD): what is checked, what they set off, and how they end.

use qkd_contract::command::{Opcode, Outcome};
use qkd_contract::layout::self_test_octet;
use qkd_contract::limits::SELF_TEST_BYTES;
use qkd_contract::pci::{CONTROL_VECTOR, VECTORS};
use qkd_contract::registers as reg;
use qkd_contract::state::{Fault, State};

use super::Card;
use super::bus::{Bus, read_u32};
use super::delivery::{Delivery, Notice};
use super::interrupts::raise;
use super::rings::Rings;

/// What a card takes for a command, in microseconds; all well under the longest times of clauses TIM.
const START_US: u64 = 200;
const STOP_US: u64 = 200;
const ZEROIZE_US: u64 = 2_000;
const SELF_TEST_US: u64 = 500;

/// A command under way.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) tag: u32,
    pub(super) due: u64,
    effect: Effect,
}

#[derive(Debug)]
enum Effect {
    Start(Rings),
    Stop,
    Zeroize,
    SelfTest(Rings),
}

impl Card {
    fn answer(&mut self, bus: &mut dyn Bus, tag: u32, outcome: Outcome) {
        self.complete(bus, tag << 16 | outcome.value());
        raise(bus, CONTROL_VECTOR);
    }

    /// Takes a command whose tag is new (CMD-2). While one is under way only RESET is taken.
    pub(super) fn poll_command(&mut self, bus: &mut dyn Bus, now: u64) -> bool {
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
        let state = self.life.state();
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

    pub(super) fn finish(&mut self, bus: &mut dyn Bus, open: Open, now: u64) {
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
}
