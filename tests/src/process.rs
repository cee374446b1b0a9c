//! A child process whose output is watched and that never outlives its test.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Lines of both outputs, in the order in which they came.
type Lines = Arc<(Mutex<(Vec<String>, usize)>, Condvar)>;

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    lines: Lines,
}

impl Process {
    /// Starts `command` with its outputs watched.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{name} cannot be started: {e}"));
        let lines = Lines::default();
        watch(child.stdout.take(), &lines);
        watch(child.stderr.take(), &lines);
        Self { name: name.into(), child, lines }
    }

    /// Writes a line to the program's standard input.
    pub fn tell(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("standard input is a pipe");
        writeln!(input, "{line}").expect("the program reads its input");
    }

    /// Waits for a line that holds `part`, also among those that came before, and answers it.
    ///
    /// # Panics
    /// When none comes within `deadline` or before the program ends; the panic shows what did come.
    #[must_use]
    pub fn line(&self, part: &str, deadline: Duration) -> String {
        self.nth_line(part, 0, deadline)
    }

    /// As [`Process::line`], passing over the first `skipped` of such lines.
    ///
    /// # Panics
    /// As [`Process::line`].
    #[must_use]
    pub fn nth_line(&self, part: &str, skipped: usize, deadline: Duration) -> String {
        let end = Instant::now() + deadline;
        let (mutex, changed) = &*self.lines;
        let (mut seen, mut left_out) = (0, skipped);
        let mut guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            for line in guard.0[seen..].iter().filter(|line| line.contains(part)) {
                if left_out == 0 {
                    return line.clone();
                }
                left_out -= 1;
            }
            seen = guard.0.len();
            let ended = guard.1 == 2;
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !ended && !left.is_zero(),
                "{}: no line with {part:?}{}:\n{}",
                self.name,
                if ended { " before it ended" } else { " in time" },
                guard.0.join("\n")
            );
            guard = changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Everything it has printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.lines.0.lock().unwrap_or_else(PoisonError::into_inner).0.join("\n")
    }

    /// Process ID.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap_or_else(|e| panic!("{} cannot be signalled: {e}", self.name));
    }

    /// Waits until both outputs have been read to their ends, which a grandchild may hold open.
    fn wait_for_output(&self, end: Instant) {
        let (mutex, changed) = &*self.lines;
        let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        let left = end.saturating_duration_since(Instant::now());
        let _ = changed.wait_timeout_while(guard, left, |lines| lines.1 < 2);
    }

    /// Waits for its end, and for the end of its outputs.
    ///
    /// # Panics
    /// When it does not end within `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                self.wait_for_output(end);
                return status;
            }
            assert!(Instant::now() < end, "{} did not end in time:\n{}", self.name, self.output());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} printed:\n{}", self.name, self.output());
        }
    }
}

fn watch(output: Option<impl Read + Send + 'static>, lines: &Lines) {
    let output = output.expect("the output is a pipe");
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { break };
            lines.0.lock().unwrap_or_else(PoisonError::into_inner).0.push(line);
            lines.1.notify_all();
        }
        lines.0.lock().unwrap_or_else(PoisonError::into_inner).1 += 1;
        lines.1.notify_all();
    });
}
