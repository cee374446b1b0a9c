//! A card written by somebody else, from the card contract and the public vfio-user protocol alone, drives the driver:
//! once as a card should, and once for each thing that it does wrong.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use qkd_driver::backing::vfio_user::VfioUser;
use qkd_driver::{BlockName, Card, CardEvent, CardOptions, CloseError, Fault, OpenError, TakeError};
use qkd_tests::DEADLINE;
use qkd_tests::process::Process;
use qkd_tests::witness;

/// Added to the contract's longest times: the script shares the processors with everything else.
const GRACE: Duration = Duration::from_secs(4);
const REPLAYED: BlockName = BlockName { session: 7, sequence: 12 };
const LAST: BlockName = BlockName { session: 8, sequence: 2 };

/// The key of every block that the script delivers.
fn key(name: BlockName) -> Vec<u8> {
    (0..1000_u64).map(|i| ((name.session * 31 + name.sequence * 17 + i * 7) & 0xFF) as u8).collect()
}

/// What came of a life with the scripted card.
#[derive(Debug, Default)]
struct Life {
    taken: Vec<BlockName>,
    /// Blocks that alone are lost, with the reason.
    lost: Vec<String>,
    /// Where it ended before its time: what the driver was asked, the cause of the fault, the clause that was broken.
    ended: Option<(&'static str, &'static str, &'static str)>,
    refused: Option<OpenError>,
    closed: Option<CloseError>,
}

/// A life as a host leads it: open, start, take four blocks, store, acknowledge, stop, zeroize, close. `watched` keeps
/// looking at the card's health until it fails.
fn live(socket: &Path, watched: bool) -> Life {
    let mut life = Life::default();
    let backing = VfioUser::connect(socket, DEADLINE).expect("the script serves");
    let options = CardOptions { grace: GRACE, slots: 4, ..CardOptions::default() };
    let mut card = match Card::open(backing, options) {
        Ok(card) => card,
        Err(error) => {
            life.refused = Some(error);
            return life;
        }
    };
    if let Err((asked, fault)) = run(&mut card, &mut life, watched) {
        life.ended = Some((asked, fault.cause(), fault.clause()));
    }
    life.closed = card.close().err();
    life
}

/// What was asked, and the fault that it met.
type Met = (&'static str, Fault);

fn run(card: &mut Card<VfioUser>, life: &mut Life, watched: bool) -> Result<(), Met> {
    card.start().map_err(|fault| ("start", fault))?;
    let end = Instant::now() + DEADLINE;
    while life.taken.len() + life.lost.len() < 4 {
        assert!(Instant::now() < end, "no blocks come: {life:?}");
        card.wait(Duration::from_millis(100), None).map_err(|fault| ("wait", fault))?;
        take_all(card, life).map_err(|fault| ("events", fault))?;
    }
    if watched {
        loop {
            card.health().map_err(|fault| ("health", fault))?;
            assert!(Instant::now() < end, "its health never fails");
        }
    }
    card.health().map_err(|fault| ("health", fault))?;
    card.telemetry().map_err(|fault| ("telemetry", fault))?;
    card.store_cell(100).map_err(|fault| ("store_cell", fault))?;
    assert!(
        card.acknowledge(REPLAYED, LAST).map_err(|fault| ("acknowledge", fault))?,
        "there is room for one"
    );
    while !card.acknowledgements_settled().map_err(|fault| ("acknowledge", fault))? {
        std::thread::sleep(Duration::from_millis(1));
    }
    take_all(card, life).map_err(|fault| ("events", fault))?;
    card.stop().map_err(|fault| ("stop", fault))?;
    card.zeroize().map(drop).map_err(|fault| ("zeroize", fault))
}

fn take_all(card: &mut Card<VfioUser>, life: &mut Life) -> Result<(), Fault> {
    while let Some(event) = card.next_event()? {
        let CardEvent::Block(block) = event else { continue };
        let name = block.name();
        let mut room = vec![0xEE; block.length()];
        match block.take(&mut room) {
            Ok(()) => {
                assert_eq!(room, key(name), "block {name} has the octets that the script wrote");
                life.taken.push(name);
            }
            Err(TakeError::Lost { name, cause }) => life.lost.push(format!("{name}: {cause}")),
            Err(TakeError::Fault(fault)) => return Err(fault),
            Err(TakeError::Room { needed, given }) => panic!("{needed} octets in room for {given}"),
        }
    }
    Ok(())
}

/// Leads a life with a script, and gives what came of it and what the script saw of the host.
fn with_script(script: &str) -> (Life, Vec<String>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("card.sock");
    let mut card: Process = witness::start("scripted_card.py", &[socket.as_os_str(), script.as_ref()]);
    let _ = card.line("ready", DEADLINE);
    let life = live(&socket, script == "heart-stops");
    assert!(card.wait(DEADLINE).success(), "{}", card.output());
    let seen: Vec<String> = card.output().lines().map(str::to_owned).collect();
    assert_eq!(seen.last().map(String::as_str), Some("the host left its memory wiped"), "{seen:#?}");
    (life, seen)
}

fn counts(seen: &[String], line: &str) -> usize {
    seen.iter().filter(|one| *one == line).count()
}

/// Scripts with the test that runs each; `every_script_is_run` holds them against the witness's own list.
macro_rules! scripts {
    ($($test:ident: $script:literal => $judge:expr;)*) => {
        $(#[test]
        fn $test() {
            let (life, seen) = with_script($script);
            let judge: fn(&Life, &[String]) = $judge;
            judge(&life, &seen);
        })*

        #[test]
        fn every_script_is_run() {
            let mut list = witness::start("scripted_card.py", &["--list"]);
            assert!(list.wait(DEADLINE).success());
            let output = list.output();
            let listed: BTreeSet<&str> = output.lines().collect();
            assert_eq!(listed, BTreeSet::from([$($script),*]));
        }
    };
}

/// The life ended early with this fault, and the card was given back with proof.
fn met(life: &Life, asked: &'static str, cause: &'static str, clause: &'static str) {
    assert_eq!(life.ended, Some((asked, cause, clause)), "{life:?}");
    assert_eq!((life.refused.is_some(), life.closed), (false, None), "{life:?}");
}

fn lost_one(life: &Life, cause: &str) {
    assert_eq!((life.ended, life.taken.len()), (None, 3), "{life:?}");
    assert!(matches!(&life.lost[..], [one] if one.contains(cause)), "{life:?}");
}

scripts! {
    a_card_that_keeps_the_contract_is_led_through_its_whole_life: "good" => |life, seen| {
        let fresh = (0..3).map(|sequence| BlockName { session: 8, sequence });
        assert_eq!(life.taken, [REPLAYED].into_iter().chain(fresh).collect::<Vec<_>>());
        assert!(life.ended.is_none() && life.refused.is_none() && life.closed.is_none(), "{life:?}");
        for line in ["started", "cell 100", "acknowledged (7, 12) to (8, 2)", "stopped", "zeroized", "unmapped"] {
            assert_eq!(counts(seen, line), 1, "{line} in {seen:#?}");
        }
        let place = |line: &str| seen.iter().rposition(|one| one == line);
        assert!(place("zeroized") < place("bus mastering off"), "{seen:#?}");
        assert!(place("bus mastering off") < place("unmapped"), "{seen:#?}");
    };
    a_wrong_check_of_the_payload_costs_that_block_alone: "bad-payload-crc" => |life, _| lost_one(life, "payload");
    a_wrong_check_of_the_header_costs_that_block_alone: "bad-header-crc" => |life, _| lost_one(life, "header");
    an_event_with_a_wrong_check_ends_the_run: "bad-event-crc" => |life, _| {
        met(life, "events", "event_corrupt", "EVT-4");
    };
    a_header_with_another_magic_ends_the_run: "wrong-magic" => |life, _| {
        met(life, "events", "header_mismatch", "BLK-2");
    };
    a_header_that_names_another_block_ends_the_run: "other-header" => |life, _| {
        met(life, "events", "header_mismatch", "BLK-7");
    };
    reserved_octets_that_are_not_zero_end_the_run: "reserved-bits" => |life, _| {
        met(life, "events", "reserved_bits", "BLK-2");
    };
    a_replayed_block_without_its_flag_ends_the_run: "replayed-without-flag" => |life, _| {
        met(life, "events", "replay", "BLK-3");
    };
    a_block_that_comes_again_ends_the_run: "block-again" => |life, _| {
        met(life, "events", "block_out_of_order", "SES-8");
    };
    a_block_of_a_session_that_never_began_ends_the_run: "foreign-session" => |life, _| {
        met(life, "events", "foreign_session", "EVT-6");
    };
    a_block_without_octets_ends_the_run: "block-of-no-length" => |life, _| {
        met(life, "events", "length_beyond_slot", "BLK-4");
    };
    a_block_in_another_slot_than_its_turn_ends_the_run: "wrong-slot" => |life, _| {
        met(life, "events", "slot_mismatch", "RNG-5");
    };
    an_event_of_a_kind_that_does_not_exist_ends_the_run: "unknown-kind" => |life, _| {
        met(life, "events", "unknown_kind", "EVT-2");
    };
    an_event_that_never_comes_is_noticed_by_the_one_behind_it: "skipped-event" => |life, _| {
        // Whether it is noticed when waiting or when looking depends on who was first.
        assert!(matches!(life.ended, Some((_, "event_number", "EVT-3"))), "{life:?}");
        assert_eq!((life.taken.len(), life.closed), (2, None), "{life:?}");
    };
    a_card_that_takes_acknowledgements_nobody_wrote_is_stopped: "acknowledged-too-much" => |life, _| {
        met(life, "acknowledge", "ack_head", "ACK-3");
    };
    a_cell_that_falls_is_noticed: "cell-falls" => |life, _| met(life, "store_cell", "cell", "CEL-1");
    an_answer_to_a_command_nobody_gave_is_noticed: "foreign-answer" => |life, _| {
        met(life, "start", "foreign_answer", "CMD-3");
    };
    a_start_that_never_ends_is_given_up: "starts-never" => |life, _| met(life, "start", "timeout", "TIM-2");
    a_heart_that_stands_still_is_noticed: "heart-stops" => |life, _| met(life, "health", "timeout", "TIM-8");
    a_zeroize_that_leaves_a_block_is_not_believed: "not-zeroized" => |life, _| {
        met(life, "zeroize", "not_zeroized", "ZER-3");
    };
    a_stop_that_never_ends_is_proven_by_a_reset: "stop-never-done" => |life, seen| {
        met(life, "stop", "timeout", "TIM-3");
        assert_eq!(counts(seen, "reset"), 2, "at the opening and as the proof: {seen:#?}");
    };
    a_stop_that_nothing_proves_costs_the_memory: "stop-and-reset-never-done" => |life, seen| {
        assert_eq!(life.ended, Some(("stop", "timeout", "TIM-3")));
        assert!(life.closed.is_some_and(|error| error.leaked > 0), "{life:?}");
        assert_eq!(counts(seen, "reset"), 2, "{seen:#?}");
    };
    a_card_that_is_gone_is_not_reset: "gone-while-running" => |life, seen| {
        assert!(matches!(life.ended, Some((_, "gone", "REG-8"))), "{life:?}");
        assert!(life.closed.is_some_and(|error| error.leaked > 0), "nothing proves that it has stopped: {life:?}");
        assert_eq!(counts(seen, "reset"), 1, "at the opening only: {seen:#?}");
    };
    a_card_of_another_major_version_is_left_alone: "other-major" => |life, seen| {
        let refusal = life.refused.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(refusal.contains("contract version 2.0"), "{life:?}");
        assert_eq!((counts(seen, "reset"), counts(seen, "bus mastering on")), (0, 0), "{seen:#?}");
    };
    a_wrong_self_test_pattern_is_refused: "wrong-pattern" => |life, seen| {
        let wrong = Some(OpenError::Fault(Fault::SelfTestPattern { octet: 777 }));
        assert_eq!(format!("{:?}", life.refused), format!("{wrong:?}"));
        assert_eq!(counts(seen, "started"), 0);
    };
    a_serial_number_that_configuration_space_denies_is_refused: "other-capability" => |life, _| {
        let refusal = life.refused.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(refusal.contains("PCI-7"), "{life:?}");
    };
    test_key_is_refused_unless_it_was_asked_for: "test-key" => |life, _| {
        assert!(matches!(life.refused, Some(OpenError::TestKey)), "{life:?}");
    };
}
