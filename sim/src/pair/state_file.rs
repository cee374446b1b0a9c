//! What both cards remember, in a file or as long as the pair runs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::card::{NonVolatile, Remembered, WhileRunning};

/// The state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadState {
    /// It cannot be read or written.
    #[error("state file {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It says what no pair can have.
    #[error("state file {path}: {error}; mend it, or remove it and name new serials by doing so")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CardState {
    serial: u64,
    session_counter: u64,
    cell: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    a: CardState,
    b: CardState,
}

/// Serial numbers and memories of both cards.
pub(crate) struct Memories {
    pub(crate) serials: [u64; 2],
    pub(crate) memories: [(Remembered, Box<dyn NonVolatile>); 2],
}

impl Memories {
    /// From a file, made with the serials that `draw` gives when it does not exist yet; without one the cards
    /// remember only while the pair runs.
    ///
    /// Names must not come again even then, so the session counter begins at the tenths of a second since 1970:
    /// sessions come slower than that.
    pub(crate) fn load(path: Option<&Path>, mut draw: impl FnMut() -> u64) -> Result<Self, BadState> {
        // 62 bits: TOML numbers are signed.
        let mut serial = || draw() >> 2 | 1 << 32;
        let since_1970 =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() / 100);
        let session_counter = u64::try_from(since_1970).unwrap_or(0);
        let fresh = CardState { serial: 0, session_counter, cell: 0 };
        let fresh =
            State { a: CardState { serial: serial(), ..fresh }, b: CardState { serial: serial(), ..fresh } };
        let Some(path) = path else {
            let memory = |card: CardState| -> (Remembered, Box<dyn NonVolatile>) {
                (card.remembered(), Box::new(WhileRunning))
            };
            return Ok(Self {
                serials: [fresh.a.serial, fresh.b.serial],
                memories: [memory(fresh.a), memory(fresh.b)],
            });
        };
        let failed = |error| BadState::Io { path: path.into(), error };
        let state = match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|error| BadState::Content { path: path.into(), error: error.to_string() })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => fresh,
            Err(error) => return Err(failed(error)),
        };
        let file = StateFile { path: path.into(), state };
        file.write().map_err(failed)?;
        let shared = Arc::new(Mutex::new(file));
        let memory = |card: CardState, of_b| -> (Remembered, Box<dyn NonVolatile>) {
            (card.remembered(), Box::new(CardMemory { file: Arc::clone(&shared), of_b }))
        };
        Ok(Self {
            serials: [state.a.serial, state.b.serial],
            memories: [memory(state.a, false), memory(state.b, true)],
        })
    }
}

impl CardState {
    fn remembered(self) -> Remembered {
        Remembered { session_counter: self.session_counter, cell: self.cell }
    }
}

struct StateFile {
    path: PathBuf,
    state: State,
}

impl StateFile {
    /// Replaces the file as a whole, so that a kill at any moment leaves the old or the new one. The simulated
    /// memory outlives the program; it is not made to outlive a power cut of the host.
    fn write(&self) -> io::Result<()> {
        let text = toml::to_string(&self.state).map_err(io::Error::other)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
        file.write_all(text.as_bytes())?;
        file.persist(&self.path).map_err(|failed| failed.error)?;
        Ok(())
    }
}

struct CardMemory {
    file: Arc<Mutex<StateFile>>,
    of_b: bool,
}

impl NonVolatile for CardMemory {
    fn store(&mut self, remembered: Remembered) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let card = if self.of_b { &mut file.state.b } else { &mut file.state.a };
        card.session_counter = remembered.session_counter;
        card.cell = remembered.cell;
        file.write()
    }
}
