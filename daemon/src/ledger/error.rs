//! What is wrong with a ledger, and what the operator can do.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The ledger cannot keep or give what it should.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Write numbers are used up.
    #[error("the ledger's write numbers are used up; set the pair up anew")]
    NumbersUsedUp,
    /// The directory cannot be used.
    #[error("ledger directory {}: {why}", directory.display())]
    Directory {
        /// Where the ledger should be.
        directory: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// Another process has the ledger.
    #[error(
        "ledger directory {}: another process uses it; each card has a daemon of its own and each daemon a ledger \
         directory of its own",
        directory.display()
    )]
    InUse {
        /// Where the ledger is.
        directory: PathBuf,
    },
    /// What the file holds is no ledger.
    #[error(
        "ledger {}: it is damaged ({what}) and is not used. Put back the newest backup, or move the file away to start \
         without a ledger: either way both ends see that it is not the one they knew, all key streams end with a notice, \
         and what the cards hold is burnt",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What was seen.
        what: String,
    },
    /// The file was written by a later release.
    #[error(
        "ledger {}: it has format {found}, and this release knows formats up to {known}; install the release that wrote \
         it, or a later one",
        file.display()
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// The latest format that is known.
        known: u32,
    },
    /// Storage failed.
    #[error(
        "ledger {place}: {source}; {hint}. Nothing is answered, granted or acknowledged until it can be written again"
    )]
    Storage {
        /// Where it is.
        place: String,
        /// What the storage said.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// What the operator can do.
        hint: &'static str,
    },
    /// Storage does not answer.
    #[error(
        "the ledger's storage has not finished a write for {} s; look at the disk. Nothing is answered, granted or \
         acknowledged until it can be written again",
        after.as_secs()
    )]
    Stalled {
        /// How long the write has been under way.
        after: Duration,
    },
    /// The audit record, which is written along with the ledger, cannot be.
    #[error(transparent)]
    Audit(#[from] crate::audit::AuditError),
    /// The thread that writes has ended or panicked.
    #[error("the ledger's thread ended: {what}. This is a defect: please report it with the log")]
    Thread {
        /// What is known of it.
        what: String,
    },
}

impl LedgerError {
    /// Storage at `place` failed with `source`.
    pub(super) fn storage(place: String, source: redb::Error) -> Self {
        let hint = match &source {
            redb::Error::Io(error) => hint(error.kind()),
            _ => "look at the disk and at the system's log",
        };
        Self::Storage { place, source: source.into(), hint }
    }
}

/// What an operator can do about an error of the operating system.
pub(super) fn hint(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "make room on its file system"
        }
        io::ErrorKind::ReadOnlyFilesystem => "make its file system writable",
        io::ErrorKind::PermissionDenied => "let the daemon's user read and write it",
        _ => "look at the disk and at the system's log",
    }
}
