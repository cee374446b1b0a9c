//! Notices that wait to be sent to a KMS: few, tried a few times, and given up rather than waited for.

use std::collections::VecDeque;
use std::sync::Arc;

use super::counters::add;
use super::handle::Shared;
use crate::interface::Status;

/// Attempts to send a notice.
pub(super) const ATTEMPTS: u32 = 3;
/// Notices that may wait; the oldest gives way.
const MOST_WAITING: usize = 8;

/// In the order in which they were given.
#[derive(Debug)]
pub(super) struct Notices {
    waiting: VecDeque<Notice>,
    shared: Arc<Shared>,
}

/// Key-material without key.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) status: Status,
    /// Position that was next when it was given.
    pub(super) position: u64,
    attempts: u32,
}

impl Notices {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { waiting: VecDeque::new(), shared }
    }

    pub(super) fn give(&mut self, status: Status, position: u64) {
        // The one at the front may be on its way.
        if self.waiting.len() >= MOST_WAITING && self.waiting.remove(1).is_some() {
            add(&self.shared.counters.notices_lost, 1);
        }
        self.waiting.push_back(Notice { status, position, attempts: 0 });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The one to be sent next, or on its way.
    pub(super) fn front(&self) -> Option<&Notice> {
        self.waiting.front()
    }

    /// The one at the front was accepted.
    pub(super) fn arrived(&mut self) {
        self.waiting.pop_front();
    }

    /// The one at the front did not arrive. Where this was its `last` chance, or its last attempt, it is given up.
    pub(super) fn failed(&mut self, last: bool) {
        if let Some(notice) = self.waiting.front_mut() {
            notice.attempts += 1;
            if last || notice.attempts >= ATTEMPTS {
                self.give_up();
            }
        }
    }

    /// The one at the front is not sent any more.
    pub(super) fn give_up(&mut self) {
        if self.waiting.pop_front().is_some() {
            add(&self.shared.counters.notices_lost, 1);
        }
    }

    /// None is sent any more.
    pub(super) fn give_up_all(&mut self) {
        while !self.is_empty() {
            self.give_up();
        }
    }
}
