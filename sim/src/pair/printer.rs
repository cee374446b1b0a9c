//! Lines on standard output, written by a thread of its own: whoever reads them slowly must not hold up the cards.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Lines that are on their way to the thread at most.
const ON_THE_WAY: usize = 16;
/// Answers that wait for a slow reader before [`Printer::has_room`] says no.
const ANSWERS_MAX: usize = 64;

/// What is to be printed.
pub(crate) struct Printer {
    /// `None` once nobody reads any more.
    lines: Option<SyncSender<Vec<u8>>>,
    answers: VecDeque<Vec<u8>>,
}

impl Printer {
    pub(crate) fn start() -> Self {
        let (lines, incoming) = sync_channel(ON_THE_WAY);
        std::thread::spawn(move || print(&incoming));
        Self { lines: Some(lines), answers: VecDeque::new() }
    }

    /// Prints a line that may be left out: a reader who does not keep up misses it.
    pub(crate) fn status(&mut self, line: Vec<u8>) {
        self.pass_on();
        if self.answers.is_empty() {
            self.send(line);
        }
    }

    /// Prints a line that somebody waits for.
    pub(crate) fn answer(&mut self, line: Vec<u8>) {
        self.answers.push_back(line);
        self.pass_on();
    }

    /// Whether more answers may be made. Call it again later: it also passes on those that wait.
    pub(crate) fn has_room(&mut self) -> bool {
        self.pass_on();
        self.answers.len() < ANSWERS_MAX
    }

    fn pass_on(&mut self) {
        while let Some(line) = self.answers.pop_front() {
            if let Some(line) = self.send(line) {
                self.answers.push_front(line);
                return;
            }
        }
    }

    /// Gives the line back when the reader does not keep up.
    fn send(&mut self, line: Vec<u8>) -> Option<Vec<u8>> {
        match self.lines.as_ref()?.try_send(line) {
            Ok(()) => None,
            Err(TrySendError::Full(line)) => Some(line),
            Err(TrySendError::Disconnected(_)) => {
                self.lines = None;
                None
            }
        }
    }
}

fn print(incoming: &Receiver<Vec<u8>>) {
    for line in incoming {
        let mut out = io::stdout().lock();
        if let Err(error) = out.write_all(&line).and_then(|()| out.flush()) {
            log::warn!("nobody reads the output: {error}");
            return;
        }
    }
}
