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
            .stdin(Stdio::piped())
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

    fn tell(&mut self, octets: &[u8]) {
        self.child.stdin.as_mut().unwrap().write_all(octets).unwrap();
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

/// A message to a socket, and the header and body of its answer.
fn call(stream: &mut UnixStream, message: &[u16]) -> ([u8; 16], Vec<u8>) {
    let octets: Vec<u8> = message.iter().flat_map(|word| word.to_le_bytes()).collect();
    stream.write_all(&octets).unwrap();
    let mut header = [0; 16];
    stream.read_exact(&mut header).unwrap();
    let size = u32::from_le_bytes(header[4..8].try_into().unwrap());
    let mut body = vec![0; size as usize - 16];
    stream.read_exact(&mut body).unwrap();
    (header, body)
}

/// A connection that has sent a vfio-user VERSION, and the error of its answer.
fn connect(socket: &Path) -> (UnixStream, u32) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (header, _) = call(&mut stream, &[1, 1, 20, 0, 0, 0, 0, 0, 0, 1]);
    // Memory Space Enable in the command register, or BAR 0 does not answer.
    call(&mut stream, &[2, 10, 34, 0, 0, 0, 0, 0, 4, 0, 0, 0, 7, 0, 2, 0, 2]);
    (stream, u32::from_le_bytes(header[12..16].try_into().unwrap()))
}

fn greet(socket: &Path) -> u32 {
    connect(socket).1
}

/// A register of four octets in BAR 0.
fn register(socket: &Path, offset: u16) -> u32 {
    let (mut stream, error) = connect(socket);
    assert_eq!(error, 0);
    let (_, body) = call(&mut stream, &[2, 9, 32, 0, 0, 0, 0, 0, offset, 0, 0, 0, 0, 0, 4, 0]);
    u32::from_le_bytes(body[16..20].try_into().unwrap())
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
        &["--faults-from", "/no/such/file"],
    ] {
        let mut pair = Pair::start(folder.path(), more);
        assert!(!pair.exit().success(), "{more:?}");
        assert!(pair.lines.recv_timeout(PATIENCE).is_err(), "{more:?} printed something");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_fault_that_is_asked_for_has_struck_when_it_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.sock"), folder.path().join("b.sock"));
    let mut pair = Pair::start(folder.path(), &["--faults-from", "-"]);
    assert_eq!(pair.line(), "ready");
    let (mut before, _) = connect(&b);
    let magic = [3, 9, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0];
    assert_eq!(call(&mut before, &magic).1[16..20], *b"QKD1");
    pair.tell(b"  end=b   kind=gone for=1h \n");
    assert_eq!(pair.line(), "fault done end=b kind=gone for=1h");
    assert_eq!(call(&mut before, &magic).1[16..20], [0xFF; 4]);
    pair.tell(b"end=a kind=temperature\n");
    assert_eq!(pair.line(), "fault done end=a kind=temperature");
    assert_eq!(register(&a, 0x44), 6, "FAULT");
    assert!(pair.end(Signal::SIGTERM).success());
}

#[test]
fn a_fault_for_later_is_answered_later_and_holds_up_none_for_now() {
    let folder = tempfile::tempdir().unwrap();
    let mut pair = Pair::start(folder.path(), &["--faults-from", "-"]);
    assert_eq!(pair.line(), "ready");
    pair.tell(b"at=1h kind=tamper\nat=1s end=a kind=internal\nend=b kind=internal\n");
    assert_eq!(pair.line(), "fault done end=b kind=internal");
    assert_eq!(pair.line(), "fault done at=1s end=a kind=internal");
    assert!(pair.end(Signal::SIGTERM).success());
}

#[test]
fn lines_that_are_no_fault_are_refused_one_by_one_and_the_end_of_the_input_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut pair = Pair::start(folder.path(), &["--faults-from", "-"]);
    assert_eq!(pair.line(), "ready");
    pair.tell(b"\nkind=nonsense\nend=a\n\xFF\n");
    pair.tell(&[&[b'x'; 100_000][..], b"\nkind=realign"].concat());
    for part in ["kind is missing", "nonsense", "kind is missing", "not UTF-8", "more than 1024 octets"] {
        let line = pair.line();
        assert!(line.starts_with("fault refused: ") && line.contains(part), "{line} for {part}");
    }
    drop(pair.child.stdin.take());
    assert_eq!(pair.line(), "fault done kind=realign", "the last line has no end of its own");
    assert_eq!(greet(&folder.path().join("a.sock")), 0);
    assert!(pair.end(Signal::SIGTERM).success());
}

#[test]
fn one_writer_of_a_fifo_follows_another() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("faults");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut pair = Pair::start(folder.path(), &["--faults-from", fifo.to_str().unwrap()]);
    assert_eq!(pair.line(), "ready");
    for kind in ["outage", "realign"] {
        std::fs::write(&fifo, format!("kind={kind} for=1ms\n")).unwrap();
        assert_eq!(pair.line(), format!("fault done kind={kind} for=1ms"));
    }
    assert!(pair.end(Signal::SIGTERM).success());
}

#[test]
fn every_one_of_many_faults_is_answered_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut pair = Pair::start(folder.path(), &["--faults-from", "-"]);
    let many = 1_000;
    let mut input = pair.child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all("kind=self-test\n".repeat(many).as_bytes()));
    let answered = std::iter::repeat_with(|| pair.line()).filter(|line| line == "fault done kind=self-test");
    assert_eq!(answered.take(many).count(), many);
    writer.join().unwrap().unwrap();
    assert!(pair.end(Signal::SIGTERM).success());
}
