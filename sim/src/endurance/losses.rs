//! Losses that the daemons have counted, as their logs tell them: as they happen, and at each start what the ledger counts in
//! all, which is more where a daemon was killed before it had said a loss.

use std::collections::HashMap;
use std::path::Path;

use crate::check::CountedLosses;

/// Reads the losses of the log of one end (0: A, 1: B): `… key stream ID: N chunks from F to L are not delivered: WHY`, and
/// `… key stream ID: the ledger counts N lost chunks below …`.
pub(super) fn read(log: &Path, end: usize, counted: &mut CountedLosses) -> std::io::Result<u64> {
    let text = std::fs::read(log)?;
    Ok(add_all(&String::from_utf8_lossy(&text), end, counted))
}

fn add_all(text: &str, end: usize, counted: &mut CountedLosses) -> u64 {
    let mut said: HashMap<uuid::Uuid, u64> = HashMap::new();
    let mut sum = 0;
    for line in text.lines() {
        if let Some((stream, first, last, count)) = parse(line) {
            counted.add(stream, first..last.saturating_add(1));
            *said.entry(stream).or_insert(0) += count;
            sum += count;
        } else if let Some((stream, count)) = parse_total(line) {
            let said = said.entry(stream).or_insert(0);
            let more = count.saturating_sub(*said);
            counted.add_more(end, stream, more);
            *said += more;
            sum += more;
        }
    }
    sum
}

fn parse_total(line: &str) -> Option<(uuid::Uuid, u64)> {
    let (_, rest) = line.split_once("key stream ")?;
    let (stream, rest) = rest.split_once(": the ledger counts ")?;
    let (count, _) = rest.split_once(" lost chunks below ")?;
    Some((stream.parse().ok()?, count.parse().ok()?))
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
    fn what_only_the_ledger_counts_is_taken_once_and_for_its_own_end() {
        let id = uuid::Uuid::from_u128(7);
        let said = |count: u64| {
            format!("[..] key stream {id}: {count} chunks from 30 to 41 are not delivered: why\n")
        };
        let total = |count: u64| {
            format!("[..] key stream {id}: the ledger counts {count} lost chunks below 99: ..\n")
        };
        let mut counted = CountedLosses::default();
        let log = said(12) + &total(12) + &total(20) + &said(3) + &total(23) + &total(23);
        assert_eq!(add_all(&log, 1, &mut counted), 23);
        let mut only = CountedLosses::default();
        only.add_more(1, id, 8);
        only.add(id, 30..42);
        only.add(id, 30..42);
        assert_eq!(format!("{counted:?}"), format!("{only:?}"));
    }

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
