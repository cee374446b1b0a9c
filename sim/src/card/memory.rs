//! The card's non-volatile memory: the session counter and the host's cell.

use std::io;

/// What a card remembers over power loss (SES-1, CEL-2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// The highest session number this card has taken part in.
    pub session_counter: u64,
    /// The host-owned cell.
    pub cell: u64,
}

/// Where [`Remembered`] is kept.
pub trait NonVolatile: Send {
    /// Replaces what is kept.
    ///
    /// # Errors
    /// Whatever kept it from being stored; the card goes to `Fault NonVolatile` then.
    fn store(&mut self, remembered: Remembered) -> io::Result<()>;
}

/// Non-volatile only as long as the program runs: the card may be reset, the program may not end.
#[derive(Clone, Copy, Debug, Default)]
pub struct WhileRunning;

impl NonVolatile for WhileRunning {
    fn store(&mut self, _: Remembered) -> io::Result<()> {
        Ok(())
    }
}
