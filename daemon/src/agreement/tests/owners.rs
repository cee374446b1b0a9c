//! What a KMS hears of another KMS's key stream: what it would of one that does not exist.

use super::two_ends::{A, B, Ends, settings};
use crate::agreement::Role;
use crate::calls::{Answer, Call, Close, GetKey, Open};
use crate::interface::{KeyStreamId, QosRequest};

const STRANGER: &str = "kms://stranger";

/// What `kms` is answered about a stream, by get-key and by close, with the ID taken out.
fn told(both: &mut Ends, end: usize, kms: &str, stream: KeyStreamId) -> Vec<String> {
    let kms = || Some(kms.to_owned());
    [
        Call::GetKey(GetKey { kms: kms(), stream, index: None }),
        Call::GetKey(GetKey { kms: kms(), stream, index: Some(5) }),
        Call::Close(Close { kms: kms(), stream }),
    ]
    .map(|call| {
        let id = both.call(end, call);
        // A stranger's call must not even wait.
        let answer = both.ends[end].answer(id).cloned();
        both.run(20);
        format!("{answer:?}").replace(&stream.to_string(), "ID")
    })
    .to_vec()
}

fn is_the_same(both: &mut Ends, end: usize, stream: KeyStreamId, when: &str) {
    let theirs = told(both, end, STRANGER, stream);
    let nothing = told(both, end, STRANGER, KeyStreamId::from_u128(404));
    assert_eq!(theirs, nothing, "end {end}, {when}");
    assert!(nothing.iter().all(|answer| answer.contains("Refused")), "{nothing:?}");
}

#[test]
fn a_strangers_calls_are_answered_as_if_the_stream_were_not_there_in_each_of_its_states() {
    for first in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        let stream = KeyStreamId::from_u128(1);
        both.open(first, Some(stream), QosRequest::default());
        both.run(20);
        for end in 0..2 {
            is_the_same(&mut both, end, stream, "half open");
        }
        both.open(1 - first, Some(stream), QosRequest::default());
        both.run(20);
        for end in 0..2 {
            is_the_same(&mut both, end, stream, "open");
            both.get_key(end, stream, None);
        }
        both.run(20);
        for end in 0..2 {
            is_the_same(&mut both, end, stream, "wanted");
        }
        // Nothing of all this has touched it: its own KMSs go on, by their names.
        for (end, own) in [A, B].into_iter().enumerate() {
            let get_key = GetKey { kms: Some(own.to_owned()), stream, index: None };
            let call = both.call(end, Call::GetKey(get_key));
            both.run(20);
            assert_eq!(both.ends[end].answer(call), Some(&Answer::Done), "end {end}");
            assert!(both.ends[end].core.streams().any(|s| s.stream == stream && !s.closed), "end {end}");
        }
    }
}

/// Both ends with more KMSs than one at the leader's.
fn with_kms_at_the_leader(kms: &[&str]) -> Ends {
    let mut leader = settings(Role::Leader);
    leader.local_kms = kms.iter().map(|kms| (*kms).to_owned()).collect();
    Ends::with(leader, settings(Role::Follower), 8_000_000)
}

/// What a KMS at the leader is answered that opens a stream by its ID.
fn opens(both: &mut Ends, kms: &str, stream: KeyStreamId, pair: [&str; 2]) -> String {
    let [source, destination] = pair.map(str::to_owned);
    let open =
        Open { kms: kms.to_owned(), source, destination, stream: Some(stream), qos: QosRequest::default() };
    let call = both.call(0, Call::Open(open));
    both.run(20);
    format!("{:?}", both.ends[0].answer(call))
}

#[test]
fn a_stream_is_the_same_one_with_source_and_destination_the_other_way_round() {
    let mut both = Ends::in_step(8_000_000);
    let stream = KeyStreamId::from_u128(1);
    assert!(opens(&mut both, A, stream, [A, B]).contains("Opened"));
    assert!(opens(&mut both, A, stream, [B, A]).contains("Opened"));
}

#[test]
fn a_stream_between_two_kms_is_not_opened_by_a_pair_that_shares_one_of_them() {
    const OTHER: &str = "kms://other";
    let stream = KeyStreamId::from_u128(1);
    for pair in [[OTHER, B], [B, OTHER]] {
        let mut both = with_kms_at_the_leader(&[A, OTHER]);
        assert!(opens(&mut both, A, stream, [A, B]).contains("Opened"));
        let said = opens(&mut both, OTHER, stream, pair);
        assert!(said.contains("between other KMSs"), "{said}");
    }
}

#[test]
fn a_stream_of_two_kms_at_one_end_is_not_opened_twice_there() {
    let mut both = with_kms_at_the_leader(&[A, B]);
    let stream = KeyStreamId::from_u128(1);
    let first = opens(&mut both, A, stream, [A, B]);
    let second = opens(&mut both, B, stream, [A, B]);
    assert!(second.contains("Refused"), "{first}, {second}");
}

#[test]
fn a_stream_that_one_end_has_closed_is_not_opened_again() {
    for end in 0..2 {
        let mut both = Ends::in_step(8_000_000);
        let stream = both.stream(QosRequest::default());
        both.close(end, stream);
        both.run(20);
        let call = both.open(1 - end, Some(stream), QosRequest::default());
        both.run(20);
        let said = format!("{:?}", both.ends[1 - end].answer(call));
        assert!(said.contains("being closed"), "end {}: {said}", 1 - end);
    }
}
