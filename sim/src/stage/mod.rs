//! The whole system on one machine, as real processes on loopback: two cards on one link, two daemons with a proxy
//! between them, two KMSs. What is shown with it, or done to it, is for others to say.

pub(crate) mod cast;
mod configuration;
pub(crate) mod picture;
pub(crate) mod process;
pub(crate) mod proxy;
mod say;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use process::ProcessError;
pub(crate) use say::Say;

/// The stage cannot be set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    #[error(
        "the daemon {path} is not there; build it with `cargo build -p qkd-daemon --bin qkdd` (with --release if this \
         program was), or name it with --qkdd"
    )]
    NoDaemon { path: PathBuf },
    #[error("cannot use {path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("{0} is not empty: name a new directory with --keep")]
    NotEmpty(PathBuf),
    #[error("cannot listen on loopback: {0}")]
    Ports(io::Error),
    #[error("cannot run at all: {0}")]
    Runtime(io::Error),
    #[error("qkdd said it is ready, but not as expected: `{line}`")]
    Strange { line: String },
    #[error(transparent)]
    Certificates(#[from] crate::lab::LabError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("interrupted")]
    Interrupted,
}

/// Where things are.
pub(crate) struct Places {
    pub(crate) directory: PathBuf,
    pub(crate) sim: PathBuf,
    pub(crate) qkdd: PathBuf,
    /// Removes the directory when it is dropped, unless the user wants to keep it.
    temporary: Option<tempfile::TempDir>,
}

impl Places {
    /// A new directory that only this user can look into, named or temporary, and the programs: this one, and `qkdd` as
    /// named or beside this one. `prefix` is for the temporary directory's name.
    ///
    /// # Errors
    /// See [`StageError`].
    pub(crate) fn new(prefix: &str, keep: Option<&Path>, qkdd: Option<&Path>) -> Result<Self, StageError> {
        let sim = std::env::current_exe().map_err(StageError::Runtime)?;
        let qkdd = qkdd.map_or_else(|| sim.with_file_name("qkdd"), Path::to_owned);
        if !qkdd.is_file() {
            return Err(StageError::NoDaemon { path: qkdd });
        }
        let Some(path) = keep else {
            let error = |source| StageError::Directory { path: std::env::temp_dir(), source };
            let temporary = tempfile::Builder::new().prefix(prefix).tempdir().map_err(error)?;
            return Ok(Self {
                directory: temporary.path().to_owned(),
                sim,
                qkdd,
                temporary: Some(temporary),
            });
        };
        let error = |source| StageError::Directory { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(error)?;
        if path.read_dir().map_err(error)?.next().is_some() {
            return Err(StageError::NotEmpty(path.to_owned()));
        }
        Ok(Self { directory: path.canonicalize().map_err(error)?, sim, qkdd, temporary: None })
    }

    /// The history of the KMS at `end`.
    pub(crate) fn history(&self, end: usize) -> PathBuf {
        self.directory.join(["a.history", "b.history"].get(end).copied().unwrap_or("history"))
    }

    /// The directory of the ledger of the daemon at `end`.
    pub(crate) fn ledger(&self, end: usize) -> PathBuf {
        self.directory.join(["ledger-a", "ledger-b"].get(end).copied().unwrap_or("ledger"))
    }

    /// Keeps the directory from being removed, and says where it is if that was not known.
    pub(crate) fn keep(&mut self) -> Option<PathBuf> {
        self.temporary.take().map(tempfile::TempDir::keep)
    }
}

/// Signals that end everything early.
pub(crate) struct Interruption(Vec<tokio::signal::unix::Signal>);

impl Interruption {
    pub(crate) fn new() -> io::Result<Self> {
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .map(|number| {
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(number as i32))
            })
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// Waits for one of them.
    pub(crate) async fn wait(&mut self) {
        let waiting = self.0.iter_mut().map(|signal| Box::pin(signal.recv()));
        let _ = futures_util::future::select_all(waiting).await;
    }
}
