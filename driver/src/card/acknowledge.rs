//! What the host tells the card: blocks that may be erased, and the monotone cell.

use std::time::Duration;

use qkd_contract::layout::Acknowledgement;
use qkd_contract::limits::{ACK_MS, CELL_MS};
use qkd_contract::registers as reg;

use super::{Card, Life};
use crate::backing::Backing;
use crate::fault::Fault;
use crate::mmio::Registers;
use crate::name::BlockName;
use crate::ring::publish;

/// Time between two looks at the cell.
const LOOK_EVERY: Duration = Duration::from_micros(50);

/// What is known of the cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    /// What it held when last looked at.
    shown: u64,
    /// Largest value that was stored or shown.
    stored: u64,
    /// When that was last asked for.
    asked_at: Duration,
}

impl<B: Backing> Card<B> {
    /// Tells the card that it may erase every block from `first` to `last`, both included. `false`: the ring is full;
    /// nothing was written, try again later.
    ///
    /// # Errors
    /// [`Fault::NotRunning`], [`Fault::ReversedRange`], or a fault that takes the card out of service.
    pub fn acknowledge(&mut self, first: BlockName, last: BlockName) -> Result<bool, Fault> {
        if self.life != Life::Running {
            return Err(self.fail(Fault::NotRunning));
        }
        if last < first {
            return Err(self.fail(Fault::ReversedRange { first, last }));
        }
        if !self.progress.ack_room(&self.layout) {
            self.look_at_acks().map_err(|fault| self.fail(fault))?;
        }
        let Some(memory) = &self.memory else { return Err(Fault::NotRunning) };
        if !self.progress.ack_room(&self.layout) {
            self.counters.acknowledgements_deferred += 1;
            return Ok(false);
        }
        if self.progress.ack_tail == self.progress.ack_head {
            self.acks_idle_at = self.backing.now();
        }
        let entry = Acknowledgement {
            first_session: first.session.into(),
            first_sequence: first.sequence.into(),
            last_session: last.session.into(),
            last_sequence: last.sequence.into(),
        };
        self.layout.write_ack(memory, self.progress.ack_tail, &entry);
        publish();
        self.progress.ack_tail = self.progress.ack_tail.wrapping_add(1);
        self.backing.registers().set32(reg::ACK_TAIL, self.progress.ack_tail);
        self.counters.acknowledgements += 1;
        Ok(true)
    }

    /// Whether the card has taken every acknowledgement that was written.
    ///
    /// # Errors
    /// A fault that takes the card out of service.
    pub fn acknowledgements_settled(&mut self) -> Result<bool, Fault> {
        if self.life != Life::Running {
            return Err(self.fail(Fault::NotRunning));
        }
        self.look_at_acks().map_err(|fault| self.fail(fault))?;
        Ok(self.progress.ack_tail == self.progress.ack_head)
    }

    /// Takes notice of `ACK_HEAD`; it must move within its time (ACK-3, TIM-10).
    pub(super) fn look_at_acks(&mut self) -> Result<(), Fault> {
        let now = self.backing.now();
        let before = self.progress.ack_head;
        let found = self.backing.registers().get32(reg::ACK_HEAD);
        if !self.progress.advance_ack_head(found) {
            if self.backing.registers().get32(reg::MAGIC) == u32::MAX {
                return Err(Fault::Gone);
            }
            return Err(Fault::AckHead { from: before, to: self.progress.ack_tail, found });
        }
        if found != before || found == self.progress.ack_tail {
            self.acks_idle_at = now;
        }
        let ms = self.longest(ACK_MS);
        if now.saturating_sub(self.acks_idle_at) > Duration::from_millis(ms) {
            return Err(Fault::Timeout { what: "taking acknowledgements", ms, clause: "TIM-10" });
        }
        Ok(())
    }

    /// Raises the cell to `value`, and returns when the card shows that it is durable. A value that is not larger than
    /// the cell's is nothing (CEL-2).
    ///
    /// # Errors
    /// [`Fault::NoCell`], or a fault that takes the card out of service.
    pub fn store_cell(&mut self, value: u64) -> Result<(), Fault> {
        self.request_cell(value)?;
        while !self.cell_settled()? {
            self.backing.pause(LOOK_EVERY);
        }
        Ok(())
    }

    /// As [`Card::store_cell`], but does not wait: [`Card::cell_settled`] tells when the card shows it. Of several values
    /// asked for before that, the last counts.
    ///
    /// # Errors
    /// As [`Card::store_cell`].
    pub fn request_cell(&mut self, value: u64) -> Result<(), Fault> {
        if self.cell()? < value {
            let now = self.backing.now();
            self.cell = self.cell.map(|cell| Cell { stored: cell.stored.max(value), asked_at: now, ..cell });
            self.backing.registers().set64(reg::CELL_STORE, value);
        }
        Ok(())
    }

    /// Whether the card shows all that was asked for, which then is durable.
    ///
    /// # Errors
    /// [`Fault::NoCell`], or a fault that takes the card out of service: also when `CELL_MS` has passed (TIM-7).
    pub fn cell_settled(&mut self) -> Result<bool, Fault> {
        let now = self.backing.now();
        let found = self.cell()?;
        let Some(Cell { stored, asked_at, .. }) = self.cell else { return Ok(true) };
        let ms = self.longest(CELL_MS);
        if found < stored && now.saturating_sub(asked_at) >= Duration::from_millis(ms) {
            return Err(self.fail(Fault::Timeout { what: "storing the cell", ms, clause: "TIM-7" }));
        }
        Ok(found >= stored)
    }

    /// What the cell holds.
    ///
    /// # Errors
    /// [`Fault::NoCell`], or a fault that takes the card out of service.
    pub fn cell(&mut self) -> Result<u64, Fault> {
        if !self.identity.has_cell {
            return Err(self.fail(Fault::NoCell));
        }
        self.read_cell().map_err(|fault| self.fail(fault))
    }

    /// Reads the cell; it never falls, not even over a reset, and only the host raises it (CEL-1, CEL-2).
    pub(super) fn read_cell(&mut self) -> Result<u64, Fault> {
        let found = self.backing.registers().get64(reg::CELL);
        if found == u64::MAX && self.backing.registers().get32(reg::MAGIC) == u32::MAX {
            return Err(Fault::Gone);
        }
        let before = self.cell.unwrap_or(Cell { shown: found, stored: found, asked_at: Duration::ZERO });
        let (from, to) = (before.shown, before.stored);
        if !(from..=to).contains(&found) {
            return Err(Fault::Cell { from, to, found });
        }
        self.cell = Some(Cell { shown: found, ..before });
        Ok(found)
    }
}
