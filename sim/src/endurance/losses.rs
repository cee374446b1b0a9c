//! Losses that the daemons have counted, as their logs tell them.

use std::path::Path;

use crate::check::CountedLosses;

/// Reads the losses of a log: `… key stream ID: N chunks from F to L are not delivered: WHY`.
pub(super) fn read(log: &Path, counted: &mut CountedLosses) -> std::io::Result<u64> {
    let text = std::fs::read(log)?;
    let mut sum = 0;
    for line in String::from_utf8_lossy(&text).lines() {
        if let Some((stream, first, last, count)) = parse(line) {
            counted.add(stream, first..last.saturating_add(1));
            sum += count;
        }
    }
    Ok(sum)
}

fn parse(line: &str) -> Option<(uuid::Uuid, u64, u64, u64)> {
    let (_, rest) = line.split_once("key stream ")?;
    let (stream, rest) = rest.split_once(": ")?;
    let (count, rest) = rest.split_once(" chunks from ")?;
    let (first, rest) = rest.split_once(" to ")?;
    let (last, _) = rest.split_once(" are not delivered: ")?;
    Some((stream.parse().ok()?, first.parse().ok()?, last.parse().ok()?, count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_in_the_log_that_is_not_read_is_caught() {
        let line = "[2026-11-26T22:00:00Z WARN  qkd_daemon::engine::losses] key stream \
                    0b9c5b1a-6a04-4b8e-9a52-3a2f0f6c1d2e: 12 chunks from 30 to 41 are not delivered: their time to live \
                    is over";
        let (stream, first, last, count) = parse(line).expect("reads");
        assert_eq!(stream.to_string(), "0b9c5b1a-6a04-4b8e-9a52-3a2f0f6c1d2e");
        assert_eq!((first, last, count), (30, 41, 12));
        assert_eq!(parse("key stream x: nothing"), None);
    }
}
