//! What the driver has counted since the card was opened.

use std::collections::BTreeMap;

/// Counts since the card was opened. None of them ever falls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Event entries consumed.
    pub events: u64,
    /// Blocks taken, checked and handed out.
    pub blocks_taken: u64,
    /// Bytes of key in them.
    pub bytes_taken: u64,
    /// Of the blocks taken, those that had been delivered before.
    pub blocks_replayed: u64,
    /// Blocks lost at this end because the payload's CRC was wrong.
    pub blocks_bad_payload: u64,
    /// Blocks lost at this end because the header's CRC was wrong.
    pub blocks_bad_header: u64,
    /// Acknowledgement entries written.
    pub acknowledgements: u64,
    /// Acknowledgements put off because the ring was full.
    pub acknowledgements_deferred: u64,
    /// Times the driver blocked for an interrupt.
    pub sleeps: u64,
    /// Times an event vector ended such a wait.
    pub interrupts: u64,
    /// Times an event was found by polling, without an interrupt.
    pub polls_hit: u64,
    /// Function resets asked for.
    pub resets_tried: u64,
    /// Function resets that succeeded.
    pub resets: u64,
    /// Recoveries after a fault that succeeded.
    pub recoveries: u64,
    /// Faults by [`crate::Fault::cause`].
    pub faults: BTreeMap<&'static str, u64>,
}

impl Counters {
    pub(crate) fn count_fault(&mut self, cause: &'static str) {
        let count = self.faults.entry(cause).or_default();
        *count = count.saturating_add(1);
    }
}
