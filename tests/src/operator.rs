//! What an operator has: `qkdctl`, and the HTTP listener of a daemon that `Ends` has started.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::DEADLINE;
use crate::ends::Ends;
use crate::programs::program;

/// Has both daemons serve their page, wherever there is room.
pub const PAGE: &str = "[operator]\nhttp = \"127.0.0.1:0\"";

/// What a command of `qkdctl` came to.
#[derive(Debug)]
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs `qkdctl` to its end.
///
/// # Panics
/// When it cannot be run, or is ended by a signal.
#[must_use]
pub fn qkdctl(socket: &Path, arguments: &[&str]) -> Said {
    let done = Command::new(program("qkdctl"))
        .arg("--socket")
        .arg(socket)
        .args(arguments)
        .output()
        .expect("qkdctl runs");
    let text = |octets: Vec<u8>| String::from_utf8(octets).expect("text");
    Said { code: done.status.code().expect("an exit code"), out: text(done.stdout), err: text(done.stderr) }
}

/// Starts the daemon at `end` anew, with a directory for its socket as systemd would give it; answers the socket.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn with_socket(ends: &mut Ends, end: usize) -> PathBuf {
    let folder = ends.cards.folder.path().join(format!("run-{end}"));
    std::fs::create_dir(&folder).expect("a folder for the socket");
    ends.terminate(end);
    ends.start_module_by(end, &["env", &format!("RUNTIME_DIRECTORY={}", folder.display())]);
    let _ = ends.module(end).process.line("operators are served", DEADLINE);
    folder.join("qkdd.ctl")
}

/// Where the daemon at `end` serves its page.
///
/// # Panics
/// When it does not say so in time.
#[must_use]
pub fn page_of(ends: &Ends, end: usize) -> SocketAddr {
    let line = ends.module(end).process.line("status page and metrics are served at", DEADLINE);
    let url = line.rsplit("http://").next().unwrap_or_default();
    url.trim().trim_end_matches('/').parse().unwrap_or_else(|_| panic!("no address in {line:?}"))
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub code: u16,
    /// Head, in small letters.
    pub head: String,
    /// Body.
    pub body: String,
}

/// Sends a request head as it stands and reads the answer to its end.
///
/// # Panics
/// When no answer comes in time.
#[must_use]
pub fn send(to: SocketAddr, head: &str) -> Answer {
    let mut stream = TcpStream::connect_timeout(&to, DEADLINE).expect("it takes connections");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket has deadlines");
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers in time");
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { code, head: head.to_lowercase(), body: body.to_owned() }
}

/// Gets a path of the page's listener.
///
/// # Panics
/// When no answer comes in time.
#[must_use]
pub fn get(to: SocketAddr, path: &str) -> Answer {
    send(to, &format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n"))
}

/// The value of one series in `/metrics`, by its name with its labels.
///
/// # Panics
/// When it is no number.
#[must_use]
pub fn series(metrics: &str, name: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().expect("a number"))
}
