//! `qkdctl`: the operator's command.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use qkd_daemon::arguments::qkdctl::{Args, Audit, Command};
use qkd_daemon::audit::verify;
use qkd_daemon::operator::protocol::{Answer, LONGEST_LINE, Request, line, parse};
use qkd_daemon::operator::socket;

/// Longest wait for the daemon's answer: longer than the daemon takes at most.
const PATIENCE: Duration = Duration::from_secs(70);

fn verify_audit(path: &Path) -> ExitCode {
    match verify(path) {
        Ok(verdict) => {
            println!("whole: lines {} to {}", verdict.first, verdict.last.number);
            println!("head: {}", verdict.last);
            if verdict.first > 1 {
                println!("lines below {} stood in files that are not here", verdict.first);
            }
            if !verdict.against_head {
                println!("whether lines are missing at the end can only be told of the whole directory");
            }
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("qkdctl: {wrong}");
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let request = match args.command {
        Command::Status => Request::Status,
        Command::Zeroize => Request::Zeroize,
        Command::Audit(Audit::Verify { path }) => return verify_audit(&path),
    };
    let Some(path) = socket(args.socket) else {
        eprintln!("qkdctl: give --socket PATH: operator.socket of the daemon's configuration");
        return ExitCode::from(2);
    };
    match ask(&path, &request) {
        Ok(answer) => say(&answer),
        Err(why) => {
            eprintln!("qkdctl: the daemon at {} cannot be asked: {why}", path.display());
            ExitCode::from(3)
        }
    }
}

fn ask(path: &Path, request: &Request) -> Result<Answer, Box<dyn std::error::Error>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A daemon that refuses whoever calls answers before it has read anything.
    let sent = stream.write_all(line(request)?.as_bytes());
    let mut text = Vec::new();
    let most = u64::try_from(LONGEST_LINE)?;
    BufReader::new(stream.take(most)).read_until(b'\n', &mut text)?;
    if text.is_empty() {
        sent?;
        return Err("it has closed the connection without an answer; look at its log".into());
    }
    Ok(parse(&text)?)
}

fn say(answer: &Answer) -> ExitCode {
    match answer {
        Answer::Status(status) => {
            println!("module {}, {}", status.module, status.role);
            println!("epoch {}, {}", status.epoch, if status.in_step { "in step" } else { "not in step" });
            println!("QKD link: {}", status.link);
            println!("key streams: {}", status.streams);
            println!("vault: {} bytes used", status.vault_bytes_used);
            ExitCode::SUCCESS
        }
        Answer::Zeroized(done) => {
            println!(
                "zeroized: {} blocks wiped, the vault is empty; the card retains nothing (its zeroize number {}); {} key \
                 streams ended",
                done.blocks, done.card_count, done.streams
            );
            ExitCode::SUCCESS
        }
        Answer::Refused { reason } => {
            eprintln!("qkdctl: {reason}");
            ExitCode::FAILURE
        }
    }
}
