//! Calls that have to wait for the other end, and those that must not.

use super::calls::status;
use super::two_ends::{A, B, Ends, settings};
use crate::agreement::{Event, Role};
use crate::calls::{Answer, Call, Close, GetKey};
use crate::interface::{KeyStreamId, QosRequest};

const STREAMS: [KeyStreamId; 2] = [KeyStreamId::from_u128(1), KeyStreamId::from_u128(2)];

/// A follower with a stream of each of two KMSs, which the other end has not opened, and which hears nothing any more.
fn cut_off() -> Ends {
    let (leader, mut follower) = (settings(Role::Leader), settings(Role::Follower));
    follower.local_kms.push("kms://c".into());
    follower.most_waiting_calls_per_kms = 2;
    let mut both = Ends::with(leader, follower, 1_000_000);
    for (kms, stream) in [B, "kms://c"].into_iter().zip(STREAMS) {
        let open = crate::calls::Open {
            kms: kms.into(),
            source: A.into(),
            destination: kms.into(),
            stream: Some(stream),
            qos: QosRequest::default(),
        };
        let call = both.call(1, Call::Open(open));
        both.run(20);
        assert!(matches!(both.ends[1].answer(call), Some(Answer::Opened { .. })));
    }
    both.connected = false;
    both
}

#[test]
fn a_kms_whose_get_keys_all_wait_is_refused_and_another_is_not() {
    let mut both = cut_off();
    let [mine, others] = STREAMS;
    // By its stream, or by its name.
    for kms in [None, Some(B.to_owned())] {
        let waits = both.call(1, Call::GetKey(GetKey { kms, stream: mine, index: None }));
        assert_eq!(both.ends[1].answer(waits), None);
    }
    let third = both.get_key(1, mine, None);
    assert_eq!(status(both.ends[1].answer(third)), 6);
    let close = both.call(1, Call::Close(Close { kms: None, stream: mine }));
    assert_eq!(status(both.ends[1].answer(close)), 6, "any call of its");
    for _ in 0..2 {
        let waits = both.get_key(1, others, None);
        assert_eq!(both.ends[1].answer(waits), None);
    }
}

#[test]
fn closes_that_wait_for_push_count_as_their_kmss() {
    let (leader, mut follower) = (settings(Role::Leader), settings(Role::Follower));
    follower.most_waiting_calls_per_kms = 2;
    let mut both = Ends::with(leader, follower, 1_000_000);
    let stream = both.stream(QosRequest::default());
    for _ in 0..2 {
        let waits = both.close(1, stream);
        assert_eq!(both.ends[1].answer(waits), None);
    }
    let third = both.close(1, stream);
    assert_eq!(status(both.ends[1].answer(third)), 6);
}

#[test]
fn a_get_key_that_can_be_refused_at_once_does_not_wait() {
    let mut both = cut_off();
    let [mine, _] = STREAMS;
    let refused = |both: &mut Ends, get_key: GetKey, words: &str| {
        let call = both.call(1, Call::GetKey(get_key));
        let said = format!("{:?}", both.ends[1].answer(call));
        assert!(said.contains("Refused") && said.contains(words), "{said}");
    };
    let of = |kms: Option<&str>, stream| GetKey { kms: kms.map(str::to_owned), stream, index: None };
    refused(&mut both, of(None, KeyStreamId::from_u128(404)), "is not open");
    refused(&mut both, of(Some("kms://c"), mine), "is not open");
    let close = both.close(1, mine);
    both.event(1, Event::Stopped { stream: mine, sent_up_to: 0 });
    assert_eq!(status(both.ends[1].answer(close)), 0);
    refused(&mut both, of(None, mine), "is closed");
}

#[test]
fn a_kms_whose_stream_the_other_end_has_opened_first_hears_that_it_has_to_open() {
    for end in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        both.open(1 - end, Some(STREAMS[0]), QosRequest::default());
        both.run(20);
        for kms in [None, Some([A, B][end].to_owned())] {
            let call = both.call(end, Call::GetKey(GetKey { kms, stream: STREAMS[0], index: None }));
            let said = format!("{:?}", both.ends[end].answer(call));
            assert!(said.contains("was not opened by the KMS at this end"), "{said}");
        }
    }
}

#[test]
fn a_kms_that_takes_key_may_ask_again_after_the_other_has_closed_and_one_that_does_not_may_not() {
    for first in [true, false] {
        let mut both = Ends::in_step(1_000_000);
        for end in 0..2 {
            both.open(end, Some(STREAMS[0]), QosRequest::default());
            both.run(20);
        }
        if first {
            both.get_key(0, STREAMS[0], None);
            both.block();
            both.get_key(1, STREAMS[0], None);
            both.run(20);
        }
        both.close(1, STREAMS[0]);
        both.run(20);
        let again = both.get_key(0, STREAMS[0], None);
        assert_eq!(status(both.ends[0].answer(again)), if first { 0 } else { 3 }, "{first}");
    }
}

#[test]
fn a_wish_for_a_later_position_is_not_taken_back_by_one_for_an_earlier() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest::default());
    both.connected = false;
    for (index, wish) in [(50, 50), (20, 50), (60, 60), (0, 60)] {
        both.get_key(1, stream, Some(index));
        assert_eq!(both.ends[1].durable.streams[&stream].wish, wish, "{index}");
    }
}
