//! The ledger: what this end has agreed to, kept over restarts. Names and numbers, never key.

mod memory;

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
    /// See [`LedgerError`]. Nothing of `writes` has been kept then; the core that made them must be dropped.
    fn commit(&mut self, writes: &[Record]) -> Result<u64, LedgerError>;
}

/// The ledger cannot keep or give what it should.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Write numbers are used up.
    #[error("the ledger's write numbers are used up; set the pair up anew")]
    NumbersUsedUp,
    /// Storage failed.
    #[error(
        "ledger {place}: {source}; nothing is answered, granted or acknowledged until it can be written again"
    )]
    Storage {
        /// Where it is.
        place: String,
        /// What the storage said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
