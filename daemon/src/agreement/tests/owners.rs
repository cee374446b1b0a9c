//! What a KMS hears of another KMS's key stream: what it would of one that does not exist.

use super::two_ends::{A, B, Ends};
use crate::calls::{Answer, Call, Close, GetKey};
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
