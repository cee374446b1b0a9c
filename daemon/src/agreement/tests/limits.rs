//! The limits of the peer protocol: what is just allowed is taken, what is one beyond is refused.

use crate::agreement::check::{
    CHUNK_BYTES_MAX, CHUNKS_MAX, ENTRIES_MAX, EPOCH_MAX, EXTENTS_IN_MESSAGE_MAX, EXTENTS_MAX, LINES_MAX,
    RANGES_MAX, TEXT_MAX, check_epoch, check_log, check_qos, check_report, excerpt, few, short,
};
use crate::agreement::entry::{Decision, Digest, Entry, Grant};
use crate::agreement::message::{LeaderLine, Log, Range, Report};
use crate::agreement::names::{BlockName, Extent, Mark};
use crate::agreement::{Capacity, MESSAGE_BYTES_MAX, Message, PeerFault, Position};
use crate::interface::{KeyStreamId, Qos};

const STREAM: KeyStreamId = KeyStreamId::from_u128(1);

fn entry(number: u64, decision: Decision) -> Entry {
    Entry { number, hash: Digest::NONE, decision }
}

fn log(entries: Vec<Entry>) -> Log {
    Log { epoch: 1, heard: 0, entries, streams: Vec::new() }
}

fn grant(count: u32, extents: usize) -> Decision {
    let extent = Extent { block: BlockName::new(1, 0), offset: 0, length: 1 };
    let first: Position = 0;
    Decision::Grant(Grant { stream: STREAM, first, count, extents: vec![extent; extents], mark: Mark::ZERO })
}

fn skips(numbers: impl Iterator<Item = u64>) -> Log {
    log(numbers.map(|n| entry(n, Decision::Skip { stream: STREAM, to: 1 })).collect())
}

fn report(have: Vec<Range>) -> Report {
    Report {
        epoch: 1,
        serial: 1,
        urgent: false,
        applied: 0,
        hash: Digest::NONE,
        have,
        complete: BlockName::new(1, 0),
        streams: Vec::new(),
        link: 3,
        secret_key_rate_bps: 1,
        capacity: Capacity { bytes: 1, blocks: 1 },
        pinned: Capacity { bytes: 0, blocks: 0 },
    }
}

#[test]
fn texts_and_lists_are_as_long_as_they_may_be_and_no_longer() {
    assert!(few("things", 3, 3).is_ok() && few("things", 4, 3).is_err());
    assert!(short("a text", &"x".repeat(TEXT_MAX)).is_ok());
    assert!(short("a text", &"x".repeat(TEXT_MAX + 1)).is_err());
}

#[test]
fn what_is_quoted_is_cut_at_two_hundred_octets_and_at_a_character() {
    assert_eq!(excerpt(&"x".repeat(200)), "x".repeat(200));
    assert_eq!(excerpt(&"x".repeat(201)), "x".repeat(200) + "…");
    assert_eq!(excerpt(&"é".repeat(101)), "é".repeat(100) + "…");
    assert_eq!(excerpt(&("x".to_owned() + &"é".repeat(100))), "x".to_owned() + &"é".repeat(99) + "…");
    assert_eq!(excerpt("a\nb\u{7f}"), "a?b?");
}

#[test]
fn a_quality_of_service_is_taken_up_to_its_limits() {
    assert!(check_qos(&Qos::for_tests()).is_ok());
    assert!(check_qos(&Qos { key_chunk_size: CHUNK_BYTES_MAX, ..Qos::for_tests() }).is_ok());
    assert!(check_qos(&Qos { key_chunk_size: CHUNK_BYTES_MAX + 1, ..Qos::for_tests() }).is_err());
    assert!(check_qos(&Qos { key_chunk_size: 0, ..Qos::for_tests() }).is_err());
    assert!(check_qos(&Qos { timeout: 0, ..Qos::for_tests() }).is_err());
    assert!(check_qos(&Qos { metadata_mimetype: "x".repeat(TEXT_MAX + 1), ..Qos::for_tests() }).is_err());
}

#[test]
fn an_epoch_leaves_room_to_count_on() {
    assert!(check_epoch(EPOCH_MAX).is_ok() && check_epoch(EPOCH_MAX + 1).is_err());
    assert!(check_log(&Log { epoch: EPOCH_MAX + 1, ..log(Vec::new()) }).is_err());
}

