//! The ledger: what this end has agreed to, kept over restarts. Names and numbers, never key.
//!
//! [`FileLedger`] keeps it in a file, and [`MemoryLedger`] only as long as the process lives.

mod directory;
mod error;
mod file;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod memory;
mod rows;
mod storage;
#[cfg(test)]
mod tests;

pub(crate) use directory::{FILE, may_be_used};
pub use error::LedgerError;
pub use file::FileLedger;
pub use memory::MemoryLedger;

use crate::agreement::{Durable, Record};

/// Keeps [`Record`]s durably.
pub trait Ledger {
    /// What the ledger holds; the default value where it is new.
    ///
    /// # Errors
    /// See [`LedgerError`].
    fn load(&mut self) -> Result<Durable, LedgerError>;

    /// Makes `writes` durable, all or none, and returns the number of this write. Numbers rise by one with each; after a
    /// [`Record::WriteNumber`] they go on above it. The engine stores the number in the card's cell before it acts.
    ///
    /// # Errors
    /// See [`LedgerError`]. Nothing of `writes` has been acted on then, and whether they were kept shows only when the
    /// ledger is opened anew; the core that made them must be dropped, and so must the ledger.
    fn commit(&mut self, writes: &[Record]) -> Result<u64, LedgerError>;
}

/// The number of the write that makes `writes` durable after write `last`.
fn number_after(last: u64, writes: &[Record]) -> Result<u64, LedgerError> {
    let raised = writes.iter().fold(last, |number, record| match record {
        Record::WriteNumber(at_least) => number.max(*at_least),
        _ => number,
    });
    raised.checked_add(1).ok_or(LedgerError::NumbersUsedUp)
}
