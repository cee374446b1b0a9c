//! What a card is led through: self-test, start, stop, zeroize, card reset, recovery.

use std::time::Duration;

use qkd_contract::command::Opcode;
use qkd_contract::layout::self_test_octet;
use qkd_contract::limits::{COMMAND_MS, SELF_TEST_BYTES, SELF_TEST_MS, START_MS, STOP_MS, ZEROIZE_MS};
use qkd_contract::pci::{EVENT_VECTOR, VECTORS};
use qkd_contract::registers as reg;
use qkd_contract::state::{Fault as CardFaultCode, State};

use super::open::{await_boot, card_fault};
use super::{Announced, Card, Life};
use crate::backing::{Backing, Signals};
use crate::fault::Fault;
use crate::identity::{Identity, IdentityError};
use crate::mmio::Registers;
use crate::ring::Progress;

impl<B: Backing> Card<B> {
    /// After the card has booted: wires interrupts, gives the card its rings, and tests DMA and interrupts.
    pub(super) fn set_up(&mut self, state: State) -> Result<(), Fault> {
        self.heartbeat = None;
        self.backing.wire_interrupts()?;
        self.backing.set_bus_mastering(true)?;
        if self.identity.has_cell {
            self.read_cell()?;
        }
        self.leave_dead_end(state)?;
        self.write_ring_registers();
        self.self_test()?;
        self.life = Life::Stopped;
        Ok(())
    }

    /// From the states that a function reset does not lead out of, a card reset does. What a card in them retains
    /// cannot be had any more.
    fn leave_dead_end(&mut self, state: State) -> Result<(), Fault> {
        let why = match state {
            State::Stopped => return Ok(()),
            State::Fault => match card_fault(&self.backing) {
                Fault::CardFault(code @ (CardFaultCode::SelfTest | CardFaultCode::Internal)) => {
                    format!("{code:?}")
                }
                fault => return Err(fault),
            },
            found @ State::Zeroized => format!("{found:?}"),
            found => return Err(Fault::UnexpectedState { expected: State::Stopped, found }),
        };
        log::warn!(
            id = "card.reset_at_start"; "{}: the card came up as {why}; resetting it, which drops what it retains",
            self.backing.location()
        );
        self.reset_and_boot()
    }

    fn reset_and_boot(&mut self) -> Result<(), Fault> {
        self.command(Opcode::Reset, 0, COMMAND_MS, "TIM-6")?;
        self.newest = None;
        self.identity.peer_serial = None;
        match await_boot(&mut self.backing, self.options.grace)? {
            State::Stopped => Ok(()),
            State::Fault => Err(card_fault(&self.backing)),
            found => Err(Fault::UnexpectedState { expected: State::Stopped, found }),
        }
    }

    fn write_ring_registers(&self) {
        let Some(memory) = &self.memory else { return };
        let (slots, events, acks) = self.layout.bases(memory.iova());
        let registers = self.backing.registers();
        registers.set64(reg::SLOT_BASE, slots);
        registers.set64(reg::EVENT_BASE, events);
        registers.set64(reg::ACK_BASE, acks);
        registers.set32(reg::SLOT_BYTES, self.layout.slot_bytes);
        registers.set32(reg::SLOT_COUNT, self.layout.slot_count);
        registers.set32(reg::EVENT_COUNT, self.layout.event_count);
        registers.set32(reg::ACK_COUNT, self.layout.ack_count);
        let moderation = if self.identity.has_moderation { self.options.moderation_us } else { 0 };
        registers.set32(reg::MODERATION, moderation);
        registers.set32(reg::INTERRUPT_ENABLE, (1 << VECTORS) - 1);
    }

    /// Proves that DMA reaches our memory and that both interrupt vectors reach us (CMD-9, CMD-10).
    fn self_test(&mut self) -> Result<(), Fault> {
        let mut pattern = [0_u8; SELF_TEST_BYTES as usize];
        self.wipe_pattern();
        self.drain_signals()?;
        self.command(Opcode::SelfTest, 0, SELF_TEST_MS, "TIM-5")?;
        if let Some(memory) = &self.memory {
            memory.copy_out(self.layout.slot(0), &mut pattern);
        }
        self.wipe_pattern();
        let wrong = (0_u32..).zip(pattern).find(|(octet, found)| self_test_octet(*octet) != *found);
        if let Some((octet, _)) = wrong {
            return Err(Fault::SelfTestPattern { octet });
        }
        self.await_interrupt("the self-test's control interrupt", |signals| signals.control)?;
        self.command(Opcode::Raise, EVENT_VECTOR, COMMAND_MS, "TIM-6")?;
        self.await_interrupt("a self-raised event interrupt", |signals| signals.event)
    }

