//! What is wrong with a configuration file.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{file}: cannot be read: {why}; give the path of a configuration file that this user may read",
        file = file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why, as the operating system says.
        #[source]
        why: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{file}: is larger than {most} bytes; this is not a configuration file of qkdd", file = file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// Most bytes that are read.
        most: u64,
    },
    /// The file says something that it must not say. Every problem is listed, one a line.
    #[error("{}", lines(.0))]
    Wrong(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// One problem and its place. Shown as `file:line:column: what is wrong and what would be right`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.message)
    }
}
