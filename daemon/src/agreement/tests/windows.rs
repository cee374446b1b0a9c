//! When a stream whose KMSs lag behind the link gets more, and when what they have accepted is written down.

use super::two_ends::{Ends, settings};
use crate::agreement::{BlockName, Capacity, Event, Role};
use crate::interface::{KeyStreamId, QosRequest};

const CHUNK: u32 = 1_024;
const BLOCK: u32 = 65_536;

/// Both ends, with windows of so many chunks and room for so many octets, and blocks that are all held.
fn ends(window: u64, room: u64, blocks: u64) -> Ends {
    let of = |role| {
        let mut settings = settings(role);
        settings.window_bytes = window * u64::from(CHUNK);
        settings.card.retention = Capacity { bytes: room, blocks: 65_536 };
        settings.progress_interval_ms = 60_000;
        settings
    };
    let mut both = Ends::with(of(Role::Leader), of(Role::Follower), 8_000_000);
    for sequence in 0..blocks {
        for end in 0..2 {
            let name = BlockName::new(1, sequence);
            both.event(end, Event::BlockHeld { name, length: BLOCK, replayed: false });
        }
    }
    both
}

fn qos() -> QosRequest {
    QosRequest { key_chunk_size: Some(CHUNK), ..QosRequest::default() }
}

fn accept(both: &mut Ends, stream: KeyStreamId, up_to: u64) {
    for end in 0..2 {
        both.event(end, Event::Accepted { stream, up_to });
    }
    both.run(20);
}

/// Chunks that were ever granted to the stream.
fn granted(both: &Ends, stream: KeyStreamId) -> u64 {
    both.ends[0].durable.streams[&stream].next
}

#[test]
fn who_has_more_than_half_a_window_on_its_way_does_not_make_an_entry_of_each_acceptance() {
    let mut both = ends(64, 64 << 20, 8);
    let stream = both.stream(qos());
    assert_eq!(granted(&both, stream), 64);
    let entries = both.ends[0].durable.last;
    for up_to in 1..32 {
        accept(&mut both, stream, up_to);
    }
    assert_eq!((granted(&both, stream), both.ends[0].durable.last), (64, entries));
    accept(&mut both, stream, 32);
    assert_eq!((granted(&both, stream), both.ends[0].durable.last), (96, entries + 1));
}

#[test]
fn who_waits_is_served_with_those_who_cannot_wait_once_it_is_worth_an_entry() {
    // A quarter of the window, and no more than one entry takes.
    for (window, worth) in [(64, 16), (4_096, 512)] {
        for (accepted, granted_then) in [(worth - 1, window), (worth, window + worth)] {
            let mut both = ends(window, 64 << 20, 3 + window / 24);
            let [waits, takes] = [both.stream(qos()), both.stream(qos())];
            assert_eq!([waits, takes].map(|stream| granted(&both, stream)), [window; 2]);
            accept(&mut both, waits, accepted);
            assert_eq!(granted(&both, waits), window, "nobody needs any");
            accept(&mut both, takes, window / 2);
            assert_eq!(granted(&both, waits), granted_then, "{accepted} of {window} accepted");
            assert_eq!(granted(&both, takes), window + window / 2);
        }
    }
}

#[test]
fn an_end_that_waits_for_the_other_end_s_kms_knows_for_how_much_and_since_when() {
    for end in 0..2 {
        let mut both = ends(64, 64 << 20, 8);
        let stream = both.stream(qos());
        let held_up =
            |both: &Ends| both.ends.each_ref().map(|one| one.core.streams().next().unwrap().held_up);
        let waits = |both: &mut Ends| {
            // So that each end has told the other how it stands.
            both.run(1_000);
            let both = held_up(both);
            assert_eq!(both[1 - end], None, "its own KMS is behind");
            both[end]
        };
        assert_eq!(waits(&mut both), None, "no KMS has accepted anything");
        both.event(end, Event::Accepted { stream, up_to: 64 });
        let first = waits(&mut both).expect("all that was granted is accepted here");
        assert_eq!(first.chunks, 64);
        both.get_key(end, stream, None);
        assert_eq!(waits(&mut both), Some(first), "asking for key brings none");
        both.event(1 - end, Event::Accepted { stream, up_to: 31 });
        assert_eq!(waits(&mut both).map(|held| held.chunks), Some(33));
        both.event(1 - end, Event::Accepted { stream, up_to: 32 });
        assert_eq!(waits(&mut both), None, "there was room, and more was granted");
        both.event(end, Event::Accepted { stream, up_to: granted(&both, stream) });
        let second = waits(&mut both).expect("again");
        assert_eq!(second.chunks, 64);
        assert!(second.since_ms > first.since_ms, "{first:?} {second:?}");
        both.cut();
        assert_eq!(held_up(&both), [None, None], "nothing is known of an end that is away");
    }
}

