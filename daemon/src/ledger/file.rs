//! The ledger in a file: an embedded database, redb, of which every commit is one transaction that is on the disk when it
//! returns.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase, StorageBackend};

use super::directory::Directory;
use super::error::{LedgerError, hint};
use super::format::{self, FORMAT, FormatError, STEPS, Step};
use super::rows::{self, Counts, RowError};
use super::storage::{ROOM, Storage};
use super::{Ledger, number_after};
use crate::agreement::{Durable, Record};

/// Octets of the file that are kept in memory as well.
const CACHE: usize = 4 << 20;

/// Keeps everything in a file of one directory, which it has for itself.
pub struct FileLedger {
    database: Database,
    /// What the last commit left, without entries and forbidden IDs.
    mirror: Durable,
    counts: Counts,
    /// What [`Ledger::load`] gives, until it is asked for.
    loaded: Option<Durable>,
    /// A commit failed: what the file holds shows only when it is opened anew.
    failed: bool,
    new: bool,
    file: PathBuf,
    /// Held for its lock; the database is dropped before.
    _directory: Option<Directory>,
}

impl std::fmt::Debug for FileLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileLedger").field("file", &self.file).finish_non_exhaustive()
    }
}

impl FileLedger {
    /// Opens the ledger in `directory`, and begins one where there is none. A file that is there and cannot be used is
    /// never replaced.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn open(directory: &Path) -> Result<Self, LedgerError> {
        let directory = Directory::take(directory)?;
        let file = directory.file();
        let room = |error: std::io::Error| LedgerError::Storage {
            place: file.display().to_string(),
            hint: hint(error.kind()),
            source: error.into(),
        };
        let mut ledger = match directory.open()? {
            Some(found) => {
                let storage = Storage::new(found).map_err(room)?;
                Self::open_on(storage, &file, FORMAT, STEPS)?
            }
            None => {
                let ledger = Self::begin_on(Storage::new(directory.begin()?).map_err(room)?, &file)?;
                directory.finish()?;
                ledger
            }
        };
        ledger._directory = Some(directory);
        ledger.shrink()?;
        Ok(ledger)
    }

    /// Whether there was no ledger and this one is new.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// Where it is.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Number of the last write.
    #[must_use]
    pub fn write_number(&self) -> u64 {
        self.mirror.write_number
    }

    /// Begins a ledger on storage that is empty.
    pub(super) fn begin_on(storage: impl StorageBackend, file: &Path) -> Result<Self, LedgerError> {
        let begin = || -> Result<Database, redb::Error> {
            let database = builder().create_with_backend(storage)?;
            let transaction = database.begin_write()?;
            format::set(&transaction, FORMAT)?;
            rows::begin(&transaction).map_err(|error| match error {
                RowError::Database(error) => error,
                RowError::Nonsense(what) => redb::Error::Corrupted(what),
            })?;
            transaction.commit()?;
            Ok(database)
        };
        let database = begin().map_err(|error| LedgerError::storage(file.display().to_string(), error))?;
        Ok(Self {
            database,
            mirror: Durable::default(),
            counts: Counts::default(),
            loaded: Some(Durable::default()),
            failed: false,
            new: true,
            file: file.to_owned(),
            _directory: None,
        })
    }

    /// Opens a ledger on storage that holds one. Every page is held against its checksum; the database panics on some
    /// files that it did not write so, and such a panic ends here.
    pub(super) fn open_on(
        storage: impl StorageBackend,
        file: &Path,
        format: u32,
        steps: &[(u32, Step)],
    ) -> Result<Self, LedgerError> {
        let damaged = |what: String| LedgerError::Damaged { file: file.to_owned(), what };
        let failed = |error: redb::Error| match error {
            redb::Error::Io(error)
                if !matches!(
                    error.kind(),
                    std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData
                ) =>
            {
                LedgerError::storage(file.display().to_string(), redb::Error::Io(error))
            }
            error => damaged(error.to_string()),
        };
        let open = || -> Result<Self, LedgerError> {
            let database = builder()
                .set_check_integrity_on_open(true)
                .create_with_backend(storage)
                .map_err(|error| failed(error.into()))?;
            format::bring_to(&database, format, steps).map_err(|error| match error {
                FormatError::Newer(found) => {
                    LedgerError::Newer { file: file.to_owned(), found, known: format }
                }
                FormatError::Unknown(what) => damaged(what),
                FormatError::Database(error) => failed(error),
            })?;
            let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
            let (mut durable, counts) = rows::read(&transaction).map_err(|error| match error {
                RowError::Nonsense(what) => damaged(what),
                RowError::Database(error) => failed(error),
            })?;
            drop(transaction);
            let loaded = durable.clone();
            durable.log.clear();
            durable.forbidden = std::collections::HashSet::new();
            Ok(Self {
                database,
                mirror: durable,
                counts,
                loaded: Some(loaded),
                failed: false,
                new: false,
                file: file.to_owned(),
                _directory: None,
            })
        };
        catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|panic| Err(damaged(said(&*panic))))
    }

    /// Makes a file short that has much more room than it needs.
    fn shrink(&mut self) -> Result<(), LedgerError> {
        let place = self.file.display().to_string();
        let failed = |error: redb::Error| LedgerError::storage(place.clone(), error);
        let size = std::fs::metadata(&self.file).map_err(|error| failed(error.into()))?.len();
        if size <= ROOM {
            return Ok(());
        }
        let used = || -> Result<u64, redb::Error> {
            let transaction = self.database.begin_write()?;
            let stats = transaction.stats()?;
            transaction.abort()?;
            Ok(stats.allocated_pages().saturating_mul(stats.page_size() as u64))
        };
        if used().map_err(failed)? < size / 2 {
            self.database.compact().map_err(|error| failed(error.into()))?;
            let now = std::fs::metadata(&self.file).map_err(|error| failed(error.into()))?.len();
            log::info!(id = "ledger.shortened"; "ledger {place}: made shorter, from {size} to {now} bytes");
        }
        Ok(())
    }

    fn try_commit(&mut self, writes: &[Record], number: u64) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        rows::write(&transaction, writes, number, &mut self.mirror, &mut self.counts).map_err(|error| {
            match error {
                RowError::Database(error) => error,
                RowError::Nonsense(what) => redb::Error::Corrupted(what),
            }
        })?;
        // Synchronised with the disk, as every transaction is that is not told otherwise.
        transaction.commit()?;
        Ok(())
    }
}

