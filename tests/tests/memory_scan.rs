//! Key that stays behind: after a KMS has acknowledged a chunk, nothing of it may be left in the daemon's memory, in its state,
//! in its log or in a core file, raw, in hexadecimal, in base64 or in decimal.
//!
//! The criterion is causal. At most [`IN_FLIGHT`] chunks of a stream are on their way, so a module that has sent chunk n has
//! taken in the answers to all chunks up to n less [`IN_FLIGHT`]. They must be gone, and they must be gone at once: the
//! daemon is stopped (SIGSTOP) while its memory is searched.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;
use qkd_tests::DEADLINE;
use qkd_tests::memory_scan::{Cell, Dress, Ends, IN_FLIGHT, Scan, cells_in};
use qkd_tests::programs::{program, program_that_does_not_wipe};

/// Chunks that must have been acknowledged at each end.
const CHUNKS: u64 = 10_000;

/// Delivers marked key, looks while it flows, while answers are held back, and when all is over.
fn nothing_stays(memory: &str, rate: &str, chunk_size: u32) {
    let ends = Ends::start(&program("qkdd"), memory, rate, chunk_size);
    let kind = if memory == "locked" { "locked memory" } else { "secret memory" };
    for module in &ends.modules {
        let _ = module.process.line(kind, DEADLINE);
    }
    for kms in &ends.kms {
        kms.wait_until("chunks", |_, answered| answered > CHUNKS + u64::from(IN_FLIGHT));
    }
    for end in 0..2 {
        let seen = ends.look(end, false);
        assert!(seen.acknowledged as u64 >= CHUNKS, "{} chunks", seen.acknowledged);
        assert_eq!(seen.left_behind, BTreeSet::new(), "while key flows, at end {end}");
    }
    for end in 0..2 {
        // One at a time: an end that is ahead by all that may be granted gets no more until the other's KMS has accepted some.
        ends.kms[end].hold_back(true);
        ends.kms[end].wait_until("chunks to hold back", |received, answered| received >= answered + 8);
        let until = Instant::now() + DEADLINE;
        // What is sent is wiped as soon as it is written, which may be a moment after it was received.
        let seen = loop {
            let seen = ends.look(end, false);
            assert_eq!(seen.left_behind, BTreeSet::new(), "while answers are held back, at end {end}");
            if seen.sent_and_kept == 0 {
                break seen;
            }
            assert!(
                Instant::now() < until,
                "{} cells stay in the send buffer at end {end}",
                seen.sent_and_kept
            );
        };
        let (found, all) = seen.awaiting;
        assert!(all >= 8, "{all} cells wait for their acknowledgement");
        match memory {
            "locked" => {
                assert_eq!(found, all, "the search is blind: key before its acknowledgement, at end {end}")
            }
            _ => {
                assert!(seen.secret >= 64 << 20, "the vault is not in secret memory");
                assert_eq!(found, 0, "key lies outside of secret memory, at end {end}");
            }
        }
        ends.kms[end].hold_back(false);
    }
    ends.close();
    for end in 0..2 {
        ends.kms[end].wait_until("end", |received, answered| received == answered && answered >= CHUNKS);
        let seen = ends.look(end, true);
        assert_eq!(seen.left_behind, BTreeSet::new(), "when all is over, at end {end}");
    }
    ends.nothing_in_files_and_logs();
    ends.no_core();
}

#[test]
fn nothing_of_an_acknowledged_chunk_stays_at_a_slow_rate_in_locked_memory() {
    nothing_stays("locked", "400k", 32);
}

#[test]
fn nothing_of_an_acknowledged_chunk_stays_at_a_fast_rate_in_locked_memory() {
    nothing_stays("locked", "50M", 32);
}

#[test]
fn nothing_of_an_acknowledged_chunk_stays_with_large_chunks_in_secret_memory() {
    nothing_stays("secret", "115.8M", 1024);
}

#[test]
fn a_daemon_that_does_not_wipe_is_caught_in_the_slots_in_the_vault_and_in_the_send_buffers() {
    let ends = Ends::start(&program_that_does_not_wipe(), "locked", "4M", 32);
    let vault = (Dress::Raw, String::new());
    for end in 0..2 {
        let kms = &ends.kms[end];
        kms.wait_until("chunks", |_, answered| answered >= CHUNKS + u64::from(IN_FLIGHT));
        let until = Instant::now() + DEADLINE;
        let mut left_behind = BTreeSet::new();
        // A KMS that keeps up has each block overwritten by the next. So blocks are made to pile up: of those that lay
        // behind others, the place in the vault is not taken again.
        loop {
            left_behind.extend(ends.look(end, false).left_behind);
            let slots =
                |(dress, name): &(Dress, String)| *dress == Dress::Raw && name.starts_with("/memfd:qkd-dma");
            if left_behind.contains(&vault) && left_behind.iter().any(slots) {
                break;
            }
            assert!(Instant::now() < until, "slots or vault: {left_behind:?}");
            kms.hold_back(true);
            // A window is filled again once half of it is free.
            kms.wait_until("a window", |received, answered| received > answered + u64::from(IN_FLIGHT / 2));
            let (held, _) = kms.counts();
            kms.hold_back(false);
            kms.wait_until("what was held back", |_, answered| answered >= held + 2 * u64::from(IN_FLIGHT));
        }
        kms.hold_back(true);
        kms.wait_until("chunks to hold back", |received, answered| received >= answered + 8);
        let seen = ends.look(end, false);
        assert!(seen.sent_and_kept > 0, "send buffers: {:?}", seen.left_behind);
        // The other end gets no key while this one accepts none.
        kms.hold_back(false);
    }
}

#[test]
fn nothing_of_any_key_stays_when_the_operator_was_told_that_it_is_destroyed() {
    let ends = Ends::start(&program("qkdd"), "locked", "4M", 32);
    {
        let (end, run) = (0, "run-a");
        let kms = &ends.kms[end];
        kms.wait_until("chunks", |_, answered| answered >= 1_000);
        kms.hold_back(true);
        kms.wait_until("chunks to hold back", |received, answered| received >= answered + 8);
        let seen = ends.look(end, false);
        assert!(seen.awaiting.0 > 0, "there is no key that could be destroyed");
        let last = kms
            .chunks()
            .into_values()
            .flat_map(|chunk| cells_in(&chunk))
            .map(session_of)
            .max()
            .expect("cells");
        let socket = ends.cards.folder.path().join(run).join("qkdd.ctl");
        let done = Command::new(program("qkdctl"))
            .arg("--socket")
            .arg(socket)
            .arg("zeroize")
            .output()
            .expect("it runs");
        assert!(done.status.success(), "{done:?}");
        let process = &ends.modules[end].process;
        process.signal(Signal::SIGSTOP);
        let scan = Scan::of(process.pid());
        process.signal(Signal::SIGCONT);
        let scan = scan.unwrap_or_else(|blind| panic!("{blind}"));
        let old: Vec<_> = scan
            .cells
            .keys()
            .filter(|cell| !ends.canaries.contains(cell) && session_of(**cell) <= last)
            .collect();
        let places: BTreeSet<_> = old.iter().flat_map(|cell| scan.places(cell)).collect();
        assert!(old.is_empty(), "{} cells of before are left at end {end}: {places:?}", old.len());
    }
}

/// The session that a cell is of; later sessions have greater numbers.
fn session_of(cell: Cell) -> u32 {
    u32::from_le_bytes(cell[..4].try_into().expect("four octets"))
}
