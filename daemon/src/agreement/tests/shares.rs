//! What one KMS may have at once, and that it takes nobody else's room.

use super::calls::{qos, status};
use super::two_ends::{Ends, settings};
use crate::agreement::Role;
use crate::calls::{Call, Open};

#[test]
fn a_kms_has_as_many_streams_as_it_may_and_takes_nobody_elses_room() {
    let mut leader = settings(Role::Leader);
    leader.most_streams_per_kms = 2;
    leader.half_open_expiry_ms = 500;
    let mut both = Ends::with(leader, settings(Role::Follower), 1_000_000);
    for wanted in [1, 1, 4] {
        let call = both.open(0, None, qos(64));
        assert_eq!(status(both.ends[0].answer(call)), wanted);
    }
    // The KMS at the other end has opened none yet.
    for wanted in [1, 1, 4] {
        let call = both.open(1, None, qos(64));
        both.run(20);
        assert_eq!(status(both.ends[1].answer(call)), wanted);
    }
    // Nor may a KMS at its limit join a stream, and what it has opened still answers the same.
    let offered: Vec<_> =
        both.ends[0].durable.streams.iter().filter(|(_, s)| s.peer_opened).map(|(id, _)| *id).collect();
    let joined = both.open(0, Some(offered[0]), qos(64));
    assert_eq!(status(both.ends[0].answer(joined)), 4);
    let own: Vec<_> =
        both.ends[0].durable.streams.iter().filter(|(_, s)| s.opened.is_some()).map(|(id, _)| *id).collect();
    let again = both.open(0, Some(own[0]), qos(64));
    assert_eq!(status(both.ends[0].answer(again)), 1);
    // Room comes back with a stream's end.
    both.run(600);
    let call = both.open(0, None, qos(64));
    assert_eq!(status(both.ends[0].answer(call)), 1);
}

#[test]
fn streams_that_another_kms_left_half_open_with_one_do_not_count_against_it() {
    let mut leader = settings(Role::Leader);
    leader.most_half_open_per_kms = 2;
    let mut both = Ends::with(leader, settings(Role::Follower), 1_000_000);
    for wanted in [1, 1, 4] {
        let call = both.open(1, None, qos(64));
        both.run(20);
        assert_eq!(status(both.ends[1].answer(call)), wanted);
    }
    for wanted in [1, 1, 4] {
        let call = both.open(0, None, qos(64));
        assert_eq!(status(both.ends[0].answer(call)), wanted);
    }
}

#[test]
fn calls_of_one_kms_that_wait_leave_room_for_those_of_another() {
    let mut follower = settings(Role::Follower);
    follower.most_waiting_calls_per_kms = 2;
    follower.local_kms.push("kms://b2".to_owned());
    let mut both = Ends::with(settings(Role::Leader), follower, 1_000_000);
    // The leader is not heard: every open waits.
    both.cut();
    let waiting = [both.open(1, None, qos(64)), both.open(1, None, qos(64))];
    let beyond = both.open(1, None, qos(64));
    assert_eq!(status(both.ends[1].answer(beyond)), 6);
    let other = both.call(
        1,
        Call::Open(Open {
            kms: "kms://b2".to_owned(),
            source: "kms://a".to_owned(),
            destination: "kms://b2".to_owned(),
            stream: None,
            qos: qos(64),
        }),
    );
    for call in waiting.into_iter().chain([other]) {
        assert!(both.ends[1].answer(call).is_none(), "{call} waits");
    }
}
