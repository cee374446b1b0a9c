//! A peer that says what it may not: a typed fault and the end of the connection, never a panic, never more memory.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::two_ends::Ends;
use crate::agreement::entry::{Decision, Digest};
use crate::agreement::message::{FollowerLine, OpenReply, OpenRequest, Range, Report};
use crate::agreement::names::{BlockName, Mark};
use crate::agreement::{Event, MESSAGE_BYTES_MAX, Message, PeerFault};
use crate::calls::Answer;
use crate::interface::{KeyStreamId, Qos, QosRequest, Status};

/// JSON of the shapes that the protocol has, with values that it may not have.
fn value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        Just(json!(0)),
        Just(json!(1)),
        Just(json!(u64::MAX)),
        Just(json!(u64::MAX - 1)),
        Just(json!(-1)),
        Just(json!(1.5)),
        (0..50_u64).prop_map(|n| json!(n)),
    ];
    let leaf = prop_oneof![
        number,
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        "[a-z:/]{0,12}".prop_map(Value::String),
        Just(json!("00000000-0000-0000-0000-0000000003e9")),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::btree_map("[a-z]{1,8}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A real message of one end, with some of its values replaced.
fn distort(message: &Message, places: &[(usize, Value)]) -> Option<Message> {
    let mut json = serde_json::to_value(message).unwrap();
    for (place, value) in places {
        let count = leaves(&mut json, usize::MAX, value);
        leaves(&mut json, place % count.max(1), value);
    }
    Message::decode(&serde_json::to_vec(&json).unwrap()).ok()
}

/// Puts `value` in the place of the leaf number `at`, if there is one; returns how many there are up to there.
fn leaves(json: &mut Value, at: usize, value: &Value) -> usize {
    let inner: Vec<&mut Value> = match json {
        Value::Object(map) => map.iter_mut().filter(|(name, _)| *name != "type").map(|(_, v)| v).collect(),
        Value::Array(inner) if !inner.is_empty() => inner.iter_mut().collect(),
        leaf => {
            if at == 0 {
                *leaf = value.clone();
            }
            return 1;
        }
    };
    let mut passed = 0;
    for inner in inner {
        passed += leaves(inner, at.checked_sub(passed).unwrap_or(usize::MAX), value);
    }
    passed
}

/// Messages of a real conversation, by who hears them.
fn conversation() -> [Vec<Message>; 2] {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest::default());
    let mut heard = [Vec::new(), Vec::new()];
    for round in 0..30 {
        both.block();
        for end in 0..2 {
            both.accept(end, stream);
        }
        if round % 7 == 0 {
            both.cut();
            both.connect();
        }
        let overheard = both.overhear(20);
        for (all, new) in heard.iter_mut().zip(overheard) {
            all.extend(new);
        }
    }
    heard
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_json_makes_the_core_panic(
        places in prop::collection::vec((any::<usize>(), value()), 1..4),
        picks in prop::collection::vec(any::<usize>(), 1..40),
    ) {
        let heard = conversation();
        let mut both = Ends::in_step(1_000_000);
        both.stream(QosRequest::default());
        for pick in picks {
            for end in 0..2 {
                let message = &heard[end][pick % heard[end].len()];
                if let Some(message) = distort(message, &places) {
                    both.event(end, Event::PeerMessage(message));
                }
                if !both.ends[end].core.status().connected {
                    both.connect();
                }
            }
            both.run(3);
        }
        for end in &both.ends {
            prop_assert!(end.durable.streams.len() <= 2_000);
        }
    }

    #[test]
    fn any_octets_are_a_message_or_a_fault(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::decode(&octets);
    }
}

#[test]
fn a_message_beyond_the_limits_is_a_fault() {
    let long = vec![b' '; MESSAGE_BYTES_MAX + 1];
    assert!(matches!(Message::decode(&long), Err(PeerFault::TooLong(_))));
    let have: Vec<[u64; 3]> = (0..3_000).map(|i| [1, 2 * i, 2 * i]).collect();
    let report = |have: Value| {
        json!({"type": "report", "epoch": 1, "serial": 1, "urgent": false, "applied": 0,
            "hash": "00".repeat(32), "have": have, "complete": [1, 0], "streams": [], "link": 3,
            "secret_key_rate_bps": 1, "capacity": {"bytes": 1, "blocks": 1}, "pinned": {"bytes": 0, "blocks": 0}})
    };
    let decode = |json: Value| Message::decode(&serde_json::to_vec(&json).unwrap());
    assert!(matches!(decode(report(json!(have))), Err(PeerFault::TooMany { .. })));
    for wrong in [
        json!([[1, 5, 4]]),
        json!([[1, 5, 6], [1, 6, 7]]),
        json!([[1, 0, u64::MAX]]),
        json!([[2, 0, 1], [1, 0, 1]]),
    ] {
        assert!(matches!(decode(report(wrong)), Err(PeerFault::Nonsense { .. })));
    }
    assert!(decode(report(json!([[1, 5, 6], [1, 8, 9], [2, 0, 0]]))).is_ok());
    let refuse = json!({"type": "refuse", "reason": "x".repeat(3_000)});
    assert!(matches!(decode(refuse), Err(PeerFault::LongText { .. })));
}

#[test]
fn messages_of_the_wrong_role_end_the_connection() {
    let mut both = Ends::in_step(1_000);
    let heard = {
        let mut other = Ends::in_step(1_000);
        other.block();
        other.overhear(600)
    };
    let log = heard[1].iter().find(|m| matches!(m, Message::Log(_))).unwrap().clone();
    both.event(0, Event::PeerMessage(log));
    assert!(both.ends[0].says("a log message, but the other end is the follower"));
    assert!(!both.ends[0].core.status().connected);
}

#[test]
fn a_follower_that_claims_what_it_cannot_have_applied_is_a_fault() {
    let mut both = Ends::in_step(1_000);
    both.block();
    let heard = both.overhear(600);
    let Some(Message::Report(mut report)) =
        heard[0].iter().find(|m| matches!(m, Message::Report(_))).cloned()
    else {
        panic!("no report");
    };
    report.applied += 5;
    both.event(0, Event::PeerMessage(Message::Report(report)));
    assert!(both.ends[0].says("it is not an entry of this log"));
}

#[test]
fn a_leader_cannot_make_the_follower_spin_over_a_timeout_of_0_or_allocate_a_chunk_of_4_gib() {
    let opens = |m: &&Message| {
        let Message::Log(log) = m else { return false };
        log.entries.iter().any(|entry| matches!(entry.decision, Decision::Open(_)))
    };
    let mut both = Ends::in_step(1_000_000);
    both.open(0, None, QosRequest::default());
    let log = both.overhear(20)[1].iter().find(opens).cloned().expect("the follower hears of the stream");
    assert_eq!(log.check(), Ok(()));
    for spoil in [|qos: &mut Qos| qos.timeout = 0, |qos: &mut Qos| qos.key_chunk_size = u32::MAX] {
        let Message::Log(mut log) = log.clone() else { panic!("no log") };
        for entry in &mut log.entries {
            if let Decision::Open(open) = &mut entry.decision {
                spoil(&mut open.qos);
            }
        }
        assert!(matches!(Message::Log(log).check(), Err(PeerFault::Nonsense { what: "qos", .. })));
    }
    let Message::Log(mut late) = log else { panic!("no log") };
    late.epoch = u64::MAX;
    assert!(matches!(Message::Log(late).check(), Err(PeerFault::Nonsense { what: "epoch", .. })));
}

#[test]
fn a_follower_that_claims_every_block_there_can_be_makes_the_leader_burn_none_that_may_come() {
    for have in [vec![], vec![Range { session: 1, first: 3, last: u64::MAX - 1 }]] {
        let mut both = Ends::in_step(1_000_000);
        both.stream(QosRequest { key_chunk_size: Some(4_096), ..QosRequest::default() });
        both.block();
        both.block();
        let heard = both.overhear(600);
        let Some(Message::Report(report)) =
            heard[0].iter().rfind(|m| matches!(m, Message::Report(_))).cloned()
        else {
            panic!("no report");
        };
        let complete = BlockName::new(u64::MAX, 0);
        let report = Report { serial: report.serial + 100, have, complete, ..report };
        both.event(0, Event::PeerMessage(Message::Report(report)));
        both.run(5);
        let mark = both.ends[0].core.status().mark;
        assert!(mark <= Mark::at(BlockName::new(1, 2)), "burnt to {mark}");
    }
    let heard = conversation();
    let Some(Message::Report(report)) = heard[0].iter().rfind(|m| matches!(m, Message::Report(_))).cloned()
    else {
        panic!("no report");
    };
    let beyond = Report { complete: BlockName::new(u64::MAX, u64::MAX), ..report };
    assert!(matches!(Message::Report(beyond).check(), Err(PeerFault::Nonsense { .. })));
}

#[test]
fn no_wish_takes_a_stream_beyond_what_push_can_count() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest { key_chunk_size: Some(1_024), ..QosRequest::default() });
    let heard = both.overhear(600);
    let Some(Message::Report(mut report)) =
        heard[0].iter().rfind(|m| matches!(m, Message::Report(_))).cloned()
    else {
        panic!("no report");
    };
    report.serial += 1;
    let line =
        FollowerLine { stream, opened: true, wanted: true, closed: false, position: 0, wish: u64::MAX - 7 };
    report.streams = vec![line];
    both.event(0, Event::PeerMessage(Message::Report(report)));
    both.run(20);
    for _ in 0..4 {
        both.block();
    }
    both.run(100);
    for end in 0..2 {
        let Some(position) = both.ends[end].core.streams().map(|s| s.position).next() else {
            panic!("the stream is gone");
        };
        assert_eq!(position, u64::MAX / 1_024, "end {end}");
        assert!(both.ends[end].deliveries().is_empty(), "push would have to refuse it");
        let call = both.get_key(end, stream, Some(position as u32));
        both.run(10);
        assert!(
            matches!(
                both.ends[end].answer(call),
                Some(Answer::Refused { status: Status::InsufficientKey, .. })
            ),
            "{:?}",
            both.ends[end].answer(call)
        );
    }
    assert!(both.ends[1].core.status().connected);
}

