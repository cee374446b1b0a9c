//! How streams end, and what must be over with them.

use super::two_ends::{A, B, BLOCK, Ends, settings};
use crate::agreement::{Action, Event, Role};
use crate::calls::{Answer, Call, Open};
use crate::interface::{KeyStreamId, QosRequest, Status};

fn qos(chunk: u32) -> QosRequest {
    QosRequest { key_chunk_size: Some(chunk), ..QosRequest::default() }
}

fn told(both: &Ends, end: usize, stream: KeyStreamId) -> usize {
    let notice = |action: &&Action| matches!(action, Action::Notice { stream: s, status: Status::PeerNotConnected, .. } if *s == stream);
    both.ends[end].actions.iter().filter(notice).count()
}

fn stopped(both: &Ends, end: usize, stream: KeyStreamId) -> usize {
    let stop = |action: &&Action| matches!(action, Action::Stop { stream: s } if *s == stream);
    both.ends[end].actions.iter().filter(stop).count()
}

#[test]
fn a_stream_that_expires_is_gone_at_both_ends_and_its_kmss_hear_of_it_once() {
    let mut both = Ends::in_step(1_000_000);
    let open = both.open(0, None, qos(64));
    let Some(Answer::Opened { stream, .. }) = both.ends[0].answer(open).cloned() else { panic!() };
    both.run(20);
    both.open(1, Some(stream), qos(64));
    both.run(61_000);
    for end in 0..2 {
        assert!(both.ends[end].core.streams().all(|s| s.stream != stream), "end {end} still has it");
        assert_eq!(told(&both, end, stream), 1, "end {end}");
        assert_eq!(stopped(&both, end, stream), 1, "end {end}");
    }
}

#[test]
fn a_kms_that_has_closed_is_not_told_that_the_stream_is_over() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(qos(64));
    for end in 0..2 {
        both.close(end, stream);
        both.event(end, Event::Stopped { stream, sent_up_to: 0 });
    }
    both.run(30);
    for end in 0..2 {
        assert!(both.ends[end].core.streams().all(|s| s.stream != stream), "end {end} still has it");
        assert_eq!(stopped(&both, end, stream), 1, "end {end}");
    }
    assert_eq!(told(&both, 0, stream), 0, "it was the first to close");
    assert_eq!(told(&both, 1, stream), 0, "it had closed before it could hear of the other's close");
}

#[test]
fn entries_that_nobody_needs_leave_the_log_at_once() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(qos(64));
    both.block();
    both.run(30);
    for end in [1, 0] {
        both.accept(end, stream);
        both.run(2_000);
    }
    for end in 0..2 {
        assert!(both.ends[end].durable.log.is_empty(), "end {end}: {:?}", both.ends[end].durable.log);
    }
    assert_eq!(both.delivered(0, stream), u64::from(BLOCK));
}

#[test]
fn a_uri_that_is_too_long_or_has_control_characters_opens_nothing() {
    let mut both = Ends::in_step(1_000_000);
    let long = "kms://".to_owned() + &"x".repeat(2_048);
    for other in [long.as_str(), "kms://b\n", "kms://\u{7f}"] {
        let call = Call::Open(Open {
            kms: A.to_owned(),
            source: A.to_owned(),
            destination: other.to_owned(),
            stream: None,
            qos: qos(64),
        });
        let id = both.call(0, call);
        let answer = both.ends[0].answer(id);
        assert!(
            matches!(answer, Some(Answer::Refused { detail, .. }) if detail.contains("control characters")),
            "{answer:?}"
        );
    }
    let longest = "kms://".to_owned() + &"x".repeat(2_042);
    let call = Call::Open(Open {
        kms: A.to_owned(),
        source: A.to_owned(),
        destination: longest,
        stream: None,
        qos: qos(64),
    });
    let id = both.call(0, call);
    let answer = both.ends[0].answer(id);
    assert!(
        !matches!(answer, Some(Answer::Refused { detail, .. }) if detail.contains("octets")),
        "{answer:?}"
    );
    assert_eq!(B, "kms://b");
}

#[test]
fn a_get_key_that_waits_for_the_leader_is_asked_again_over_the_next_connection() {
    let mut both = Ends::in_step(1_000_000);
    let open = both.open(1, None, qos(64));
    both.run(20);
    let Some(Answer::Opened { stream, .. }) = both.ends[1].answer(open).cloned() else { panic!() };
    let wanted = both.get_key(1, stream, None);
    // What was asked never arrives.
    both.cut();
    both.connect();
    both.run(100);
    let answer = both.ends[1].answer(wanted);
    let status = Status::PeerApplicationNotConnected;
    assert!(matches!(answer, Some(Answer::Refused { status: s, .. }) if *s == status), "{answer:?}");
}

#[test]
fn no_more_closed_ids_are_remembered_than_may_be() {
    let (mut leader, mut follower) = (settings(Role::Leader), settings(Role::Follower));
    (leader.most_closed_ids, follower.most_closed_ids) = (2, 2);
    let mut both = Ends::with(leader, follower, 1_000_000);
    for _ in 0..4 {
        let stream = both.stream(qos(64));
        for end in 0..2 {
            both.close(end, stream);
            both.event(end, Event::Stopped { stream, sent_up_to: 0 });
        }
        both.run(30);
    }
    for end in &both.ends {
        assert_eq!(end.core.status().closed_ids, 2);
    }
}
