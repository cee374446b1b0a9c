//! Writes the record.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::verify::{Chain, Wrong, files, read_head};
use super::{Event, HEAD, Head, Line, digest, file_name};

/// The audit record cannot be kept or used.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It cannot be written.
    #[error("the audit record {} cannot be written ({what}): {source}; make room, or make its file system writable", path.display())]
    Unwritable {
        /// File or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's word.
        source: io::Error,
    },
    /// It is not what it was.
    #[error("the audit record in {} is not what it was: {why}; look who changed it, and move the directory away", directory.display())]
    NotWhatItWas {
        /// Directory.
        directory: PathBuf,
        /// What is wrong.
        why: Wrong,
    },
}

/// The record of one daemon, to append to.
#[derive(Debug)]
pub struct AuditFile {
    directory: PathBuf,
    most_octets: u64,
    most_files: u64,
    number: u64,
    octets: u64,
    file: File,
    head: Head,
}

impl AuditFile {
    /// Opens the record in `directory`, which is made if it is missing, and holds its newest file against the head. A new file
    /// begins at `most_octets`, and the oldest goes where there would be more than `most_files`.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub fn open(directory: &Path, most_octets: u64, most_files: u64) -> Result<Self, AuditError> {
        let unwritable =
            |what| move |source| AuditError::Unwritable { path: directory.to_owned(), what, source };
        let changed = |why| AuditError::NotWhatItWas { directory: directory.to_owned(), why };
        if !directory.is_dir() {
            DirBuilder::new().mode(0o700).create(directory).map_err(unwritable("making the directory"))?;
        }
        let numbers = files(directory).map_err(changed)?;
        let number = numbers.last().copied().unwrap_or(1);
        let path = directory.join(file_name(number));
        let mut head = Head::none();
        let mut octets = 0;
        if numbers.is_empty() {
            if directory.join(HEAD).exists() {
                return Err(changed(Wrong::None(directory.to_owned())));
            }
        } else {
            let known = read_head(directory).map_err(changed)?;
            drop_torn_end(&path).map_err(unwritable("dropping a line that was not finished"))?;
            let mut chain = Chain::default();
            octets = chain.file(&path).map_err(changed)?;
            if chain.next.is_none() && numbers.len() > 1 {
                // The newest file was begun and has no line yet.
                let _ = chain.file(&directory.join(file_name(number.saturating_sub(1)))).map_err(changed)?;
            }
            head = chain.next.unwrap_or_else(Head::none);
            // A line that is on the disk before the head is: the daemon was killed in between.
            if head.number < known.number {
                return Err(changed(Wrong::CutOff { found: head.number, head: known.number }));
            }
            if head.number == known.number && head.digest != known.digest {
                return Err(changed(Wrong::Changed(head.number)));
            }
        }
        let file = append_to(&path).map_err(unwritable("opening"))?;
        let mut record =
            Self { directory: directory.to_owned(), most_octets, most_files, number, octets, file, head };
        record.write_head()?;
        log::info!(id = "audit.opened"; "audit record in {}: {}", directory.display(), record.head);
        Ok(record)
    }

    /// The last line.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Appends events, durably.
    ///
    /// # Errors
    /// [`AuditError::Unwritable`]; the record must not be used any more then.
    pub fn append(&mut self, events: &[Event]) -> Result<(), AuditError> {
        if events.is_empty() {
            return Ok(());
        }
        if self.octets >= self.most_octets {
            self.begin_file()?;
        }
        let mut text = Vec::new();
        for Event { who, what } in events {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let line = Line {
                number: self.head.number.saturating_add(1),
                time_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
                previous: self.head.digest.clone(),
                who: who.clone(),
                what: what.clone(),
            };
            let written = serde_json::to_vec(&line).map_err(|why| self.unwritable("a line", why.into()))?;
            self.head = Head { number: line.number, digest: digest(&written) };
            text.extend_from_slice(&written);
            text.push(b'\n');
        }
        self.file
            .write_all(&text)
            .and_then(|()| self.file.sync_data())
            .map_err(|source| self.unwritable("appending", source))?;
        self.octets = self.octets.saturating_add(text.len() as u64);
        self.write_head()
    }

    fn begin_file(&mut self) -> Result<(), AuditError> {
        self.number = self.number.saturating_add(1);
        self.octets = 0;
        self.file = append_to(&self.directory.join(file_name(self.number)))
            .map_err(|source| self.unwritable("beginning a file", source))?;
        log::info!(id = "audit.file_begun"; "audit record: {} is begun after {}", file_name(self.number), self.head);
        if let Some(oldest) = self.number.checked_sub(self.most_files).filter(|oldest| *oldest > 0) {
            let path = self.directory.join(file_name(oldest));
            match std::fs::remove_file(&path) {
                Ok(()) => {
                    log::warn!(id = "audit.file_removed"; "audit record: {} is the oldest file and is removed", path.display())
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.unwritable("removing the oldest file", error)),
            }
        }
        Ok(())
    }

    fn write_head(&mut self) -> Result<(), AuditError> {
        let new = self.directory.join(format!("{HEAD}.new"));
        let write = || {
            let text = serde_json::to_vec(&self.head)?;
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&text)?;
            file.sync_data()?;
            std::fs::rename(&new, self.directory.join(HEAD))?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(|source| self.unwritable("writing the head", source))
    }

    fn unwritable(&self, what: &'static str, source: io::Error) -> AuditError {
        AuditError::Unwritable { path: self.directory.join(file_name(self.number)), what, source }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW).open(path)
}

/// A daemon that was killed while it wrote leaves a line without an end. Nothing it tells of was answered.
fn drop_torn_end(path: &Path) -> io::Result<()> {
    let text = std::fs::read(path)?;
    let whole = text.iter().rposition(|octet| *octet == b'\n').map_or(0, |last| last + 1);
    if whole < text.len() {
        log::warn!(id = "audit.line_dropped"; "{}: the last line was not finished and is dropped", path.display());
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(whole as u64)?;
        file.sync_data()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
