//! `qkd-sim pair` as a process: it says when it is ready, serves both cards, and ends when it is told to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(60);

struct Pair {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Pair {
    fn start(folder: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_qkd-sim"))
            .arg("pair")
            .arg("--socket-a")
            .arg(folder.join("a.sock"))
            .arg("--socket-b")
            .arg(folder.join("b.sock"))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line in time")
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
        self.exit()
    }

    fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the pair did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Only what this test started, and only when the test failed before it ended.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// A vfio-user VERSION, and the error of its answer.
fn greet(socket: &Path) -> u32 {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let message = [1_u16, 1, 20, 0, 0, 0, 0, 0, 0, 1].map(u16::to_le_bytes).concat();
    stream.write_all(&message).unwrap();
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).unwrap();
    u32::from_le_bytes(answer[12..16].try_into().unwrap())
}

#[test]
fn both_cards_can_be_reached_once_it_is_ready_and_the_sockets_go_with_it() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let folder = tempfile::tempdir().unwrap();
        let mut pair = Pair::start(folder.path(), &["--json", "--rate", "1M", "--key", "positional"]);
        assert_eq!(pair.line(), "ready");
        assert_eq!(greet(&folder.path().join("a.sock")), 0);
        assert_eq!(greet(&folder.path().join("b.sock")), 0);
        let status: serde_json::Value = serde_json::from_str(&pair.line()).unwrap();
        assert_eq!(status["cards"].as_array().unwrap().len(), 2);
        assert_eq!(status["cards"][1]["state"], "Stopped");
        assert!(pair.end(signal).success());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_pair_that_was_killed_is_followed_by_one_that_never_uses_its_sessions_again() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.toml");
    let more = ["--json", "--rate", "1M", "--state-file", state.to_str().unwrap()];
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let mut pair = Pair::start(folder.path(), &more);
        assert_eq!(pair.line(), "ready");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status: serde_json::Value = serde_json::from_str(&pair.line()).unwrap();
            let session = status["cards"][0]["session"].as_u64().unwrap();
            if session != 0 {
                sessions.push(session);
                break;
            }
            assert!(Instant::now() < deadline, "no session began");
        }
        assert!(!pair.end(Signal::SIGKILL).success());
    }
    assert!(sessions[1] > sessions[0], "{sessions:?}");
}

#[test]
fn what_cannot_be_served_is_refused_before_anything_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    for more in [
        &["--rate", "10G"][..],
        &["--loss-db", "99"],
        &["--block-max", "100"],
        &["--retention-bytes", "1"],
        &["--fault", "at=1s kind=nonsense"],
        &["--plan", "/no/such/plan"],
    ] {
        let mut pair = Pair::start(folder.path(), more);
        assert!(!pair.exit().success(), "{more:?}");
        assert!(pair.lines.recv_timeout(PATIENCE).is_err(), "{more:?} printed something");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