    fn wipe_pattern(&self) {
        if let Some(memory) = &self.memory {
            memory.wipe(self.layout.slot(0), SELF_TEST_BYTES as usize);
        }
    }

    fn drain_signals(&mut self) -> Result<(), Fault> {
        self.await_signals(Duration::ZERO, None)?;
        Ok(())
    }

    fn await_interrupt(&mut self, what: &'static str, arrived: fn(Signals) -> bool) -> Result<(), Fault> {
        let ms = self.longest(COMMAND_MS);
        let deadline = self.backing.now().saturating_add(Duration::from_millis(ms));
        loop {
            let left = deadline.saturating_sub(self.backing.now());
            let signals = self.await_signals(left, None)?;
            if arrived(signals) {
                return Ok(());
            }
            if left.is_zero() {
                return Err(Fault::Timeout { what, ms, clause: "TIM-6" });
            }
        }
    }

    /// Lets the card deliver. It first replays all it retains (see [`super::CardEvent::ReplayEnd`]).
    ///
    /// # Errors
    /// [`Fault::NotStopped`] when it is not stopped; any other fault takes it out of service.
    pub fn start(&mut self) -> Result<(), Fault> {
        if self.life != Life::Stopped {
            return Err(self.fail(Fault::NotStopped));
        }
        self.try_start().map_err(|fault| self.fail(fault))
    }

    fn try_start(&mut self) -> Result<(), Fault> {
        let Some(memory) = &self.memory else { return Err(Fault::NotStopped) };
        self.layout.clear_events(memory);
        self.progress = Progress::default();
        self.announced = Announced::AT_START;
        self.pending = None;
        let registers = self.backing.registers();
        registers.set32(reg::SLOT_CREDIT, 0);
        registers.set32(reg::EVENT_CONSUMED, 0);
        registers.set32(reg::ACK_TAIL, 0);
        self.command(Opcode::Start, 0, START_MS, "TIM-2")?;
        self.expect_state(State::Running)?;
        self.progress.credit = self.layout.slot_count;
        self.backing.registers().set32(reg::SLOT_CREDIT, self.progress.credit);
        let now = self.backing.now();
        self.acks_idle_at = now;
        self.last_activity = now;
        self.life = Life::Running;
        Ok(())
    }

    /// Stops delivery, proven by the card's state, and wipes the slots. What was not acknowledged is delivered again
    /// after the next start. Stopping a stopped card is nothing.
    ///
    /// # Errors
    /// [`Fault::NotRunning`] when it is neither running nor stopped; any other fault takes it out of service.
    pub fn stop(&mut self) -> Result<(), Fault> {
        match self.life {
            Life::Stopped => return Ok(()),
            Life::Running => {}
            Life::Zeroized | Life::Faulted | Life::GivenUp => return Err(self.fail(Fault::NotRunning)),
        }
        self.try_stop().map_err(|fault| self.fail(fault))
    }

    fn try_stop(&mut self) -> Result<(), Fault> {
        self.command(Opcode::Stop, 0, STOP_MS, "TIM-3")?;
        self.expect_state(State::Stopped)?;
        self.pending = None;
        self.wipe_memory();
        self.life = Life::Stopped;
        Ok(())
    }

    /// Has the card erase every key it holds, with proof, and wipes the slots. [`Card::reset`] goes on from there. Answers the
    /// card's count of zeroizes since power-on.
    ///
    /// # Errors
    /// Any fault takes the card out of service; nothing may then be assumed erased.
    pub fn zeroize(&mut self) -> Result<u32, Fault> {
        if self.life == Life::GivenUp {
            return Err(self.fail(Fault::NotStopped));
        }
        self.try_zeroize().map_err(|fault| self.fail(fault))
    }

