//! A ledger that lasts as long as the process.

use super::{Ledger, LedgerError, number_after};
use crate::agreement::{Durable, Record};

/// Keeps everything in memory: after a restart the daemon knows nothing and burns what its card still holds.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    durable: Durable,
}

impl MemoryLedger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A ledger that holds `durable` already.
    #[must_use]
    pub fn holding(durable: Durable) -> Self {
        Self { durable }
    }

    /// What it holds.
    #[must_use]
    pub fn durable(&self) -> &Durable {
        &self.durable
    }
}

impl Ledger for MemoryLedger {
    fn load(&mut self) -> Result<Durable, LedgerError> {
        Ok(self.durable.clone())
    }

    fn commit(&mut self, writes: &[Record]) -> Result<u64, LedgerError> {
        let number = number_after(self.durable.write_number, writes)?;
        for record in writes {
            self.durable.apply(record);
        }
        self.durable.write_number = number;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_numbers_rise_and_go_on_above_the_cards_cell() {
        let mut ledger = MemoryLedger::new();
        assert_eq!(ledger.commit(&[]).unwrap(), 1);
        assert_eq!(ledger.commit(&[Record::WriteNumber(40)]).unwrap(), 41);
        assert_eq!(ledger.commit(&[Record::WriteNumber(3)]).unwrap(), 42);
        assert_eq!(ledger.load().unwrap().write_number, 42);
        let full = ledger.commit(&[Record::WriteNumber(u64::MAX)]);
        assert!(matches!(full, Err(LedgerError::NumbersUsedUp)));
        assert_eq!(ledger.load().unwrap().write_number, 42, "nothing of a write that failed is kept");
    }
}