impl Ledger for FileLedger {
    fn load(&mut self) -> Result<Durable, LedgerError> {
        if let Some(loaded) = self.loaded.take() {
            return Ok(loaded);
        }
        let read = || -> Result<Durable, RowError> { Ok(rows::read(&self.database.begin_read()?)?.0) };
        read().map_err(|error| match error {
            RowError::Nonsense(what) => LedgerError::Damaged { file: self.file.clone(), what },
            RowError::Database(error) => LedgerError::storage(self.file.display().to_string(), error),
        })
    }

    fn commit(&mut self, writes: &[Record]) -> Result<u64, LedgerError> {
        let place = || self.file.display().to_string();
        if self.failed {
            return Err(LedgerError::storage(
                place(),
                redb::Error::Io(std::io::ErrorKind::BrokenPipe.into()),
            ));
        }
        let number = number_after(self.mirror.write_number, writes)?;
        self.loaded = None;
        // Until it has been seen to succeed.
        self.failed = true;
        match catch_unwind(AssertUnwindSafe(|| self.try_commit(writes, number))) {
            Ok(Ok(())) => {
                self.failed = false;
                Ok(number)
            }
            Ok(Err(error)) => Err(LedgerError::storage(self.file.display().to_string(), error)),
            Err(panic) => Err(LedgerError::Thread { what: said(&*panic) }),
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}