#[test]
fn what_only_the_other_role_may_say_is_refused() {
    let stream = KeyStreamId::from_u128(1);
    let request = OpenRequest {
        call: 1,
        stream,
        chosen: true,
        kms: "kms://b".into(),
        source: "kms://a".into(),
        destination: "kms://b".into(),
        qos: QosRequest::default(),
    };
    let reply = OpenReply {
        call: 1,
        stream,
        status: Status::Successful,
        detail: String::new(),
        counter_proposal: None,
    };
    let [heard, _] = Ends::in_step(8_000_000).overhear(10_000);
    let report = heard.into_iter().find(|message| matches!(message, Message::Report(_)));
    let report = report.expect("the follower reports now and then");
    for (end, name, message) in [
        (1, "open_request", Message::OpenRequest(request)),
        (1, "report", report),
        (0, "open_reply", Message::OpenReply(reply)),
    ] {
        let mut both = Ends::in_step(8_000_000);
        both.event(end, Event::PeerMessage(message));
        assert!(both.ends[end].says("broke the peer protocol") && both.ends[end].says(name), "{name}");
        assert_eq!(both.ends[end].core.status().counters.peer_faults, 1);
    }
}

#[test]
fn a_follower_that_has_other_entries_under_the_same_number_is_refused() {
    let mut both = Ends::in_step(8_000_000);
    both.stream(QosRequest::default());
    let [heard, _] = both.overhear(10_000);
    let report = heard.into_iter().rev().find_map(|message| match message {
        Message::Report(report) => Some(report),
        _ => None,
    });
    let mut report = report.expect("the follower reports now and then");
    let own = both.ends[0].durable.peer_applied;
    assert_eq!(report.applied, own, "it has applied all that there is");
    report.serial += 1;
    report.hash = Digest::NONE;
    both.event(0, Event::PeerMessage(Message::Report(report)));
    assert!(both.ends[0].says("broke the peer protocol"));
}
