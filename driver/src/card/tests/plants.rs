//! What a test can have the scripted card do wrong.

use qkd_contract::command::Opcode;
use qkd_contract::layout::{BlockHeader, Event};

/// A change to something that belongs to the block of one sequence number.
pub(super) struct Plant<T: ?Sized> {
    pub(super) sequence: u64,
    pub(super) change: fn(&mut T),
    /// Whether the CRC is made right again.
    pub(super) reseal: bool,
}

impl<T: ?Sized> Plant<T> {
    pub(super) const fn of(sequence: u64, change: fn(&mut T), reseal: bool) -> Option<Self> {
        Some(Self { sequence, change, reseal })
    }
}

/// What a test plants.
#[derive(Default)]
pub(super) struct Plants {
    /// Done to the event of a block.
    pub(super) event: Option<Plant<Event>>,
    /// Done to the header of a block.
    pub(super) header: Option<Plant<BlockHeader>>,
    /// Done to the payload of a block after its CRC was made; never sealed again.
    pub(super) payload: Option<Plant<[u8]>>,
    /// Octet of the self-test pattern that is wrong.
    pub(super) pattern: Option<usize>,
    /// Commands that are never answered.
    pub(super) silent: Option<Opcode>,
    /// The card loses power, once, just before it takes this command, which finds it booting.
    pub(super) power_loss_at: Option<Opcode>,
    /// The power is lost just after the command was taken, which is then never answered.
    pub(super) power_loss_swallows_it: bool,
    /// The state is shown wrong after this command.
    pub(super) wrong_state_after: Option<Opcode>,
    /// The event of this sequence is counted and never written.
    pub(super) skip_event: Option<u64>,
    pub(super) heart_stopped: bool,
    pub(super) no_interrupts: bool,
    pub(super) acks_ignored: bool,
    pub(super) cell_stuck: bool,
    pub(super) zeroize_leaves_blocks: bool,
    pub(super) reset_fails: bool,
    pub(super) all_ones: bool,
    pub(super) never_boots: bool,
}
