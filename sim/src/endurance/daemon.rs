//! A daemon that is killed, stopped and started again.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::stage::cast::{Cast, END_WITHIN, Script};
use crate::stage::process::ProcessError;
use crate::stage::{Places, StageError};

/// How long a daemon is left alone that has ended by itself, as a service manager would.
const RESPITE: Duration = Duration::from_millis(500);
/// Longest time until a daemon that was started again says that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What becomes of the ledger before the next start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ledger {
    #[default]
    Stays,
    Lost,
    Restored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// It runs, and has said that it is ready.
    Ready,
    /// It was started and is not ready yet.
    Starting { since: Instant },
    /// It was asked to end, and is to be down for so long then.
    Ending { since: Instant, down: Duration },
    /// It is down.
    Down { until: Instant },
}

/// The daemon at one end.
pub(super) struct Daemon {
    end: usize,
    condition: Condition,
    frozen_until: Option<Instant>,
    ledger: Ledger,
    /// There is a backup of its ledger.
    backed_up: bool,
    /// How often it was killed while it ran.
    pub(super) kills: u64,
}

impl Daemon {
    pub(super) const fn new(end: usize) -> Self {
        Self {
            end,
            condition: Condition::Ready,
            frozen_until: None,
            ledger: Ledger::Stays,
            backed_up: false,
            kills: 0,
        }
    }

    /// True if nothing is done to it any more, and it is ready.
    pub(super) fn whole(&self) -> bool {
        self.condition == Condition::Ready && self.frozen_until.is_none()
    }

    const fn runs(&self) -> bool {
        matches!(self.condition, Condition::Ready | Condition::Starting { .. } | Condition::Ending { .. })
    }

    /// kill -9. False: it is down already, or there is no backup that its ledger could be replaced by.
    pub(super) async fn kill(
        &mut self,
        cast: &mut Cast,
        down: Duration,
        ledger: Ledger,
    ) -> Result<bool, ProcessError> {
        let Some(process) = cast.daemons.get_mut(self.end).filter(|_| self.runs()) else { return Ok(false) };
        if ledger == Ledger::Restored && !self.backed_up {
            return Ok(false);
        }
        if !process.kill().await? {
            return Ok(false);
        }
        self.frozen_until = None;
        self.condition = Condition::Down { until: Instant::now() + down };
        self.ledger = ledger;
        self.kills += 1;
        Ok(true)
    }

    /// SIGTERM. False: it does not run, or is asked already.
    pub(super) fn terminate(&mut self, cast: &Cast, down: Duration) -> bool {
        // Before it is ready it may still end as by default.
        let able = self.condition == Condition::Ready;
        let done = able && cast.daemons.get(self.end).is_some_and(|process| process.signal(Signal::SIGTERM));
        if done {
            self.condition = Condition::Ending { since: Instant::now(), down };
        }
        done
    }

    /// SIGSTOP for so long. False: it does not run.
    pub(super) fn freeze(&mut self, cast: &Cast, lasts: Duration) -> bool {
        let done =
            self.runs() && cast.daemons.get(self.end).is_some_and(|process| process.signal(Signal::SIGSTOP));
        if done {
            self.frozen_until = Some(Instant::now() + lasts);
        }
        done
    }

    /// Does what is due. Gives a complaint if the daemon did what it must not.
    pub(super) fn look(
        &mut self,
        cast: &mut Cast,
        script: &Script,
        places: &Places,
    ) -> Result<Option<String>, StageError> {
        let now = Instant::now();
        let name = if self.end == 0 { "A" } else { "B" };
        if let Condition::Down { until } = self.condition {
            if now >= until {
                let ledger = std::mem::take(&mut self.ledger);
                prepare(ledger, self.backed_up, places, self.end)?;
                self.backed_up |= ledger == Ledger::Stays;
                let process = cast.start_daemon(script, places, self.end)?;
                if let Some(place) = cast.daemons.get_mut(self.end) {
                    *place = process;
                }
                self.condition = Condition::Starting { since: now };
            }
            return Ok(None);
        }
        let Some(process) = cast.daemons.get_mut(self.end) else { return Ok(None) };
        if self.frozen_until.is_some_and(|until| now >= until) {
            process.signal(Signal::SIGCONT);
            self.frozen_until = None;
        }
        if let Some(status) = process.ended()? {
            self.frozen_until = None;
            if let Condition::Ending { down, .. } = self.condition {
                self.condition = Condition::Down { until: now + down };
                return Ok(
                    (!status.success()).then(|| format!("daemon {name} ended on SIGTERM with {status}"))
                );
            }
            self.condition = Condition::Down { until: now + RESPITE };
            let complaint = format!("daemon {name} ended by itself with {status}:\n{}", process.last_lines());
            return Ok(Some(complaint));
        }
        match self.condition {
            Condition::Starting { since } => {
                if process.lines().iter().any(|line| line.starts_with("ready ")) {
                    self.condition = Condition::Ready;
                } else if self.frozen_until.is_none() && now > since + READY_WITHIN {
                    let within = READY_WITHIN;
                    return Err(ProcessError::Late { name: process.name, what: "get ready", within }.into());
                }
            }
            Condition::Ending { since, .. } if now > since + END_WITHIN => {
                let within = END_WITHIN;
                return Err(ProcessError::Late { name: process.name, what: "end", within }.into());
            }
            _ => {}
        }
        Ok(None)
    }
}

/// Puts the ledger into the state that it is to be found in. One that stays is backed up the first time.
fn prepare(ledger: Ledger, backed_up: bool, places: &Places, end: usize) -> Result<(), StageError> {
    let (place, backup) = (places.ledger(end), places.ledger(end).with_extension("backup"));
    let error = |source| StageError::Directory { path: place.clone(), source };
    match ledger {
        Ledger::Stays if !backed_up => copy(&place, &backup).map_err(error),
        Ledger::Stays => Ok(()),
        Ledger::Lost => empty(&place).map_err(error),
        Ledger::Restored => empty(&place).and_then(|()| copy(&backup, &place)).map_err(error),
    }
}

/// The ledger's files, and not the audit record's directory beside them, which no fault strikes.
fn files(directory: &Path) -> std::io::Result<Vec<std::fs::DirEntry>> {
    let mut files = Vec::new();
    for entry in directory.read_dir()? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push(entry);
        }
    }
    Ok(files)
}

fn empty(directory: &Path) -> std::io::Result<()> {
    files(directory)?.into_iter().try_for_each(|file| std::fs::remove_file(file.path()))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for file in files(from)? {
        std::fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}