    fn try_zeroize(&mut self) -> Result<u32, Fault> {
        let before = self.backing.registers().get32(reg::ZEROIZED);
        self.command(Opcode::Zeroize, 0, ZEROIZE_MS, "TIM-4")?;
        self.expect_state(State::Zeroized)?;
        let registers = self.backing.registers();
        let count = registers.get32(reg::ZEROIZED);
        if count != before.wrapping_add(1) {
            let problem = format!("ZEROIZED went from {before} to {count}");
            return Err(Fault::NotZeroized { problem });
        }
        let (blocks, bytes) = (registers.get32(reg::RETAINED_BLOCKS), registers.get64(reg::RETAINED_BYTES));
        if blocks != 0 || bytes != 0 {
            let problem = format!("{blocks} blocks and {bytes} bytes are still retained");
            return Err(Fault::NotZeroized { problem });
        }
        self.pending = None;
        self.wipe_memory();
        self.life = Life::Zeroized;
        Ok(count)
    }

    /// Resets the whole card: it drops what it retains and ends the session (RST-1). The card is then stopped.
    ///
    /// # Errors
    /// Any fault takes the card out of service.
    pub fn reset(&mut self) -> Result<(), Fault> {
        if self.life == Life::GivenUp {
            return Err(self.fail(Fault::NotStopped));
        }
        self.try_reset().map_err(|fault| self.fail(fault))
    }

    fn try_reset(&mut self) -> Result<(), Fault> {
        self.pending = None;
        self.reset_and_boot()?;
        self.wipe_memory();
        self.set_up(State::Stopped)
    }

    /// Brings the card back after a fault, by a function reset, which keeps what it retains. It is then stopped, and
    /// all it retains is delivered again after [`Card::start`].
    ///
    /// # Errors
    /// [`Fault::GivenUp`] when there were too many faults in [`super::CardOptions::recovery_window`], and
    /// [`Fault::Gone`]: the card is out of service for good then, stopped where it can be, and its memory wiped.
    /// After any other fault it may be tried again.
    pub fn recover(&mut self) -> Result<(), Fault> {
        let now = self.backing.now();
        if self.life == Life::GivenUp {
            return Err(self.fail(Fault::GivenUp { recoveries: self.recoveries.len() }));
        }
        // A reset of a card that is gone may never return. One whose last reset failed does not answer as it is.
        let reachable = self.backing.set_bus_mastering(false);
        if self.backing.registers().get32(reg::MAGIC) == u32::MAX
            || reachable.is_err() && self.has_left_the_bus()
        {
            self.give_up();
            return Err(self.fail(Fault::Gone));
        }
        if let Err(error) = reachable {
            log::warn!(id = "card.shutdown"; "{}: {error}", self.backing.location());
        }
        let window = self.options.recovery_window;
        while self.recoveries.front().is_some_and(|oldest| now.saturating_sub(*oldest) > window) {
            self.recoveries.pop_front();
        }
        if self.recoveries.len() >= self.options.recoveries {
            let recoveries = self.recoveries.len();
            self.give_up();
            return Err(self.fail(Fault::GivenUp { recoveries }));
        }
        self.recoveries.push_back(now);
        if let Err(fault) = self.try_recover() {
            let fault = self.fail(fault);
            if matches!(fault, Fault::Gone) {
                self.give_up();
            }
            return Err(fault);
        }
        self.counters.recoveries += 1;
        Ok(())
    }

    fn try_recover(&mut self) -> Result<(), Fault> {
        self.pending = None;
        self.counters.resets_tried += 1;
        self.backing.reset_function()?;
        self.backing.set_bus_mastering(false)?;
        self.counters.resets += 1;
        Identity::check_version(self.backing.registers()).map_err(changed)?;
        let state = await_boot(&mut self.backing, self.options.grace)?;
        self.wipe_memory();
        let identity = Identity::read(self.backing.registers()).map_err(changed)?;
        if !self.identity.same_card(&identity) {
            let problem = format!("serial {:#x} became {:#x}", self.identity.serial, identity.serial);
            return Err(Fault::IdentityChanged(problem));
        }
        // The fault may have been a loss of power, after which the card knows neither of the two.
        self.identity.peer_serial = None;
        self.newest = None;
        self.look_at_peer()?;
        self.set_up(state)
    }

    fn wipe_memory(&self) {
        if let Some(memory) = &self.memory {
            memory.wipe_all();
        }
    }
}

fn changed(error: IdentityError) -> Fault {
    match error {
        IdentityError::Gone => Fault::Gone,
        other => Fault::IdentityChanged(other.to_string()),
    }
}
