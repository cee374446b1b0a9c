//! Giving a card up: stop → prove it stopped → bus mastering off → unmap → wipe → free. What is not proven is leaked.

use qkd_contract::command::Opcode;
use qkd_contract::limits::STOP_MS;
use qkd_contract::registers as reg;
use qkd_contract::state::State;

use super::{Card, Life};
use crate::backing::Backing;
use crate::fault::Fault;
use crate::mmio::Registers;

/// A card could not be proven to have stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the card could not be proven to have stopped; {leaked} bytes of DMA memory are wiped and left to it until this \
     process ends"
)]
pub struct CloseError {
    /// Bytes that were not freed.
    pub leaked: usize,
}

impl<B: Backing> Card<B> {
    /// Stops the card and gives it up, with all memory wiped. What it retains it keeps.
    ///
    /// # Errors
    /// When the card cannot be proven to have stopped.
    pub fn close(mut self) -> Result<(), CloseError> {
        self.shut_down()
    }

    /// As [`Card::close`], but keeps the way to the card: where the card is gone, the kernel may take minutes to close that, and
    /// whoever waits should hear first that its memory is wiped. Nothing can be done with the card afterwards.
    ///
    /// # Errors
    /// When the card cannot be proven to have stopped.
    pub fn give_back(&mut self) -> Result<(), CloseError> {
        self.shut_down()
    }

    /// Takes the card out of service for good.
    pub(super) fn give_up(&mut self) {
        log::error!(id = "card.out_of_service"; "{}: the card is out of service for good", self.backing.location());
        // The result is in the log, and there is nobody to act on it.
        let _ = self.shut_down();
        self.life = Life::GivenUp;
    }

    fn shut_down(&mut self) -> Result<(), CloseError> {
        self.pending = None;
        let Some(memory) = self.memory.take() else { return self.nothing_leaked() };
        let stopped = self.prove_stopped();
        if let Err(error) = self.backing.set_bus_mastering(false) {
            log::warn!(id = "card.shutdown"; "{}: {error}", self.backing.location());
        }
        let unmapped = self.backing.unmap_dma(&memory);
        if let Err(error) = &unmapped {
            log::warn!(id = "card.shutdown"; "{}: {error}", self.backing.location());
        }
        self.life = Life::GivenUp;
        if stopped && unmapped.is_ok() {
            // Dropping wipes, then unmaps.
            drop(memory);
        } else {
            self.leaked = memory.length();
            self.backing.leak(memory);
        }
        self.nothing_leaked()
    }

    const fn nothing_leaked(&self) -> Result<(), CloseError> {
        match self.leaked {
            0 => Ok(()),
            leaked => Err(CloseError { leaked }),
        }
    }

    /// Whether the card certainly does no DMA any more: one of the two proofs of the contract (STP-1).
    fn prove_stopped(&mut self) -> bool {
        if !matches!(self.life, Life::Running | Life::Stopped) {
            // After a reset that failed, registers do not answer until this; an error shows in what follows.
            let _ = self.backing.set_bus_mastering(false);
        }
        if self.backing.registers().get32(reg::MAGIC) == u32::MAX {
            return false;
        }
        let stopped = match self.life {
            // The state was proven when it was reached; it must still be the same.
            Life::Stopped => self.expect_state(State::Stopped),
            Life::Running => self
                .command(Opcode::Stop, 0, STOP_MS, "TIM-3")
                .and_then(|()| self.expect_state(State::Stopped)),
            Life::Zeroized | Life::Faulted | Life::GivenUp => Err(Fault::NotStopped),
        };
        if stopped.is_ok() {
            return true;
        }
        // A reset of a card that has left the bus may never return.
        if matches!(stopped, Err(Fault::Gone)) || self.has_left_the_bus() {
            return false;
        }
        self.counters.resets_tried += 1;
        let reset = self.backing.reset_function().and_then(|()| self.backing.set_bus_mastering(false));
        if let Err(error) = &reset {
            log::warn!(id = "card.shutdown"; "{}: {error}", self.backing.location());
        }
        reset.is_ok()
    }
}

impl<B: Backing> Drop for Card<B> {
    fn drop(&mut self) {
        if self.memory.is_some()
            && let Err(error) = self.shut_down()
        {
            log::error!(id = "card.shutdown"; "{}: {error}", self.backing.location());
        }
    }
}
