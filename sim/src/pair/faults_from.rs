//! Faults that are asked for while the pair runs: one on each line of a file, a FIFO or standard input.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use super::printer::Printer;
use crate::link::CardPair;
use crate::plan::{Fault, FaultText};

/// Octets that a line may have, without its end.
const LINE_MAX: usize = 1024;
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

/// A line, or why it cannot be one.
type Line = Result<String, String>;

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
        if path.as_os_str() == "-" {
            std::thread::spawn(move || read_lines(io::stdin().lock(), &sender));
        } else {
            let file = open(path).map_err(|error| BadSource { path: path.into(), error })?;
            std::thread::spawn(move || read_lines(BufReader::new(file), &sender));
        }
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

/// A FIFO is opened for writing too: so it is there without a writer, and its last writer's end is not the input's.
fn open(path: &Path) -> io::Result<File> {
    let is_fifo = std::fs::metadata(path)?.file_type().is_fifo();
    OpenOptions::new().read(true).write(is_fifo).open(path)
}

/// Sends lines until the end of the input or of the pair.
fn read_lines(mut input: impl BufRead, lines: &SyncSender<Line>) {
    loop {
        match next_line(&mut input) {
            Ok(Some(line)) => {
                if lines.send(line).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                log::warn!("faults cannot be read any more: {error}");
                return;
            }
        }
    }
}

/// The next line without its end, however the input goes on behind it; `None` at the end.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut octets = Vec::new();
    let limit = LINE_MAX as u64 + 1;
    if input.by_ref().take(limit).read_until(b'\n', &mut octets)? == 0 {
        return Ok(None);
    }
    if octets.last() == Some(&b'\n') {
        octets.pop();
    } else if octets.len() > LINE_MAX {
        input.skip_until(b'\n')?;
        return Ok(Some(Err(format!("a line of more than {LINE_MAX} octets"))));
    }
    Ok(Some(String::from_utf8(octets).map_err(|_| "a line that is not UTF-8".into())))
}

#[cfg(test)]
mod tests {
    use super::{LINE_MAX, next_line};

    fn lines(mut text: &[u8]) -> Vec<Result<String, String>> {
        std::iter::from_fn(|| next_line(&mut text).unwrap()).collect()
    }

    #[test]
    fn a_line_ends_where_it_ends_and_one_too_long_hides_none_behind_it() {
        let longest = "x".repeat(LINE_MAX);
        let text = format!("one\n\n{longest}\n{longest}y\nlast");
        let too_long = Err(format!("a line of more than {LINE_MAX} octets"));
        let expected = [Ok("one".into()), Ok(String::new()), Ok(longest), too_long, Ok("last".into())];
        assert_eq!(lines(text.as_bytes()), expected);
        assert_eq!(lines(b"\xFF\nnext\n"), [Err("a line that is not UTF-8".into()), Ok("next".into())]);
        assert_eq!(lines(b""), []);
        assert_eq!(lines(&vec![b'x'; 100 * LINE_MAX]).len(), 1);
    }
}
