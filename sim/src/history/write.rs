//! Writes a history without making the receiver wait for the disk.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::record::Line;

/// Octets that may wait for the disk; beyond, lines are dropped, counted and the history says so.
const MOST_WAITING: usize = 64 << 20;
/// Octets that wake the writing thread before its time.
const ENOUGH_WAITING: usize = 256 << 10;
/// Longest time that a line stays in memory.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// The file that a KMS records its history in.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<io::Result<()>>>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    octets: Vec<u8>,
    dropped: u64,
    ending: bool,
    failed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The buffer holds whole lines at every point where a panic could poison it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder {
    /// Creates the file, which must not exist: a history is never overwritten.
    ///
    /// # Errors
    /// The file cannot be created, or the thread cannot be started.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::create_new(path)?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let writer =
            std::thread::Builder::new().name("history".into()).spawn(move || write_all(&theirs, file))?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// Records one line. Never waits for the disk.
    pub fn record(&self, line: &Line) {
        let Ok(mut text) = serde_json::to_vec(line) else { return self.drop_line() };
        text.push(b'\n');
        let mut waiting = self.shared.lock();
        if waiting.failed || waiting.octets.len() + text.len() > MOST_WAITING {
            waiting.dropped += 1;
            return;
        }
        let before = waiting.octets.len();
        waiting.octets.extend_from_slice(&text);
        let enough = before < ENOUGH_WAITING && waiting.octets.len() >= ENOUGH_WAITING;
        drop(waiting);
        zeroize::Zeroize::zeroize(&mut text);
        if enough {
            self.shared.wake.notify_one();
        }
    }

    fn drop_line(&self) {
        self.shared.lock().dropped += 1;
    }

    /// Writes what waits, and ends.
    ///
    /// # Errors
    /// The first error of the disk since the file was created: the history on it is not complete.
    pub fn finish(&self) -> io::Result<()> {
        self.shared.lock().ending = true;
        self.shared.wake.notify_one();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        match writer.map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the thread that writes the history ended early")),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            log::error!("the history is not complete: {error}");
        }
    }
}

fn write_all(shared: &Shared, mut file: File) -> io::Result<()> {
    let mut spare = Vec::new();
    loop {
        let mut waiting = shared.lock();
        if waiting.octets.len() < ENOUGH_WAITING && !waiting.ending {
            waiting = match shared.wake.wait_timeout(waiting, FLUSH_EVERY) {
                Ok((waiting, _)) => waiting,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        std::mem::swap(&mut waiting.octets, &mut spare);
        let (dropped, ending) = (std::mem::take(&mut waiting.dropped), waiting.ending);
        drop(waiting);
        let written = write_some(&mut file, &spare, dropped);
        // A line may hold key, where the user asked for that.
        zeroize::Zeroize::zeroize(&mut spare);
        if let Err(error) = written {
            shared.lock().failed = true;
            return Err(error);
        }
        if ending {
            return file.sync_all();
        }
    }
}

fn write_some(file: &mut File, octets: &[u8], dropped: u64) -> io::Result<()> {
    file.write_all(octets)?;
    if dropped > 0 {
        log::error!("{dropped} lines of the history are lost: the disk is too slow for it");
        let mut line = serde_json::to_vec(&Line::Dropped { lines: dropped })?;
        line.push(b'\n');
        file.write_all(&line)?;
    }
    Ok(())
}
