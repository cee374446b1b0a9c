//! Processes: started, read, and never left behind.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// Lines of a process that wait to be looked at; older ones are only in its log.
const MOST_WAITING: usize = 4096;
/// Octets of the longest line that is taken.
const LONGEST_LINE: u64 = 8 << 20;
/// Time between two looks at a process that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Lines of a log that are shown when something failed.
const LAST_LINES: usize = 12;
/// Time that a process has between SIGTERM and SIGKILL when everything is being given up.
const LAST_RESPITE: Duration = Duration::from_secs(5);

/// A process did not do what it is there for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("cannot start {name}: {source}")]
    Start { name: &'static str, source: io::Error },
    #[error("{name} ended early: {status}")]
    Ended { name: &'static str, status: ExitStatus },
    #[error("{name} did not {what} within {} s", .within.as_secs())]
    Late { name: &'static str, what: &'static str, within: Duration },
    #[error("{name} ended with {status}, which is not success")]
    Failed { name: &'static str, status: ExitStatus },
    #[error("{name}: {source}")]
    Io { name: &'static str, source: io::Error },
}

type Lines = Arc<Mutex<VecDeque<String>>>;

/// A running process. Dropping it kills it.
pub(crate) struct Process {
    pub(crate) name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts a process; both its outputs go to `NAME.log` in `directory`, and its standard output can be read.
    pub(crate) fn start(
        name: &'static str,
        mut command: Command,
        directory: &Path,
    ) -> Result<Self, ProcessError> {
        let error = |source| ProcessError::Start { name, source };
        let log = directory.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).map_err(error)?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file.try_clone().map_err(error)?)
            // Ctrl-C is for whoever started them, who ends the processes in their order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(error)?;
        let stdin = child.stdin.take();
        let lines = Lines::default();
        if let Some(out) = child.stdout.take() {
            tokio::spawn(read_lines(out, file, Arc::clone(&lines)));
        }
        Ok(Self { name, child, stdin, lines, log, status: None })
    }

    /// Process ID, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The lines that it has written since the last call.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    /// Waits for a line that begins with `prefix` and gives what follows. Lines before it are passed over.
    pub(crate) async fn wait_line(
        &mut self,
        prefix: &str,
        what: &'static str,
        within: Duration,
    ) -> Result<String, ProcessError> {
        let until = Instant::now() + within;
        loop {
            let found = {
                let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
                std::iter::from_fn(|| lines.pop_front())
                    .find_map(|line| line.strip_prefix(prefix).map(|rest| rest.trim().to_owned()))
            };
            if let Some(rest) = found {
                return Ok(rest);
            }
            self.check_alive()?;
            if Instant::now() >= until {
                return Err(ProcessError::Late { name: self.name, what, within });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Says so if it has ended.
    pub(crate) fn check_alive(&mut self) -> Result<(), ProcessError> {
        let status = self.child.try_wait().map_err(|source| ProcessError::Io { name: self.name, source })?;
        match status {
            None => Ok(()),
            Some(status) => {
                self.status = Some(status);
                Err(ProcessError::Ended { name: self.name, status })
            }
        }
    }

    /// Writes a line to its standard input.
    pub(crate) async fn tell(&mut self, line: &str) -> Result<(), ProcessError> {
        let name = self.name;
        let error = |source| ProcessError::Io { name, source };
        let stdin = self.stdin.as_mut().ok_or_else(|| error(io::ErrorKind::BrokenPipe.into()))?;
        stdin.write_all(format!("{line}\n").as_bytes()).await.map_err(error)?;
        stdin.flush().await.map_err(error)
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends it a signal. False: it has ended, or cannot be signalled.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let Some(id) = id.filter(|_| self.status.is_none()) else { return false };
        kill(Pid::from_raw(id), signal)
            .inspect_err(|error| log::warn!("{} could not be sent {signal}: {error}", self.name))
            .is_ok()
    }

    /// Kills it where it stands (SIGKILL) and waits until it is gone. False: it had ended before.
    pub(crate) async fn kill(&mut self) -> Result<bool, ProcessError> {
        let name = self.name;
        let error = |source| ProcessError::Io { name, source };
        if self.status.is_some() || self.child.try_wait().map_err(error)?.is_some() {
            return Ok(false);
        }
        self.child.kill().await.map_err(error)?;
        self.status = self.child.try_wait().map_err(error)?;
        Ok(true)
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, ProcessError> {
        match self.check_alive() {
            Ok(()) => Ok(None),
            Err(ProcessError::Ended { status, .. }) => Ok(Some(status)),
            Err(error) => Err(error),
        }
    }

    /// Waits until it has ended, with success.
    pub(crate) async fn finish(&mut self, within: Duration) -> Result<(), ProcessError> {
        let name = self.name;
        let status = match self.status {
            Some(status) => status,
            None => tokio::time::timeout(within, self.child.wait())
                .await
                .map_err(|_| ProcessError::Late { name, what: "end", within })?
                .map_err(|source| ProcessError::Io { name, source })?,
        };
        self.status = Some(status);
        if status.success() { Ok(()) } else { Err(ProcessError::Failed { name, status }) }
    }

    /// Ends it, by force if need be.
    pub(crate) async fn end(&mut self) {
        self.terminate();
        if self.finish(LAST_RESPITE).await.is_err()
            && self.status.is_none()
            && let Err(error) = self.child.kill().await
        {
            log::warn!("{} could not be killed: {error}", self.name);
        }
    }

    /// The end of its log.
    pub(crate) fn last_lines(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('{')).collect();
        let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default();
        last.iter().map(|line| format!("  {}: {line}\n", self.name)).collect()
    }
}

async fn read_lines(out: tokio::process::ChildStdout, mut log: File, lines: Lines) {
    use tokio::io::AsyncReadExt;
    let mut out = BufReader::new(out);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut out).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // The log is for the user; without it the run still can be judged.
        let _ = log.write_all(&line);
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= MOST_WAITING {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(future)
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn gone(id: u32) -> bool {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            match std::fs::read_to_string(format!("/proc/{id}/stat")) {
                Err(_) => return true,
                // Killed, and only its parent has not asked for it yet.
                Ok(stat) if stat.contains(") Z ") => return true,
                Ok(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
        false
    }

    #[test]
    fn a_process_left_behind_is_caught() {
        let directory = tempfile::tempdir().expect("directory");
        let dropped = run(async {
            let process =
                Process::start("sleeper", shell("exec sleep 600"), directory.path()).expect("starts");
            process.id().expect("runs")
        });
        assert!(gone(dropped), "it lives on after being dropped");
        let panicked = std::panic::catch_unwind(|| {
            run(async {
                let process =
                    Process::start("sleeper", shell("exec sleep 600"), directory.path()).expect("starts");
                std::panic::panic_any(process.id().expect("runs"))
            })
        });
        let id: u32 = *panicked.expect_err("panics").downcast().expect("the ID");
        assert!(gone(id), "it lives on after a panic");
        let stubborn = run(async {
            let mut process = Process::start(
                "stubborn",
                shell("trap '' TERM; echo up; while :; do sleep 0.1; done"),
                directory.path(),
            )
            .expect("starts");
            process.wait_line("up", "come up", Duration::from_secs(20)).await.expect("line");
            let id = process.id().expect("runs");
            process.end().await;
            id
        });
        assert!(gone(stubborn), "it lives on although it was to be ended");
    }

    #[test]
    fn a_process_that_ends_early_or_says_nothing_is_told_with_its_log() {
        let directory = tempfile::tempdir().expect("directory");
        run(async {
            let mut process =
                Process::start("early", shell("echo no luck >&2; exit 3"), directory.path()).expect("starts");
            let error =
                process.wait_line("ready", "get ready", Duration::from_secs(20)).await.expect_err("ended");
            assert!(matches!(error, ProcessError::Ended { .. }), "{error}");
            assert!(process.last_lines().contains("no luck"));
            let mut process =
                Process::start("mute", shell("exec sleep 600"), directory.path()).expect("starts");
            let error =
                process.wait_line("ready", "get ready", Duration::from_millis(100)).await.expect_err("late");
            assert!(matches!(error, ProcessError::Late { .. }), "{error}");
        });
    }
}
