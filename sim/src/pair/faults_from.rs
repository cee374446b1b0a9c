//! Faults that are asked for while the pair runs: one on each line of a file, a FIFO or standard input.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use super::printer::Printer;
use crate::lines::{self, Line};
use crate::link::CardPair;
use crate::plan::{Fault, FaultText};

/// Lines that are read ahead.
const AHEAD: usize = 16;
/// Faults that may wait for their time.
const WAITING_MAX: usize = 1024;

/// Where the faults come from cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("--faults-from {path}: {error}")]
pub(crate) struct BadSource {
    path: PathBuf,
    error: io::Error,
}

/// Faults on their way from whoever asks for them to the pair.
pub(crate) struct FaultsFrom {
    /// `None` after the end of the input, which ends nothing else.
    lines: Option<Receiver<Line>>,
    /// Faults that have not struck, with their time and their words.
    waiting: Vec<(u64, String)>,
}

impl FaultsFrom {
    /// Reads lines from `path`, or from standard input if it is `-`. A FIFO is held open, so that one writer may follow
    /// another.
    pub(crate) fn open(path: &Path) -> Result<Self, BadSource> {
        let (sender, lines) = sync_channel(AHEAD);
        lines::follow(path, move |line| sender.send(line).is_ok())
            .map_err(|error| BadSource { path: path.into(), error })?;
        Ok(Self { lines: Some(lines), waiting: Vec::new() })
    }

    /// Plans what has been asked for since the last call, and tells whether that was anything. `now` is the pair's clock
    /// in microseconds.
    pub(crate) fn take(&mut self, pair: &mut CardPair, now: u64, printer: &mut Printer) -> bool {
        let mut taken = false;
        while printer.has_room() {
            let line = match self.lines.as_ref().map(Receiver::try_recv) {
                Some(Ok(line)) => line,
                Some(Err(TryRecvError::Disconnected)) => {
                    self.lines = None;
                    break;
                }
                Some(Err(TryRecvError::Empty)) | None => break,
            };
            taken = true;
            if let Err(reason) = line.and_then(|line| self.plan(pair, now, line)) {
                printer.answer(format!("fault refused: {reason}\n").into_bytes());
            }
        }
        taken
    }

    fn plan(&mut self, pair: &mut CardPair, now: u64, line: String) -> Result<(), String> {
        let fault = Fault::from(FaultText::from_now(&line).map_err(|error| error.to_string())?);
        let at = now.saturating_add(fault.at);
        if self.waiting.len() >= WAITING_MAX || !pair.plan_fault(Fault { at, ..fault }) {
            return Err("too many faults wait for their time".into());
        }
        self.waiting.push((at, line));
        Ok(())
    }

    /// Answers what has struck by `now`. Call it after the cards were stepped at that time: what a fault makes a card
    /// show can be read by then.
    pub(crate) fn answer(&mut self, now: u64, printer: &mut Printer) {
        for (_, line) in self.waiting.extract_if(.., |(at, _)| *at <= now) {
            let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
            printer.answer(format!("fault done {words}\n").into_bytes());
        }
    }
}
