//! Printing.

pub(crate) mod figures;
mod picture;

use std::io::Write;

use qkd_daemon::operator::outcome::{Outcome, Own};
use qkd_daemon::operator::protocol::{Answer, Events, SelfTest, Streams, Zeroized, line};

use self::figures::{in_words, time};

/// One line.
pub(crate) fn json(outcome: &Outcome) {
    match line(outcome) {
        Ok(text) => out(text.trim_end()),
        Err(error) => eprintln!("qkdctl: {error}"),
    }
}

/// For people. What went wrong goes to standard error.
pub(crate) fn text(outcome: &Outcome) {
    match outcome {
        Outcome::Daemon(answer) => match answer {
            Answer::Status(status) => out(&picture::status(status)),
            Answer::Streams(streams) => out(&self::streams(streams)),
            Answer::Events(events) => out(&self::events(events)),
            Answer::SelfTest(test) => out(&self_test(test)),
            Answer::Reloaded(done) if done.certificates => {
                out("reloaded: certificates are read again; new connections use them");
            }
            Answer::Reloaded(_) => out("nothing to reload: the configuration has no [tls]"),
            Answer::Zeroized(done) => out(&zeroized(done)),
            Answer::Refused { reason } => eprintln!("qkdctl: {reason}"),
        },
        Outcome::Own(own) => match own {
            Own::NotRunning { reason } | Own::AuditBroken { reason } => eprintln!("qkdctl: {reason}"),
            Own::AuditWhole { first, last, head, to_the_end } => audit(*first, *last, head, *to_the_end),
            Own::Slot { text, .. } => out(text),
            Own::SlotRefused { address, reason } => eprintln!("qkdctl: {address}: {reason}"),
        },
    }
}

/// Whoever closed standard output does not want to know.
pub(crate) fn out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

fn audit(first: u64, last: u64, head: &str, to_the_end: bool) {
    out(&format!("whole: lines {first} to {last}\nhead: {head}"));
    if first > 1 {
        out(&format!("lines below {first} stood in files that are not here"));
    }
    if !to_the_end {
        out("whether lines are missing at the end can only be told of the whole directory");
    }
}

fn zeroized(done: &Zeroized) -> String {
    format!(
        "zeroized: {} blocks wiped, the vault is empty; the card retains nothing (its zeroize number {}); {} key streams ended",
        done.blocks, done.card_count, done.streams
    )
}

fn self_test(test: &SelfTest) -> String {
    format!(
        "card {}: the self-test (DMA pattern and both interrupts) passed at {}, {} since the daemon started\nthe card takes it \
         only while it is stopped (CMD-9): the daemon runs it when it starts and when it resets the card. To have it run \
         now, restart the daemon",
        test.card,
        time(test.passed_unix_ms),
        match test.passed_times {
            1 => "once".to_owned(),
            times => format!("{times} times"),
        }
    )
}

fn streams(streams: &Streams) -> String {
    if streams.streams.is_empty() {
        return "no key stream is open".into();
    }
    let mut lines = Vec::new();
    for stream in &streams.streams {
        lines.push(format!("{}  {}: {}", stream.id, stream.state.word(), stream.words));
        lines.push(format!(
            "    {} -> {}, chunks of {} bytes, priority {}",
            stream.source, stream.destination, stream.chunk_size, stream.qos.priority
        ));
        let lost: u64 = stream.lost_chunks.values().sum();
        lines.push(format!(
            "    granted {}, delivered {}, accepted {}, lag {} chunks ({}), lost {lost}",
            stream.granted,
            stream.delivered,
            stream.accepted,
            stream.lag_chunks,
            in_words(stream.lag_bytes, "B"),
        ));
    }
    lines.join("\n")
}

fn events(events: &Events) -> String {
    let line = |event: &qkd_daemon::picture::Event| {
        format!("{}  {:5}  {:24}  {}", time(event.unix_ms), event.level.word(), event.id, event.text)
    };
    events.events.iter().map(line).collect::<Vec<_>>().join("\n")
}
