//! What all streams of a KMS share: the history, and the watch for key that comes twice.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use crate::history::digest::Digest;
use crate::history::record::{Invariant, Line, Milliseconds, Violation};
use crate::history::write::Recorder;

/// Chunks among which a repetition is noticed.
const WATCHED: usize = 65_536;
/// Chunks smaller than this repeat by chance.
const SMALLEST_WATCHED: usize = 16;
/// Violations that are written and logged; further ones are counted.
const MOST_WRITTEN: u64 = 1000;

/// The record of a KMS.
#[derive(Debug)]
pub(super) struct Journal {
    recorder: Option<Recorder>,
    record_keys: bool,
    violations: AtomicU64,
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    order: VecDeque<u64>,
    known: HashMap<u64, (Digest, Uuid, u64), BuildHasherDefault<Already>>,
}

/// The keys are parts of digests, so they need no hashing.
#[derive(Default)]
struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = self.0.rotate_left(8) ^ u64::from(*octet);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl Journal {
    pub(super) fn new(recorder: Option<Recorder>, record_keys: bool) -> Self {
        Self { recorder, record_keys, violations: AtomicU64::new(0), recent: Mutex::default() }
    }

    /// Writes a line of the history, if there is one.
    pub(super) fn record(&self, line: &Line) {
        if let Some(recorder) = &self.recorder {
            recorder.record(line);
        }
    }

    /// True if the user wants the keys themselves in the history.
    pub(super) fn records_keys(&self) -> bool {
        self.record_keys && self.recorder.is_some()
    }

    /// Notes that something is wrong.
    pub(super) fn violation(
        &self,
        t: Milliseconds,
        stream: Option<Uuid>,
        position: Option<u64>,
        invariant: Invariant,
        what: String,
    ) {
        if self.violations.fetch_add(1, Ordering::Relaxed) >= MOST_WRITTEN {
            return;
        }
        log::error!("{}: {what} (stream {stream:?}, position {position:?})", invariant.name());
        self.record(&Line::Violation(Violation { t, stream, position, invariant, what }));
    }

    /// How many violations were noted.
    pub(super) fn violations(&self) -> u64 {
        self.violations.load(Ordering::Relaxed)
    }

    /// Notes key of all zeros and key that came a little while ago, on any stream.
    pub(super) fn watch_repetition(
        &self,
        key: &[u8],
        digest: &Digest,
        stream: Uuid,
        position: u64,
        t: Milliseconds,
    ) {
        if key.len() < SMALLEST_WATCHED {
            return;
        }
        if key.iter().all(|octet| *octet == 0) {
            self.violation(t, Some(stream), Some(position), Invariant::I2, "a chunk is all zeros".into());
        }
        let [a, b, c, d, e, f, g, h, ..] = digest.0;
        let short = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, other, at)) = recent.known.get(&short)
            && known == digest
        {
            let what = format!("the same key as stream {other}, position {at}");
            drop(recent);
            return self.violation(t, Some(stream), Some(position), Invariant::I2, what);
        }
        if recent.order.len() >= WATCHED
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.known.remove(&oldest);
        }
        recent.order.push_back(short);
        recent.known.insert(short, (*digest, stream, position));
    }

    /// Ends the history.
    ///
    /// # Errors
    /// The disk's first error.
    pub(super) fn finish(&self, t: Milliseconds) -> std::io::Result<()> {
        self.record(&Line::End { t });
        self.recorder.as_ref().map_or(Ok(()), Recorder::finish)
    }
}
