//! A daemon ends, in order or not, and starts again: its KMS notices nothing but a pause, as long as its ledger is the one
//! that it had; and where it is not, both ends see that and begin anew by themselves.

use std::process::Command;

use qkd_driver::BlockName;
use qkd_tests::DEADLINE;
use qkd_tests::ends::Ends;
use qkd_tests::key_search::dressed_key;
use qkd_tests::test_key::test_key;

/// Chunks that are enough to see that key goes on.
const SOME: u64 = 500;

/// The streams go on, and everything that both KMSs got is right.
fn goes_on_and_agrees(mut ends: Ends, streams: u32) {
    ends.wait_for_chunks(SOME);
    let all = u64::from(streams);
    // The one may be counted a moment before the other.
    for what in ["with_key", "receiving"] {
        ends.wait_until("key on every stream that lives", |ends| {
            (0..2).all(|end| ends.says(end, what) == all)
        });
    }
    for end in 0..2 {
        assert_eq!(ends.says(end, "missing"), 0, "chunks missing at end {end}");
    }
    assert!(ends.end_kms(), "a KMS has seen something wrong");
    let said = ends.check();
    assert!(said.contains("AGREE"), "{said}");
}

#[test]
fn streams_go_on_by_themselves_when_daemons_were_killed_under_load() {
    let mut ends = Ends::start_positional();
    ends.start_kms(3);
    ends.wait_for_chunks(SOME);
    for killed in [&[1][..], &[0], &[0, 1], &[1, 0], &[0], &[1]] {
        for end in killed {
            ends.kill(*end);
        }
        for end in killed {
            ends.start_module(*end);
            let line = ends.module(*end).process.line("goes on in epoch", DEADLINE);
            assert!(line.contains("with 3 key streams"), "{line}");
        }
        ends.wait_for_chunks(SOME);
    }
    goes_on_and_agrees(ends, 3);
}

#[test]
fn streams_go_on_by_themselves_when_daemons_were_stopped_in_order() {
    let mut ends = Ends::start_positional();
    ends.start_kms(2);
    ends.wait_for_chunks(SOME);
    for end in [0, 1] {
        ends.terminate(end);
        ends.start_module(end);
        ends.wait_for_chunks(SOME);
    }
    goes_on_and_agrees(ends, 2);
}

/// The card tells how its link stands only behind all that it replays, and a vault that is full stops the replay until a KMS
/// takes key: it must be let in before that.
#[test]
fn a_replay_that_fills_the_vault_keeps_no_kms_out() {
    let cards = ["--weather", "calm", "--rate", "100M", "--key", "positional", "--json"];
    let mut ends = Ends::start_with(&cards, "bytes = 8388608\n");
    ends.wait_until("32 MiB of key that nobody takes", |ends| ends.cards_retain(32 << 20));
    for end in [0, 1] {
        ends.kill(end);
        ends.start_module(end);
    }
    ends.start_kms(2);
    goes_on_and_agrees(ends, 2);
}

/// What becomes of a ledger while its daemon is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lost,
    Restored,
}

/// Both ends begin anew, without a hand: the streams end with a notice, and new ones give key that agrees.
fn begins_anew(end: usize, fate: Fate) {
    let mut ends = Ends::start_positional();
    ends.start_kms(2);
    ends.wait_for_chunks(SOME);
    let backup = ends.cards.folder.path().join("backup");
    ends.terminate(end);
    std::fs::copy(ends.ledger(end), &backup).unwrap();
    ends.start_module(end);
    ends.wait_for_chunks(SOME);
    ends.kill(end);
    match fate {
        Fate::Lost => std::fs::remove_file(ends.ledger(end)).unwrap(),
        Fate::Restored => {
            std::fs::copy(&backup, ends.ledger(end)).unwrap();
        }
    }
    ends.start_module(end);
    let process = &ends.module(end).process;
    let _ = process.line("the card has seen write", DEADLINE);
    let why = if fate == Fate::Lost { "without a ledger" } else { "older than what the card has seen" };
    let line = process.line("is burnt", DEADLINE);
    assert!(line.contains(why), "{line}");
    let follower = ends.module(1).process.line("takes over epoch", DEADLINE);
    assert!(!follower.is_empty());
    // The other end remembers its streams and ends them with a notice; this one does not know them any more or, where
    // its ledger was put back, does.
    ends.wait_until("notice at the other end", |ends| ends.says(1 - end, "notices") > 0);
    let before = [0, 1].map(|end| ends.says(end, "violations"));
    assert_eq!(before, [0, 0]);
    // The old streams cannot be closed any more, which a KMS takes for a failure; what they got must agree.
    let _ = ends.end_kms();
    let said = ends.check();
    assert!(said.contains("AGREE"), "{said}");
    ends.start_kms(2);
    goes_on_and_agrees(ends, 2);
}

