//! Reads two histories side by side.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use uuid::Uuid;

use super::judge::{ENDS, Judge};
use super::verdict::Verdict;
use crate::history::read::{ReadError, Reader};
use crate::history::record::{Header, Milliseconds};

/// Octets of the largest list of counted losses that is read.
const LARGEST_COUNTED: u64 = 64 << 20;

/// Two histories cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// One cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Both are the same recording.
    #[error("{0} and {1} are the same recording: name the histories of two KMSs")]
    Same(PathBuf, PathBuf),
    /// Both are about the same KMS, or about other pairs.
    #[error("the histories do not belong together: {0}")]
    Strangers(String),
    /// The list of counted losses cannot be read.
    #[error("cannot read the counted losses {path}: {why}")]
    Counted {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// A loss that a module has counted: a line of JSON in the file given with `--counted`.
#[derive(Clone, Debug, Deserialize)]
struct CountedLoss {
    stream: Uuid,
    first: u64,
    count: u64,
}

/// Reads losses that the modules have counted, for [`judge`].
///
/// # Errors
/// [`CheckError::Counted`].
pub fn read_counted(path: &Path) -> Result<CountedLosses, CheckError> {
    let wrong = |why: String| CheckError::Counted { path: path.to_owned(), why };
    let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if length > LARGEST_COUNTED {
        return Err(wrong(format!("it is larger than {LARGEST_COUNTED} octets")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let mut all = CountedLosses::default();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let loss: CountedLoss =
            serde_json::from_str(line).map_err(|error| wrong(format!("line {}: {error}", number + 1)))?;
        all.add(loss.stream, loss.first..loss.first.saturating_add(loss.count));
    }
    Ok(all)
}

/// What the modules have counted as lost, by stream.
#[derive(Clone, Debug, Default)]
pub struct CountedLosses {
    /// Positions.
    pub(super) positions: HashMap<Uuid, Vec<Range<u64>>>,
    /// How many more each end has counted without telling which.
    pub(super) more: [HashMap<Uuid, u64>; 2],
}

impl CountedLosses {
    /// Adds positions of a stream.
    pub fn add(&mut self, stream: Uuid, positions: Range<u64>) {
        self.positions.entry(stream).or_default().push(positions);
    }

    /// One end (0: A, 1: B) has counted `count` more chunks of a stream, and did not come to say which.
    pub fn add_more(&mut self, end: usize, stream: Uuid, count: u64) {
        if let Some(more) = self.more.get_mut(end) {
            *more.entry(stream).or_insert(0) += count;
        }
    }
}

/// Judges two histories against I1 to I5.
///
/// # Errors
/// See [`CheckError`].
pub fn judge(a: &Path, b: &Path, counted: CountedLosses) -> Result<Verdict, CheckError> {
    let mut readers = [Reader::open(a)?, Reader::open(b)?];
    let [first, second] = &readers;
    let (one, other) = (first.header(), second.header());
    if one.recording == other.recording {
        return Err(CheckError::Same(a.to_owned(), b.to_owned()));
    }
    if one.kms == other.kms {
        return Err(CheckError::Strangers(format!("both were written by {}", one.kms)));
    }
    let pair = |header: &Header| {
        let mut pair = [header.source.clone(), header.destination.clone()];
        pair.sort_unstable();
        pair
    };
    if pair(one) != pair(other) {
        return Err(CheckError::Strangers(format!(
            "one is about {} and {}, the other about {} and {}",
            one.source, one.destination, other.source, other.destination
        )));
    }
    let mut judge = Judge::default();
    judge.counted = counted;
    let mut times = [Some(0), Some(0)];
    // The end that is behind in time is read on, so that little waits for the other.
    while let Some(end) = behind(&times) {
        let Some(reader) = readers.get_mut(end) else { break };
        let line = reader.next_line()?;
        let time = line.as_ref().map(|line| judge.line(end, line));
        if let Some(known) = times.get_mut(end) {
            *known = time.map(|time| time.or(*known).unwrap_or(0));
        }
    }
    for (reader, end) in readers.iter().zip(ENDS) {
        if reader.cut_short() {
            judge.notes.push(format!(
                "the last line of history {end} is cut short and was left out: its KMS crashed"
            ));
        }
    }
    Ok(judge.finish())
}

/// The end whose last line is the older, of those that have not been read to their end.
fn behind(times: &[Option<Milliseconds>; 2]) -> Option<usize> {
    match times {
        [Some(a), Some(b)] => Some(usize::from(b < a)),
        [Some(_), None] => Some(0),
        [None, Some(_)] => Some(1),
        [None, None] => None,
    }
}
