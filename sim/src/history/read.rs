//! Reads a history line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::record::{Header, Line, VERSION};

/// Octets of the longest line that is taken.
const LONGEST_LINE: u64 = 16 << 20;

/// A history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("cannot read the history {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is not one line in it.
    #[error("the history {path} is empty: its KMS recorded nothing")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Its first line is no header.
    #[error("{path} is not a history: its first line must be {{\"kind\":\"history\",…}} ({why})")]
    NotAHistory {
        /// The file.
        path: PathBuf,
        /// What is wrong with the line.
        why: String,
    },
    /// It was written by another version.
    #[error("{path} has format version {found}; this program reads version {VERSION}")]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A line other than the last is damaged.
    #[error("{path}, line {line}: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// A history that is being read.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    header: Header,
    input: BufReader<File>,
    buffer: Vec<u8>,
    line: u64,
    cut_short: bool,
}

impl Reader {
    /// Opens a history and reads its header.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let io = |source| ReadError::Io { path: path.to_owned(), source };
        let mut input = BufReader::with_capacity(1 << 16, File::open(path).map_err(io)?);
        let mut buffer = Vec::new();
        let length = input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut buffer).map_err(io)?;
        if length == 0 {
            return Err(ReadError::Empty { path: path.to_owned() });
        }
        let no_history = |why: String| ReadError::NotAHistory { path: path.to_owned(), why };
        // The version comes first: another version may have another header.
        let value: serde_json::Value =
            serde_json::from_slice(&buffer).map_err(|e| no_history(e.to_string()))?;
        if value.get("kind").and_then(|kind| kind.as_str()) != Some("history") {
            return Err(no_history("it has another kind".into()));
        }
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                let found = u32::try_from(version).unwrap_or(u32::MAX);
                return Err(ReadError::OtherVersion { path: path.to_owned(), found });
            }
            None => return Err(no_history("it has no version".into())),
        }
        let Line::History(header) = serde_json::from_value(value).map_err(|e| no_history(e.to_string()))?
        else {
            return Err(no_history("it has another kind".into()));
        };
        Ok(Self { path: path.to_owned(), header, input, buffer, line: 1, cut_short: false })
    }

    /// What the history is about.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Number of the line read last.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// True if the last line was found cut short, as a crash of its KMS leaves it; it has been left out.
    #[must_use]
    pub fn cut_short(&self) -> bool {
        self.cut_short
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read, or a line with another one after it is damaged.
    pub fn next_line(&mut self) -> Result<Option<Line>, ReadError> {
        self.buffer.clear();
        let read = self.input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut self.buffer);
        let length = read.map_err(|source| ReadError::Io { path: self.path.clone(), source })?;
        if length == 0 {
            return Ok(None);
        }
        self.line += 1;
        let damaged = |why: String| ReadError::Damaged { path: self.path.clone(), line: self.line, why };
        if self.buffer.last() != Some(&b'\n') {
            if self.buffer.len() as u64 >= LONGEST_LINE {
                return Err(damaged(format!("longer than {LONGEST_LINE} octets")));
            }
            self.cut_short = true;
            return Ok(None);
        }
        match serde_json::from_slice(&self.buffer) {
            Ok(Line::History(_)) => Err(damaged("a second header: two histories were put together".into())),
            Ok(line) => Ok(Some(line)),
            Err(error) => Err(damaged(error.to_string())),
        }
    }
}