#[test]
fn a_leaders_ledger_that_was_lost_is_seen_and_both_begin_anew() {
    begins_anew(0, Fate::Lost);
}

#[test]
fn a_followers_ledger_that_was_lost_is_seen_and_both_begin_anew() {
    begins_anew(1, Fate::Lost);
}

#[test]
fn a_leaders_ledger_from_a_backup_is_seen_and_both_begin_anew() {
    begins_anew(0, Fate::Restored);
}

#[test]
fn a_followers_ledger_from_a_backup_is_seen_and_both_begin_anew() {
    begins_anew(1, Fate::Restored);
}

#[test]
fn a_ledger_that_cannot_be_written_ends_the_daemon_with_its_own_code_and_nothing_is_lost() {
    for end in 0..2 {
        let mut ends = Ends::start_positional();
        ends.terminate(end);
        // With the signal ignored, a file that may not be written further is an error like a full disk.
        ends.start_module_by(end, &["env", "--ignore-signal=XFSZ"]);
        ends.start_kms(2);
        ends.wait_for_chunks(SOME);
        let pid = ends.module(end).process.pid().to_string();
        let limited = Command::new("prlimit").args(["--pid", &pid, "--fsize=4096"]).status().unwrap();
        assert!(limited.success());
        let mut module = ends.modules[end].take().unwrap();
        let code = module.process.wait(DEADLINE).code();
        let said = module.process.output();
        assert_eq!(code, Some(8), "{said}");
        assert!(said.contains("make room") && said.contains("ledger.redb"), "{said}");
        ends.start_module(end);
        goes_on_and_agrees(ends, 2);
    }
}

#[test]
fn the_ledgers_directories_hold_no_key_raw_in_hex_or_in_base64() {
    let mut ends = Ends::start_positional();
    ends.start_kms(2);
    ends.wait_for_chunks(100 * SOME);
    ends.kill(0);
    ends.start_module(0);
    ends.wait_for_chunks(SOME);
    // While key is under way, after a kill, and after an order to stop.
    let mut searched = 0;
    for _ in 0..2 {
        for end in 0..2 {
            let ledger = ends.ledger(end);
            // The ledger's own files, and those of the audit record beside it.
            let folders = [ledger.parent().unwrap().to_owned(), ledger.parent().unwrap().join("audit")];
            let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
            for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
                let mut octets = std::fs::read(path).unwrap();
                searched += octets.len();
                assert_eq!(dressed_key(&octets), Vec::<&str>::new(), "end {end}");
                // The search must find what it looks for.
                let planted = test_key(BlockName { session: 5, sequence: 77 }, 64);
                let middle = octets.len() / 2;
                octets.splice(middle..middle, planted);
                assert_eq!(dressed_key(&octets), ["raw"]);
            }
        }
        if ends.modules[0].is_some() {
            assert!(ends.end_kms(), "a KMS has seen something wrong");
            ends.terminate(0);
            ends.terminate(1);
        }
    }
    assert!(searched > 4 * 72_000, "{searched} octets searched");
    assert!(ends.check().contains("AGREE"));
}