#[test]
fn the_follower_hears_of_many_streams_at_once_that_the_leader_s_kms_is_behind_and_that_it_has_caught_up() {
    // No key is left to be granted: a grant would make what was heard before it old.
    let mut both = ends(64, 64 << 20, 200);
    let streams: Vec<KeyStreamId> = (0..200).map(|_| both.stream(qos())).collect();
    let held_up = |both: &Ends| both.ends[1].core.streams().filter(|one| one.held_up.is_some()).count();
    for stream in &streams {
        both.event(1, Event::Accepted { stream: *stream, up_to: 64 });
    }
    assert_eq!(streams.iter().map(|stream| granted(&both, *stream)).max(), Some(64));
    // Between two signs of life 64 streams are told of in turn.
    both.run(600);
    assert_eq!(held_up(&both), 200);
    for stream in &streams {
        both.event(0, Event::Accepted { stream: *stream, up_to: 31 });
    }
    both.run(600);
    assert_eq!(held_up(&both), 200, "more than half of the window is still to be accepted");
    for stream in &streams {
        both.event(0, Event::Accepted { stream: *stream, up_to: 64 });
    }
    both.run(600);
    assert_eq!(held_up(&both), 0);
}

#[test]
fn a_follower_s_kms_that_skips_more_than_a_window_does_not_wait_for_the_leader_to_hear_of_it_by_turns() {
    let mut both = ends(64, 64 << 20, 16);
    let stream = both.stream(qos());
    assert_eq!(granted(&both, stream), 64);
    both.get_key(1, stream, Some(500));
    both.event(0, Event::Accepted { stream, up_to: 64 });
    both.run(20);
    assert_eq!(granted(&both, stream), 564);
}

#[test]
fn a_window_of_two_chunks_is_filled_up_while_one_is_on_its_way() {
    let mut both = ends(2, 64 << 20, 1);
    let stream = both.stream(qos());
    assert_eq!(granted(&both, stream), 2);
    accept(&mut both, stream, 1);
    assert_eq!(granted(&both, stream), 3);
}

#[test]
fn all_windows_together_leave_room_for_what_was_accepted_and_is_not_written_down() {
    // Half of the room may be kept, and half of that be on its way.
    let mut both = ends(1_024, 1 << 20, 16);
    let streams = [both.opened(qos()), both.opened(qos())];
    for stream in streams {
        for end in 0..2 {
            both.get_key(end, stream, None);
        }
    }
    both.run(20);
    assert_eq!(streams.map(|stream| granted(&both, stream)), [128, 128]);
}

#[test]
fn much_key_that_was_accepted_is_written_down_before_its_time_and_little_is_not() {
    // A quarter of the 512 KiB that may be kept.
    let mut both = ends(256, 1 << 20, 16);
    let stream = both.stream(qos());
    let written = |both: &Ends| [0, 1].map(|end| both.ends[end].durable.streams[&stream].position);
    accept(&mut both, stream, 127);
    assert_eq!(written(&both), [0, 0]);
    accept(&mut both, stream, 128);
    assert_eq!(written(&both), [128, 128]);
    accept(&mut both, stream, 255);
    assert_eq!(written(&both), [128, 128], "it is counted from there on");
    accept(&mut both, stream, 256);
    assert_eq!(written(&both), [256, 256]);
}

#[test]
fn what_was_accepted_is_written_down_with_the_next_grant_if_it_is_worth_it() {
    for (accepted, written) in [(255, 0), (256, 256)] {
        let mut both = ends(512, 64 << 20, 16);
        let stream = both.stream(qos());
        // One end accepts after the other, so that there is no grant before both have.
        both.event(0, Event::Accepted { stream, up_to: accepted });
        both.run(20);
        let positions = |both: &Ends| [0, 1].map(|end| both.ends[end].durable.streams[&stream].position);
        assert_eq!(positions(&both), [0, 0]);
        both.event(1, Event::Accepted { stream, up_to: accepted });
        both.run(20);
        let other = both.stream(qos());
        assert!(granted(&both, other) > 0);
        assert_eq!(positions(&both), [written, written], "{accepted} accepted");
    }
}
