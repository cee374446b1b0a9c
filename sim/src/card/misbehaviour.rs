//! What a card can be told to do wrong.

use std::collections::VecDeque;

/// Faults of delivery that wait for their block at most.
const WAITING_MAX: usize = 4096;

/// A fault in how one block is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDelivery {
    /// The block is delivered a second time right after.
    Duplicate,
    /// The next two blocks come in the wrong order.
    OutOfOrder,
    /// The check of the payload is wrong.
    BadPayloadCrc,
    /// The check of the block header is wrong.
    BadHeaderCrc,
    /// The check of the event is wrong.
    BadEventCrc,
    /// Header and event give a length that does not fit the slot.
    LengthBeyondSlot,
    /// Header and event name a session that was never begun.
    ForeignSession,
    /// The event of the block is never written; its number is used up.
    EventSkipped,
}

/// A card's misbehaviour that is still to come.
#[derive(Debug, Default)]
pub(crate) struct Misbehaviour {
    on_delivery: VecDeque<OnDelivery>,
    /// Blocks to refuse as if retention were full.
    pub(crate) refuse: u32,
    /// Self-tests that write a wrong pattern.
    pub(crate) wrong_patterns: u32,
    /// The next boot ends in `Fault SelfTest`.
    pub(crate) boot_fails: bool,
    /// The card does nothing before this time, in microseconds.
    pub(crate) frozen_until: Option<u64>,
    /// The card is gone from the bus before this time, in microseconds.
    pub(crate) gone_until: Option<u64>,
}

impl Misbehaviour {
    /// Queues a fault for the next deliveries; more than fit are left out.
    pub(crate) fn on_delivery(&mut self, fault: OnDelivery, count: u32) {
        for _ in 0..count {
            if self.on_delivery.len() < WAITING_MAX {
                self.on_delivery.push_back(fault);
            }
        }
    }

    pub(crate) fn take_on_delivery(&mut self) -> Option<OnDelivery> {
        self.on_delivery.pop_front()
    }

    pub(crate) fn put_back(&mut self, fault: OnDelivery) {
        self.on_delivery.push_front(fault);
    }

    /// Whether the next block is to be refused.
    pub(crate) fn takes_refusal(&mut self) -> bool {
        let refuses = self.refuse > 0;
        self.refuse = self.refuse.saturating_sub(1);
        refuses
    }

    /// Whether the next self-test is to go wrong.
    pub(crate) fn takes_wrong_pattern(&mut self) -> bool {
        let wrong = self.wrong_patterns > 0;
        self.wrong_patterns = self.wrong_patterns.saturating_sub(1);
        wrong
    }
}