#[test]
fn entries_are_numbered_from_one_without_gaps() {
    assert!(check_log(&skips(1..=3)).is_ok());
    assert!(check_log(&skips(7..=9)).is_ok());
    assert!(check_log(&skips(0..=1)).is_err());
    assert!(check_log(&skips([1, 3].into_iter())).is_err());
    assert!(check_log(&skips([2, 2].into_iter())).is_err());
    assert!(check_log(&skips([u64::MAX, 0].into_iter())).is_err());
}

#[test]
fn a_log_message_holds_as_much_as_it_may_and_no_more() {
    let most = ENTRIES_MAX as u64;
    assert!(check_log(&skips(1..=most)).is_ok());
    assert!(check_log(&skips(1..=most + 1)).is_err());
    let line = LeaderLine { stream: STREAM, opened: false, wanted: false, closed: false, behind: None };
    assert!(check_log(&Log { streams: vec![line; LINES_MAX], ..log(Vec::new()) }).is_ok());
    assert!(check_log(&Log { streams: vec![line; LINES_MAX + 1], ..log(Vec::new()) }).is_err());
}

#[test]
fn a_grant_has_chunks_and_not_too_many_extents_alone_or_together() {
    let alone = |count, extents| check_log(&log(vec![entry(1, grant(count, extents))]));
    assert!(alone(1, 1).is_ok());
    assert!(alone(0, 1).is_err());
    assert!(alone(CHUNKS_MAX, 1).is_ok());
    assert!(alone(CHUNKS_MAX + 1, 1).is_err());
    assert!(alone(1, EXTENTS_MAX).is_ok());
    assert!(alone(1, EXTENTS_MAX + 1).is_err());
    let half = EXTENTS_IN_MESSAGE_MAX / 2;
    let two = |first, second| check_log(&log(vec![entry(1, grant(1, first)), entry(2, grant(1, second))]));
    assert!(two(half, half).is_ok());
    assert!(two(half, half + 1).is_err());
}

#[test]
fn ranges_of_blocks_rise_and_are_not_too_many() {
    let range = |session, first, last| Range { session, first, last };
    let taken = |have| check_report(&report(have)).is_ok();
    assert!(taken(vec![range(1, 0, 0), range(1, 1, 5), range(2, 0, 3)]));
    assert!(!taken(vec![range(1, 2, 1)]));
    assert!(!taken(vec![range(1, 0, u64::MAX)]));
    assert!(taken(vec![range(1, 0, u64::MAX - 1)]));
    assert!(!taken(vec![range(1, 0, 3), range(1, 3, 4)]), "they overlap");
    assert!(!taken(vec![range(2, 0, 3), range(1, 5, 6)]), "the session falls");
    let many = |count: usize| (0..count as u64).map(|n| range(1, 2 * n, 2 * n)).collect::<Vec<_>>();
    assert!(taken(many(RANGES_MAX)));
    assert!(!taken(many(RANGES_MAX + 1)));
    let unusable = BlockName::new(1, u64::MAX);
    assert!(check_report(&Report { complete: unusable, ..report(Vec::new()) }).is_err());
}

#[test]
fn a_message_may_fill_a_frame_and_not_be_an_octet_longer() {
    let refuse = |length: usize| Message::Refuse { reason: "x".repeat(length) };
    let around = refuse(0).encode().unwrap().len();
    let frame = refuse(MESSAGE_BYTES_MAX - around).encode().expect("it fills the frame");
    assert_eq!(frame.len(), MESSAGE_BYTES_MAX);
    assert!(matches!(refuse(MESSAGE_BYTES_MAX - around + 1).encode(), Err(PeerFault::TooLong(_))));
    // It is refused for its reason, which is too long, and not for its own length.
    assert!(!matches!(Message::decode(&frame), Ok(_) | Err(PeerFault::TooLong(_))));
    let longer = [frame.as_slice(), b" "].concat();
    assert!(matches!(Message::decode(&longer), Err(PeerFault::TooLong(_))));
}

#[test]
fn names_and_marks_can_be_read_in_logs() {
    let name = BlockName::new(7, 12);
    assert_eq!(
        (name.to_string(), Mark { block: name, offset: 3 }.to_string()),
        ("7/12".into(), "7/12+3".into())
    );
}
