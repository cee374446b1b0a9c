//! Asking the daemon.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use qkd_daemon::operator::outcome::{Outcome, Own};
use qkd_daemon::operator::protocol::{Answer, LONGEST_ANSWER, Request, line, parse};
use qkd_daemon::operator::socket;

/// Longest silence of the daemon; it answers sooner, also where zeroizing takes the card long.
const PATIENCE: Duration = Duration::from_secs(70);
/// Where systemd has the sockets, one folder for each instance.
const SOCKETS: &str = "/run/qkd";

/// A daemon, by its socket.
pub(crate) struct Daemon {
    path: PathBuf,
}

impl Daemon {
    /// The one that is meant; otherwise says what is missing.
    pub(crate) fn of(given: Option<PathBuf>) -> Result<Self, ExitCode> {
        if let Some(path) = socket(given) {
            return Ok(Self { path });
        }
        let found = in_folder(Path::new(SOCKETS));
        match found.as_slice() {
            [only] => Ok(Self { path: only.clone() }),
            [] => {
                eprintln!(
                    "qkdctl: no daemon has a socket below {SOCKETS}: give --socket PATH, operator.socket of its configuration"
                );
                Err(ExitCode::from(2))
            }
            several => {
                let names: Vec<_> = several.iter().map(|path| path.display().to_string()).collect();
                eprintln!("qkdctl: give --socket with one of these: {}", names.join(", "));
                Err(ExitCode::from(2))
            }
        }
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&self, request: &Request) -> Outcome {
        match self.try_to_ask(request) {
            Ok(answer) => Outcome::Daemon(answer),
            Err(why) => Outcome::Own(Own::NotRunning {
                reason: format!("the daemon at {} cannot be asked: {why}", self.path.display()),
            }),
        }
    }

    fn try_to_ask(&self, request: &Request) -> Result<Answer, Box<dyn std::error::Error>> {
        let mut stream = UnixStream::connect(&self.path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // A daemon that refuses whoever calls answers before it has read anything.
        let sent = stream.write_all(line(request)?.as_bytes());
        let mut text = Vec::new();
        let most = u64::try_from(LONGEST_ANSWER)?;
        BufReader::new(stream.take(most)).read_until(b'\n', &mut text)?;
        if text.is_empty() {
            sent?;
            return Err("it has closed the connection without an answer; look at its log".into());
        }
        Ok(parse(&text)?)
    }
}

fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let sockets = entries.flatten().map(|entry| entry.path().join("qkdd.ctl"));
    let mut found: Vec<PathBuf> = sockets.filter(|path| path.exists()).collect();
    found.sort();
    found
}
