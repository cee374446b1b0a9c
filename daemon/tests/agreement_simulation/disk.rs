//! A ledger on a disk that may lose what was not flushed.

use qkd_daemon::agreement::{Durable, Record};

/// What a commit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// On the disk.
    Done,
    /// Written, and gone when the power fails. Only a defect does this.
    Dropped,
}

/// The ledger. A commit is all or nothing: it is written, and it is there once it is flushed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// What a process that runs finds.
    current: Durable,
    /// What is found after the power has failed, where that is less.
    flushed: Option<Durable>,
    /// What was flushed one commit ago, for a restored copy that is only just too old.
    before: Option<Durable>,
    keeps_before: bool,
}

impl Disk {
    pub(crate) fn keep_before(&mut self) {
        self.keeps_before = true;
    }

    pub(crate) fn durable(&self) -> &Durable {
        &self.current
    }

    pub(crate) fn before(&self) -> Option<&Durable> {
        self.before.as_ref()
    }

    /// Puts back what a copy of the disk held, or nothing.
    pub(crate) fn restore(&mut self, durable: Durable) {
        self.current = durable;
        self.flushed = None;
        self.before = None;
    }

    /// Commits, and answers with the number of the write.
    pub(crate) fn commit(&mut self, writes: &[Record], flush: Flush) -> u64 {
        match flush {
            // A flush takes everything with it that was written before.
            Flush::Done => self.flushed = None,
            Flush::Dropped if self.flushed.is_none() => self.flushed = Some(self.current.clone()),
            Flush::Dropped => {}
        }
        if self.keeps_before {
            self.before = Some(self.current.clone());
        }
        for record in writes {
            self.current.apply(record);
        }
        self.current.write_number += 1;
        self.current.write_number
    }

    /// The power fails.
    pub(crate) fn lose_unflushed(&mut self) {
        if let Some(flushed) = self.flushed.take() {
            self.current = flushed;
        }
    }
}
