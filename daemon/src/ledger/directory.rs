//! The directory that a ledger lives in: whose it is, who has it, and that a new file appears in it whole or not at all.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::error::{LedgerError, hint};

/// The ledger.
pub(crate) const FILE: &str = "ledger.redb";
/// A ledger that is being made. What lies here was never used.
const UNFINISHED: &str = "ledger.redb.new";
/// Bits of a mode that let others than the owner write.
const OTHERS_WRITE: u32 = 0o022;

/// A directory that this process alone uses, for as long as this value lives.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Open, and locked.
    handle: File,
}

/// Whether a directory may hold the ledger of a daemon that runs as `owner`.
///
/// # Errors
/// Says in words what is wrong with it.
pub(crate) fn may_be_used(found: &Metadata, owner: Uid) -> Result<(), String> {
    if !found.is_dir() {
        return Err("it is no directory".into());
    }
    if found.uid() != owner.as_raw() {
        return Err(format!(
            "it belongs to user {}, but the daemon runs as user {owner}; give it to that user with chown",
            found.uid()
        ));
    }
    if found.mode() & OTHERS_WRITE != 0 {
        return Err(format!(
            "others than its owner may write to it (mode {:o}); whoever can write to it decides which keys are used: \
             chmod 700",
            found.mode() & 0o7777
        ));
    }
    Ok(())
}

impl Directory {
    /// Takes the directory, which is made if only it is missing and not its parent.
    pub(super) fn take(path: &Path) -> Result<Self, LedgerError> {
        let refuse = |why: String| LedgerError::Directory { directory: path.to_owned(), why };
        let failed =
            |what: &str, error: &io::Error| refuse(format!("{what}: {error}; {}", hint(error.kind())));
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => log::info!(id = "ledger.directory_made"; "ledger directory {} is made", path.display()),
            // Also where the file system is read only: what is there already can say more.
            Err(_) if path.exists() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(refuse("the directory above it does not exist; make it, or mount it".into()));
            }
            Err(error) => return Err(failed("it cannot be made", &error)),
        }
        let handle = File::open(path).map_err(|error| failed("it cannot be opened", &error))?;
        let metadata = handle.metadata().map_err(|error| failed("it cannot be looked at", &error))?;
        may_be_used(&metadata, Uid::effective()).map_err(refuse)?;
        match handle.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), handle }),
            Err(TryLockError::WouldBlock) => Err(LedgerError::InUse { directory: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed("it cannot be locked", &error)),
        }
    }

    /// Path of the ledger.
    pub(super) fn file(&self) -> PathBuf {
        self.path.join(FILE)
    }

    /// Opens the ledger that is there; `None` where there is none.
    pub(super) fn open(&self) -> Result<Option<File>, LedgerError> {
        let path = self.file();
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("cannot be opened", &error)),
        };
        let metadata = file.metadata().map_err(|error| self.failed("cannot be looked at", &error))?;
        let strange = |what: &str| Err(self.refuse(format!("{FILE} {what}; look who has put it there")));
        if !metadata.is_file() {
            return strange("is no plain file");
        }
        if metadata.uid() != Uid::effective().as_raw() {
            return strange("belongs to another user than the daemon's");
        }
        if metadata.mode() & OTHERS_WRITE != 0 {
            return strange("can be written by others than its owner");
        }
        self.make_private(&file, metadata.mode())?;
        if metadata.len() == 0 {
            return Err(LedgerError::Damaged { file: path, what: "it is empty".into() });
        }
        Ok(Some(file))
    }

    /// A copy that was put back may be readable by more than its owner.
    fn make_private(&self, file: &File, mode: u32) -> Result<(), LedgerError> {
        if mode & 0o077 == 0 {
            return Ok(());
        }
        let private = PermissionsExt::from_mode(0o600);
        file.set_permissions(private).map_err(|error| self.failed("cannot be made private", &error))
    }

    /// Begins a ledger beside the place where it will be.
    pub(super) fn begin(&self) -> Result<File, LedgerError> {
        let path = self.path.join(UNFINISHED);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.failed("cannot be made anew", &error));
            }
            _ => {}
        }
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| self.failed("cannot be made", &error))
    }

    /// The ledger that was begun is whole and on the disk: from now on it is the one.
    pub(super) fn finish(&self) -> Result<(), LedgerError> {
        std::fs::rename(self.path.join(UNFINISHED), self.file())
            .and_then(|()| self.handle.sync_all())
            .map_err(|error| self.failed("cannot be put in its place", &error))
    }

    fn refuse(&self, why: String) -> LedgerError {
        LedgerError::Directory { directory: self.path.clone(), why }
    }

    fn failed(&self, what: &str, error: &io::Error) -> LedgerError {
        self.refuse(format!("{FILE} {what}: {error}; {}", hint(error.kind())))
    }
}
