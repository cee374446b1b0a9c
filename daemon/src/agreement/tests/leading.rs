//! How the leader cuts its log into messages, whom it tells of, and what it reserves.

use super::two_ends::{A, B, Ends, settings};
use crate::agreement::leader::next_in_turn;
use crate::agreement::{BlockName, Decision, Event, Message, Role};
use crate::calls::{Answer, Call, Open};
use crate::interface::{KeyStreamId, QosRequest};

/// Two ends whose leader has room for many streams that only its KMS opens.
fn roomy(kms: [&str; 2]) -> Ends {
    let [leader, follower] = [(Role::Leader, kms[0]), (Role::Follower, kms[1])].map(|(role, kms)| {
        let mut settings = settings(role);
        settings.local_kms = vec![kms.to_owned()];
        settings.most_streams_per_kms = 1_000;
        settings.most_half_open_per_kms = 1_000;
        settings
    });
    Ends::with(leader, follower, 8_000_000)
}

/// `count` streams are opened at the leader while the follower hears nothing, and then it is connected again. Entries and
/// lines of the log messages that it hears until it has all.
fn told_of_streams(kms: [&str; 2], count: usize) -> Vec<(usize, usize)> {
    let mut both = roomy(kms);
    both.connected = false;
    for _ in 0..count {
        let [kms, source, destination] = [kms[0], kms[0], kms[1]].map(str::to_owned);
        let qos = QosRequest::default();
        let call = both.call(0, Call::Open(Open { kms, source, destination, stream: None, qos }));
        assert!(matches!(both.ends[0].answer(call), Some(Answer::Opened { .. })));
    }
    let sizes = told_again(&mut both).iter().map(|log| (log.0, log.1)).collect();
    assert_eq!(both.ends[1].core.status().streams, count);
    sizes
}

/// Entries, lines and extents of the log messages with anything in them after a new connection.
fn told_again(both: &mut Ends) -> Vec<(usize, usize, usize)> {
    both.cut();
    both.connect();
    let heard: Vec<Vec<Message>> = (0..10)
        .map(|_| {
            let [_, heard] = both.overhear(1);
            heard
        })
        .collect();
    let with_entries = heard.iter().filter(|heard| {
        heard.iter().any(|message| matches!(message, Message::Log(log) if !log.entries.is_empty()))
    });
    assert_eq!(with_entries.count(), 1, "none waits for an answer to the one before");
    let logs = heard.iter().flatten().filter_map(|message| match message {
        Message::Log(log) => Some(log),
        _ => None,
    });
    let sizes = logs.map(|log| {
        let extents = log.entries.iter().map(|entry| match &entry.decision {
            Decision::Grant(grant) => grant.extents.len(),
            _ => 0,
        });
        (log.entries.len(), log.streams.len(), extents.sum())
    });
    sizes.filter(|size| *size != (0, 0, 0)).collect()
}

#[test]
fn a_long_log_goes_in_messages_as_full_as_they_may_be_and_no_fuller() {
    assert_eq!(told_of_streams([A, B], 600), [(256, 512), (256, 88), (88, 0)]);
}

#[test]
fn long_names_do_not_make_a_message_longer_than_a_frame() {
    let [a, b] = ["a", "b"].map(|name| format!("kms://{}", name.repeat(1_786)));
    // 75 times 8 KiB are the 600 KiB that a message aims at.
    assert_eq!(told_of_streams([&a, &b], 100), [(75, 100), (25, 0)]);
}

#[test]
fn grants_of_many_blocks_share_a_message_while_it_may_hold_them() {
    // A link so slow that the first stream takes half of what is there, and leaves the other half.
    let mut both = Ends::in_step(8_000);
    for _ in 0..2 {
        both.stream(QosRequest { key_chunk_size: Some(1_024), ..QosRequest::default() });
    }
    for sequence in 0..4_096 + 1_024 {
        for end in 0..2 {
            both.event(
                end,
                Event::BlockHeld { name: BlockName::new(1, sequence), length: 1, replayed: false },
            );
        }
    }
    while both.ends[0].core.status().counters.grants == 0 {
        both.run(1);
    }
    // One look ahead takes 4,096 blocks, as a message does. The second is told to nobody.
    both.connected = false;
    both.run(10);
    let grants = both.ends[0].core.status().counters.grants;
    assert!(grants > 2, "{grants}");
    let extents: Vec<usize> =
        told_again(&mut both).iter().map(|log| log.2).filter(|count| *count > 0).collect();
    assert_eq!(extents, [4_096, 1_024]);
}

#[test]
fn everybody_has_its_turn_to_be_told_of_and_nobody_twice_before() {
    let ids = |numbers: &[u128]| numbers.iter().map(|n| KeyStreamId::from_u128(*n)).collect::<Vec<_>>();
    let all = ids(&[3, 1, 5, 2, 4]);
    let next = |turn: Option<u128>, most| next_in_turn(all.iter(), turn.map(KeyStreamId::from_u128), most);
    let at = |turn| Some(KeyStreamId::from_u128(turn));
    assert_eq!(next(None, 2), (ids(&[1, 2]), at(2)));
    assert_eq!(next(Some(2), 2), (ids(&[3, 4]), at(4)));
    assert_eq!(next(Some(4), 2), (ids(&[5]), None));
    assert_eq!(next(None, 5), (ids(&[1, 2, 3, 4, 5]), at(5)));
    assert_eq!(next(Some(5), 5), (ids(&[]), None));
}

#[test]
fn a_rate_is_reserved_while_both_ends_have_the_stream_open() {
    let mut both = Ends::in_step(8_000_000);
    let minimum = |bps| QosRequest { min_bps: Some(bps), ..QosRequest::default() };
    both.open(0, None, minimum(1_000_000));
    both.open(1, None, minimum(2_000_000));
    both.run(20);
    assert_eq!(both.ends[0].core.leading.reserved_bps, 0);
    let stream = both.stream(minimum(4_000_000));
    assert_eq!(both.ends[0].core.leading.reserved_bps, 4_000_000);
    both.close(1, stream);
    both.run(20);
    assert_eq!(both.ends[0].core.leading.reserved_bps, 0);
}

#[test]
fn a_line_that_was_lost_is_said_again_though_the_connection_stands() {
    let mut both = Ends::in_step(8_000_000);
    let stream = both.stream(QosRequest::default());
    both.connected = false;
    both.close(0, stream);
    both.run(1);
    both.connected = true;
    assert!(!both.ends[1].says("closed at the other end"));
    both.run(10_000);
    assert!(both.ends[1].says("closed at the other end"));
}

#[test]
fn an_entry_that_was_lost_is_said_again_though_one_before_it_has_arrived() {
    let mut both = Ends::in_step(8_000_000);
    both.open(0, None, QosRequest::default());
    both.run(1);
    // The follower's word of the first is on its way when the second is lost.
    both.connected = false;
    both.open(0, None, QosRequest::default());
    both.connected = true;
    both.run(5_000);
    assert_eq!(both.ends[1].core.status().streams, 2);
}

#[test]
fn a_call_that_waits_for_the_leaders_word_does_not_wait_for_the_next_occasion() {
    let mut both = Ends::in_step(8_000_000);
    let call = both.get_key(1, KeyStreamId::from_u128(5), None);
    both.run(5);
    assert!(matches!(both.ends[1].answer(call), Some(Answer::Refused { .. })), "nobody knows that stream");
}
