//! Giving a command and judging its outcome; reading the state that it leads to.

use std::time::Duration;

use qkd_contract::command::{Opcode, Outcome};
use qkd_contract::registers as reg;
use qkd_contract::state::State;

use super::Card;
use super::open::card_fault;
use crate::backing::Backing;
use crate::fault::Fault;
use crate::identity::halves;
use crate::mmio::Registers;

/// First and longest pause between two looks at a command's outcome.
const FIRST_PAUSE: Duration = Duration::from_micros(2);
const LONGEST_PAUSE: Duration = Duration::from_micros(500);

impl<B: Backing> Card<B> {
    /// Gives a command and waits for its outcome (CMD-1 to CMD-3).
    pub(super) fn command(
        &mut self,
        opcode: Opcode,
        argument: u32,
        ms: u64,
        clause: &'static str,
    ) -> Result<(), Fault> {
        let ms = self.longest(ms);
        let (before, _) = halves(self.backing.registers().get32(reg::COMMAND_DONE));
        let tag = self.next_tag(before);
        let registers = self.backing.registers();
        registers.set32(reg::COMMAND_ARGUMENT, argument);
        registers.set32(reg::COMMAND, u32::from(tag) << 16 | opcode.value());
        let deadline = self.backing.now().saturating_add(Duration::from_millis(ms));
        let mut pause = FIRST_PAUSE;
        loop {
            let late = self.backing.now() >= deadline;
            let value = self.backing.registers().get32(reg::COMMAND_DONE);
            let (done, outcome) = halves(value);
            if value == u32::MAX {
                return Err(self.undefined(reg::COMMAND_DONE, value.into()));
            }
            if done == tag {
                return self.judge_outcome(opcode, outcome);
            }
            if done != before {
                return Err(Fault::ForeignAnswer { expected: tag, found: done });
            }
            if late {
                return Err(Fault::Timeout { what: what(opcode), ms, clause });
            }
            self.backing.pause(pause);
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    /// A tag that is neither 0 nor the one of the command before, nor the one that stands in `COMMAND_DONE`.
    const fn next_tag(&mut self, done: u16) -> u16 {
        let mut tag = self.command_tag.wrapping_add(1);
        while tag == 0 || tag == done || tag == u16::MAX {
            tag = tag.wrapping_add(1);
        }
        self.command_tag = tag;
        tag
    }

    fn judge_outcome(&self, opcode: Opcode, outcome: u16) -> Result<(), Fault> {
        match Outcome::try_from(u32::from(outcome)) {
            Ok(Outcome::Done) => Ok(()),
            Ok(outcome) => match self.state() {
                Ok(State::Fault) => Err(card_fault(&self.backing)),
                _ => Err(Fault::CommandRefused { opcode, outcome }),
            },
            Err(_) => Err(self.undefined(reg::COMMAND_DONE, outcome.into())),
        }
    }

    /// The card's state, as its register has it now.
    pub(super) fn state(&self) -> Result<State, Fault> {
        let value = self.backing.registers().get32(reg::STATE);
        State::try_from(value).map_err(|_| self.undefined(reg::STATE, value.into()))
    }

    pub(super) fn expect_state(&self, expected: State) -> Result<(), Fault> {
        match self.state()? {
            found if found == expected => Ok(()),
            State::Fault => Err(card_fault(&self.backing)),
            found => Err(Fault::UnexpectedState { expected, found }),
        }
    }
}

const fn what(opcode: Opcode) -> &'static str {
    match opcode {
        Opcode::Start => "starting",
        Opcode::Stop => "stopping",
        Opcode::Zeroize => "zeroizing",
        Opcode::Reset => "resetting the card",
        Opcode::SelfTest => "the self-test",
        Opcode::Raise => "raising an interrupt",
    }
}
