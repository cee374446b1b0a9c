//! Holds a record against itself.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{DigestText, HEAD, Head, Line, digest, file_name, file_number};

/// Longest line that is read, in octets.
const LONGEST_LINE: u64 = 1 << 16;
/// A daemon that writes has written lines that the head does not know yet. So long it is waited for, ...
const LOOKS: u32 = 20;
/// ... and so long between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

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
    /// The last line has no end.
    #[error("{}, line {line}: it does not end", file.display())]
    NotEnded {
        /// File.
        file: PathBuf,
        /// Line in it.
        line: u64,
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
        "the record ends at line {found}, and its head stays at line {head}: lines were added, or a daemon was killed while it wrote \
         and has not been started since"
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

impl Wrong {
    /// Whether it may be right a moment later: a daemon is writing, or removes its oldest file.
    fn may_pass(&self) -> bool {
        match self {
            Self::Added { .. } | Self::NotEnded { .. } => true,
            Self::Unreadable { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// Verifies a directory with its head, or one file by itself. A daemon may write meanwhile.
///
/// # Errors
/// See [`Wrong`].
pub fn verify(path: &Path) -> Result<Verdict, Wrong> {
    let is_dir =
        path.metadata().map_err(|source| Wrong::Unreadable { path: path.to_owned(), source })?.is_dir();
    let look = || if is_dir { directory(path) } else { one_file(path) };
    for _ in 1..LOOKS {
        match look() {
            Err(why) if why.may_pass() => std::thread::sleep(BETWEEN_LOOKS),
            done => return done,
        }
    }
    look()
}

fn one_file(path: &Path) -> Result<Verdict, Wrong> {
    let mut chain = Chain::default();
    chain.file(path)?;
    chain.verdict(path, false)
}

/// The head comes first: lines are written before it, so that whatever it names is there.
fn directory(path: &Path) -> Result<Verdict, Wrong> {
    let head = read_head(path);
    let files = files(path)?;
    if files.is_empty() {
        return Err(Wrong::None(path.to_owned()));
    }
    let head = head?;
    let mut chain = Chain {
        next: files.first().filter(|first| **first == 1).map(|_| Head::none()),
        first: None,
        named: Some(head.number),
        at_named: None,
    };
    for number in &files {
        chain.file(&path.join(file_name(*number)))?;
    }
    let at_head = chain.at_named.take();
    let verdict = chain.verdict(path, true)?;
    if verdict.last.number < head.number {
        return Err(Wrong::CutOff { found: verdict.last.number, head: head.number });
    }
    if head.number > 0 && head.number < verdict.first {
        // Its file went as the oldest one, while the others were read.
        return Err(Wrong::Added { found: verdict.last.number, head: head.number });
    }
    if head.number > 0 && at_head != Some(head.digest) {
        return Err(Wrong::Changed(head.number));
    }
    if verdict.last.number > head.number {
        // Lines that came since follow from that one; the head names them, too, if it was a daemon that wrote them.
        let head = read_head(path)?;
        if verdict.last.number > head.number {
            return Err(Wrong::Added { found: verdict.last.number, head: head.number });
        }
        if verdict.last.number == head.number && verdict.last.digest != head.digest {
            return Err(Wrong::Changed(head.number));
        }
    }
    Ok(verdict)
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
    /// Number of a line whose digest is wanted, and that digest once it came.
    named: Option<u64>,
    at_named: Option<DigestText>,
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
            match text.split_last() {
                None => break,
                Some((b'\n', text)) => self.line(path, line, text)?,
                Some(_) => return Err(Wrong::NotEnded { file: path.to_owned(), line }),
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
        let digest = digest(text);
        if self.named == Some(read.number) {
            self.at_named = Some(digest.clone());
        }
        self.next = Some(Head { number: read.number, digest });
        Ok(())
    }

    fn verdict(self, path: &Path, against_head: bool) -> Result<Verdict, Wrong> {
        match (self.first, self.next) {
            (Some(first), Some(last)) => Ok(Verdict { first, last, against_head }),
            _ => Err(Wrong::None(path.to_owned())),
        }
    }
}
