//! A file that something else than the ledger has changed: refused, or of no consequence; never taken for another truth.

use std::io::Write;
use std::path::Path;

use super::super::{FileLedger, Ledger, LedgerError};
use super::story::Story;
use crate::agreement::Durable;

/// A ledger with a history, and what it held after its last commit and the one before.
fn ledger_with_history(directory: &Path, killed: bool) -> (Vec<u8>, Durable, Durable) {
    let mut ledger = FileLedger::open(directory).unwrap();
    let mut story = Story::new(11);
    let mut before = Durable::default();
    for _ in 0..80 {
        before = ledger.load().unwrap();
        ledger.commit(&story.batch(10)).unwrap();
    }
    let last = ledger.load().unwrap();
    let path = directory.join("ledger.redb");
    let octets = if killed {
        let octets = std::fs::read(&path).unwrap();
        drop(ledger);
        octets
    } else {
        drop(ledger);
        std::fs::read(&path).unwrap()
    };
    (octets, last, before)
}

enum Outcome {
    Equal,
    Refused,
    /// The state before the last commit, which the card's cell tells from the present one.
    OneBehind,
}

fn judge(directory: &Path, octets: &[u8], last: &Durable, before: &Durable, what: &str) -> Outcome {
    let mut file = std::fs::File::create(directory.join("ledger.redb")).unwrap();
    file.write_all(octets).unwrap();
    drop(file);
    match FileLedger::open(directory) {
        Err(LedgerError::Damaged { .. } | LedgerError::Newer { .. }) => Outcome::Refused,
        Err(other) => panic!("{what}: {other}"),
        Ok(mut ledger) => {
            assert!(!ledger.is_new(), "{what}: a fresh start in silence");
            let found = ledger.load().unwrap();
            // It must be as good as it looks.
            ledger.commit(&[]).unwrap();
            if found == *last {
                Outcome::Equal
            } else {
                assert!(found == *before, "{what}: it holds what it never was told");
                assert!(found.write_number < last.write_number, "{what}: nobody could tell");
                Outcome::OneBehind
            }
        }
    }
}

/// Flips bits, overwrites and cuts at many places. Answers how many were equal, refused, one behind.
fn play(killed: bool, rounds: u64) -> (u64, u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let (octets, last, before) = ledger_with_history(folder.path(), killed);
    let mut dice = super::story::Dice(7);
    let mut count = (0, 0, 0);
    let length = octets.len() as u64;
    for round in 0..rounds {
        let mut changed = octets.clone();
        let header = dice.below(3) == 0;
        let at = usize::try_from(dice.below(if header { 512 } else { length })).unwrap();
        let what = match round % 4 {
            0 | 1 => {
                let bit = dice.below(8);
                changed[at] ^= 1 << bit;
                format!("bit {bit} of octet {at} flipped")
            }
            2 => {
                let end = (at + 1 + usize::try_from(dice.below(4096)).unwrap()).min(changed.len());
                let with = u8::try_from(dice.below(256)).unwrap();
                changed[at..end].fill(with);
                format!("octets {at} to {end} overwritten with {with}")
            }
            _ => {
                let at = usize::try_from(dice.below(length)).unwrap();
                changed.truncate(at);
                format!("cut at octet {at}")
            }
        };
        match judge(folder.path(), &changed, &last, &before, &what) {
            Outcome::Equal => count.0 += 1,
            Outcome::Refused => count.1 += 1,
            Outcome::OneBehind => count.2 += 1,
        }
    }
    assert!(matches!(judge(folder.path(), &octets, &last, &before, "nothing"), Outcome::Equal));
    println!("killed {killed}: {count:?} of {rounds} equal, refused, one behind; {length} octets");
    count
}

fn rounds() -> u64 {
    std::env::var("QKD_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

#[test]
fn a_file_that_was_closed_and_then_damaged_is_refused_or_equal() {
    let (equal, refused, behind) = play(false, rounds());
    assert_eq!(behind, 0);
    assert!(equal > 0 && refused > rounds() / 4, "{equal} {refused}");
}

/// Without an orderly end, a last commit whose checksum is wrong cannot be told from one that was never finished.
#[test]
fn a_file_left_by_a_kill_and_then_damaged_is_refused_or_equal_or_seen_to_be_older_by_its_number() {
    let (equal, refused, _) = play(true, rounds());
    assert!(equal > 0 && refused > 0, "{equal} {refused}");
}

#[test]
fn a_file_that_is_no_ledger_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    for octets in [&b""[..], b"x", &[0; 4096], &[0xff; 100_000]] {
        std::fs::write(&path, octets).unwrap();
        let error = FileLedger::open(folder.path()).unwrap_err();
        assert!(matches!(error, LedgerError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("move the file away"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), octets);
    }
}
