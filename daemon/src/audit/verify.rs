//! Holds a record against itself.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{HEAD, Head, Line, digest, file_name, file_number};

/// Longest line that is read, in octets.
const LONGEST_LINE: u64 = 1 << 16;

/// A record that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Number of the first line; more than 1 where older files were removed.
    pub first: u64,
    /// The last line.
    pub last: Head,
    /// Whether the last line was held against the head.
    pub against_head: bool,
}

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// File or directory.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// There is none.
    #[error("{}: there is no audit record here", .0.display())]
    None(PathBuf),
    /// A file is missing between others.
    #[error("{}: this file is missing", .0.display())]
    FileMissing(PathBuf),
    /// A line is none.
    #[error("{}, line {line}: {why}", file.display())]
    NoLine {
        /// File.
        file: PathBuf,
        /// Line in it.
        line: u64,
        /// Why.
        why: String,
    },
    /// Lines are missing, inserted or moved.
    #[error("{}, line {line}: number {found} stands where {due} is due: lines were removed, inserted or moved", file.display())]
    Number {
        /// File.
        file: PathBuf,
        /// Line in it.
        line: u64,
        /// Its number.
        found: u64,
        /// The number that follows.
        due: u64,
    },
    /// A line does not follow from the one before.
    #[error("{}, line {line}: it does not follow from the line before, which was changed, inserted or moved", file.display())]
    Chain {
        /// File.
        file: PathBuf,
        /// Line in it.
        line: u64,
    },
    /// The end is missing.
    #[error("the record ends at line {found}, and its head is line {head}: the end was cut off")]
    CutOff {
        /// Last line found.
        found: u64,
        /// Head.
        head: u64,
    },
    /// There is more than the head knows.
    #[error(
        "the record ends at line {found}, and its head is line {head}: lines were added, or a daemon writes at this moment, or \
         it was killed while it wrote and has not been started since"
    )]
    Added {
        /// Last line found.
        found: u64,
        /// Head.
        head: u64,
    },
    /// The last line is not the head.
    #[error("line {0} is not the one that the head names: it was changed")]
    Changed(u64),
}

/// Verifies a directory with its head, or one file by itself.
///
/// # Errors
/// See [`Wrong`].
pub fn verify(path: &Path) -> Result<Verdict, Wrong> {
    let unreadable = |source| Wrong::Unreadable { path: path.to_owned(), source };
    if !path.metadata().map_err(unreadable)?.is_dir() {
        let mut chain = Chain::default();
        chain.file(path)?;
        return chain.verdict(path, false);
    }
    let files = files(path)?;
    let mut chain =
        Chain { next: files.first().filter(|first| **first == 1).map(|_| Head::none()), first: None };
    for number in &files {
        chain.file(&path.join(file_name(*number)))?;
    }
    let verdict = chain.verdict(path, true)?;
    let head = read_head(path)?;
    match verdict.last.number.cmp(&head.number) {
        std::cmp::Ordering::Less => Err(Wrong::CutOff { found: verdict.last.number, head: head.number }),
        std::cmp::Ordering::Greater => Err(Wrong::Added { found: verdict.last.number, head: head.number }),
        std::cmp::Ordering::Equal if verdict.last.digest != head.digest => Err(Wrong::Changed(head.number)),
        std::cmp::Ordering::Equal => Ok(verdict),
    }
}

/// Numbers of the record's files, without a gap.
pub(super) fn files(directory: &Path) -> Result<Vec<u64>, Wrong> {
    let unreadable = |source| Wrong::Unreadable { path: directory.to_owned(), source };
    let entries = std::fs::read_dir(directory).map_err(unreadable)?;
    let mut numbers: Vec<u64> =
        entries.filter_map(Result::ok).filter_map(|entry| file_number(entry.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    let first = numbers.first().copied().unwrap_or(1);
    match (first..).zip(&numbers).find(|(due, found)| due != *found) {
        Some((due, _)) => Err(Wrong::FileMissing(directory.join(file_name(due)))),
        None => Ok(numbers),
    }
}

pub(super) fn read_head(directory: &Path) -> Result<Head, Wrong> {
    let path = directory.join(HEAD);
    let text = std::fs::read(&path).map_err(|source| Wrong::Unreadable { path: path.clone(), source })?;
    serde_json::from_slice(&text).map_err(|why| Wrong::NoLine { file: path, line: 1, why: why.to_string() })
}

/// Follows lines.
#[derive(Default)]
pub(super) struct Chain {
    /// The last line; `None`: whatever comes is the first.
    pub(super) next: Option<Head>,
    first: Option<u64>,
}

impl Chain {
    /// Reads a file to its end; answers how many octets of it are whole lines.
    pub(super) fn file(&mut self, path: &Path) -> Result<u64, Wrong> {
        let unreadable = |source| Wrong::Unreadable { path: path.to_owned(), source };
        let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
        let mut whole = 0;
        for line in 1.. {
            let mut text = Vec::new();
            let octets =
                reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut text).map_err(unreadable)?;
            let wrong = |why: String| Wrong::NoLine { file: path.to_owned(), line, why };
            match text.split_last() {
                None => break,
                Some((b'\n', text)) => self.line(path, line, text)?,
                Some(_) => return Err(wrong("it does not end".into())),
            }
            whole += octets as u64;
        }
        Ok(whole)
    }

    fn line(&mut self, path: &Path, line: u64, text: &[u8]) -> Result<(), Wrong> {
        let file = path.to_owned();
        let read: Line = serde_json::from_slice(text).map_err(|why| Wrong::NoLine {
            file: file.clone(),
            line,
            why: why.to_string(),
        })?;
        if let Some(last) = &self.next {
            let due = last.number.saturating_add(1);
            if read.number != due {
                return Err(Wrong::Number { file, line, found: read.number, due });
            }
            if read.previous != last.digest {
                return Err(Wrong::Chain { file, line });
            }
        }
        self.first.get_or_insert(read.number);
        self.next = Some(Head { number: read.number, digest: digest(text) });
        Ok(())
    }

    fn verdict(self, path: &Path, against_head: bool) -> Result<Verdict, Wrong> {
        match (self.first, self.next) {
            (Some(first), Some(last)) => Ok(Verdict { first, last, against_head }),
            _ => Err(Wrong::None(path.to_owned())),
        }
    }
}
