//! How much one turn gives, when the next one comes, and what bars one: grants to the octet and to the millisecond.

use super::two_ends::{Ends, settings};
use crate::agreement::{BlockName, Decision, Event, Message, Role};
use crate::interface::{KeyStreamId, QosRequest};

fn qos(chunk: u32) -> QosRequest {
    QosRequest { key_chunk_size: Some(chunk), ..QosRequest::default() }
}

/// Both cards deliver blocks of these lengths, from `first` on.
fn hold(both: &mut Ends, first: u64, lengths: &[u32]) {
    for (sequence, length) in (first..).zip(lengths) {
        for end in 0..2 {
            let name = BlockName::new(1, sequence);
            both.event(end, Event::BlockHeld { name, length: *length, replayed: false });
        }
    }
}

/// A grant that nobody has accepted yet: when it was made, for whom, and its octets.
type Made = (u64, KeyStreamId, u64);

fn grants(both: &Ends) -> Vec<Made> {
    let log = both.ends[0].durable.log.values();
    log.filter_map(|logged| match &logged.entry.decision {
        Decision::Grant(grant) => Some((logged.stamp.boot_ms, grant.stream, grant.bytes())),
        _ => None,
    })
    .collect()
}

fn granted(both: &Ends) -> u64 {
    grants(both).iter().map(|(_, _, bytes)| bytes).sum()
}

#[test]
fn whoever_is_first_leaves_its_rivals_their_part_of_what_is_there() {
    let mut both = Ends::in_step(8_000_000);
    let streams = [both.stream(qos(32)), both.stream(qos(32))];
    hold(&mut both, 0, &[65_536]);
    both.run(20);
    assert_eq!(grants(&both)[0].2, 32_768);
    assert_eq!(streams.map(|stream| both.ends[0].total(stream)), [32_768, 32_768]);
}

#[test]
fn a_turn_among_rivals_is_no_crumb_of_what_the_link_gives_and_no_more_than_that() {
    // A 64th of a second's key: 8 KiB at most, 125 octets on a slow link.
    for (rate, held, turn) in [(8_000_000, 10_000, 8_192), (64_000, 1_000, 480), (64_000, 200, 96)] {
        let mut both = Ends::in_step(rate);
        for _ in 0..2 {
            both.stream(qos(32));
        }
        hold(&mut both, 0, &[held]);
        both.run(20);
        assert_eq!(grants(&both)[0].2, turn, "{held} octets at {rate} bit/s");
    }
}

#[test]
fn a_turn_of_large_chunks_is_worth_its_entry_where_the_link_gives_enough() {
    // Sixteen chunks, but no more than a 64th of a second's key or, where that is more, a rival's part of what is there.
    for (rate, turn) in [(80_000_000, 65_536), (20_000_000, 36_864), (8_000_000, 32_768)] {
        let mut both = Ends::in_step(rate);
        for _ in 0..2 {
            both.stream(qos(4_096));
        }
        hold(&mut both, 0, &[65_536]);
        both.run(20);
        assert_eq!(grants(&both)[0].2, turn, "at {rate} bit/s");
    }
}

#[test]
fn a_block_that_the_follower_has_just_told_of_does_not_wait_because_the_leader_looked_before() {
    let mut both = Ends::in_step(8_000_000);
    both.stream(qos(32));
    both.run(100);
    let came = both.time;
    hold(&mut both, 0, &[64]);
    both.run(20);
    let made = grants(&both)[0].0;
    assert!(made <= came + 1, "it came at {came} and was granted at {made}");
}

#[test]
fn minima_that_cannot_all_be_met_share_in_their_proportion() {
    let mut both = Ends::in_step(8_000_000);
    let minimum = |bps| QosRequest { min_bps: Some(bps), ..qos(32) };
    let streams = [both.stream(minimum(1_500_000)), both.stream(minimum(4_500_000))];
    for _ in 0..500 {
        both.block();
        both.run(2);
        for end in 0..2 {
            for stream in streams {
                both.accept(end, stream);
            }
        }
    }
    let [small, large] = streams.map(|stream| both.ends[0].total(stream));
    assert!(small + large > 500_000, "{small} and {large}");
    assert!(small * 29 < large * 10 && small * 31 > large * 10, "{small} and {large}");
}

#[test]
fn a_limited_stream_waits_until_a_turn_is_worth_an_entry_and_no_longer() {
    let mut both = Ends::in_step(8_000_000);
    // 100 octets a millisecond, 10 kB at once.
    both.stream(QosRequest { max_bps: Some(800_000), jitter: Some(80_000), ..qos(32) });
    hold(&mut both, 0, &[65_536]);
    both.run(200);
    let made = grants(&both);
    let since: Vec<(u64, u64)> = made.iter().take(3).map(|(at, _, bytes)| (at - made[0].0, *bytes)).collect();
    // Half of what the bucket holds; what is left of 10,000 and of 5,016 octets is less than a chunk, and stays in it.
    assert_eq!(since, [(0, 9_984), (50, 4_992), (100, 5_024)]);
}

#[test]
fn a_limited_stream_gets_its_key_in_few_entries_and_four_times_a_second_at_least() {
    // Bit/s, and ms between entries: of 8 KiB, and of a quarter of a second's key where that is less.
    for (max_bps, every) in [(1_048_576, 62..=63), (131_072, 249..=251), (32_768, 249..=251)] {
        let mut both = Ends::in_step(8_000_000);
        let stream = both.stream(QosRequest { max_bps: Some(max_bps), ..qos(32) });
        hold(&mut both, 0, &[65_536; 16]);
        let mut came = Vec::new();
        for _ in 0..6_000 {
            let before = both.ends[0].total(stream);
            both.run(1);
            if both.ends[0].total(stream) > before {
                came.push(both.time);
                (0..2).for_each(|end| both.accept(end, stream));
            }
        }
        // In the first half, the limiter gives what it held at first.
        came.retain(|at| *at > both.time - 3_000);
        assert!(came.len() > 4, "{max_bps} bit/s: {came:?}");
        assert!(
            came.windows(2).all(|pair| every.contains(&(pair[1] - pair[0]))),
            "{max_bps} bit/s: {came:?}"
        );
    }
}

#[test]
fn a_limit_that_leaves_one_chunk_and_no_octet_more_leaves_that_chunk() {
    let mut both = Ends::in_step(8_000_000);
    // An octet a millisecond, two chunks at once.
    let stream = both.stream(QosRequest { max_bps: Some(8_000), jitter: Some(512), ..qos(32) });
    hold(&mut both, 0, &[1_024]);
    while grants(&both).is_empty() {
        both.run(1);
    }
    let begin = both.time;
    assert_eq!(grants(&both), [(begin, stream, 64)]);
    both.run(32);
    both.event(0, Event::Accepted { stream, up_to: 1 });
    assert_eq!(grants(&both)[1..], [(begin + 32, stream, 32)]);
}

#[test]
fn a_stream_that_has_its_window_is_nobodys_rival() {
    let mut leader = settings(Role::Leader);
    leader.window_chunks = 16;
    let mut both = Ends::with(leader, settings(Role::Follower), 8_000_000);
    let full = both.stream(qos(32));
    hold(&mut both, 0, &[512]);
    both.run(20);
    assert_eq!(both.ends[0].total(full), 512);
    let other = both.stream(qos(4_096));
    // Only one end's KMS takes a chunk, which opens no window.
    both.event(0, Event::Accepted { stream: full, up_to: 1 });
    hold(&mut both, 1, &[65_536]);
    both.run(20);
    let sizes: Vec<_> = grants(&both)[1..].iter().map(|(_, stream, bytes)| (*stream, *bytes)).collect();
    assert_eq!(sizes, [(other, 65_536)]);
}

#[test]
fn a_kms_that_takes_chunk_by_chunk_does_not_get_an_entry_for_each() {
    let mut leader = settings(Role::Leader);
    leader.window_chunks = 16;
    let mut both = Ends::with(leader, settings(Role::Follower), 8_000_000);
    let stream = both.stream(qos(32));
    hold(&mut both, 0, &[65_536]);
    both.run(20);
    both.accept(1, stream);
    both.run(100);
    for up_to in 1..=16 {
        both.event(0, Event::Accepted { stream, up_to });
        both.run(1);
    }
    both.run(2);
    let made = grants(&both);
    assert_eq!(granted(&both), 32 * 32);
    assert!(made.windows(2).all(|pair| pair[0].0 + 2 <= pair[1].0), "{made:?}");
}

#[test]
fn no_more_entries_are_in_flight_than_may_be() {
    let mut leader = settings(Role::Leader);
    leader.most_entries_in_flight = 3;
    let mut both = Ends::with(leader, settings(Role::Follower), 8_000_000);
    for _ in 0..8 {
        both.stream(qos(32));
    }
    hold(&mut both, 0, &[65_536]);
    let mut most = 0;
    for _ in 0..100 {
        both.run(1);
        let status = both.ends[0].core.status();
        most = most.max(status.last - status.agreed);
    }
    assert_eq!(most, 3);
    assert_eq!(granted(&both), 65_536);
}

#[test]
fn a_follower_that_applies_nothing_does_not_have_the_leader_look_over_its_key_at_each_report() {
    let mut leader = settings(Role::Leader);
    leader.most_entries_in_flight = 2;
    let mut both = Ends::with(leader, settings(Role::Follower), 8_000_000);
    both.stream(qos(32));
    both.stream(qos(32));
    hold(&mut both, 0, &[65_536; 4]);
    let mut report = None;
    while both.ends[0].core.in_flight() < 2 {
        let [heard, _] = both.overhear(1);
        report = heard.into_iter().rfind(|message| matches!(message, Message::Report(_))).or(report);
    }
    let looked = both.ends[0].core.leading.granted_ms;
    let Some(Message::Report(mut report)) = report else { panic!("a report") };
    for _ in 0..20 {
        both.time += 5;
        report.serial += 1;
        both.event(0, Event::PeerMessage(Message::Report(report.clone())));
    }
    assert_eq!(both.ends[0].core.in_flight(), 2);
    assert_eq!(both.ends[0].core.leading.granted_ms, looked, "nothing can be granted");
    // The follower's own reports are heeded when they are newer than those.
    both.run(5_000);
    assert!(both.ends[0].core.leading.granted_ms > looked, "it goes on when the follower does");
}

#[test]
fn key_beyond_what_one_round_looks_at_does_not_wait_for_the_other_end_to_speak() {
    let mut leader = settings(Role::Leader);
    leader.window_bytes = 4 << 20;
    let mut both = Ends::with(leader, settings(Role::Follower), 8_000_000);
    hold(&mut both, 0, &[65_536; 24]);
    let stream = both.opened(qos(1_024));
    both.get_key(1, stream, None);
    both.run(20);
    // From here on the leader hears nothing.
    both.connected = false;
    both.get_key(0, stream, None);
    both.run(10);
    assert_eq!(granted(&both), 24 * 65_536);
}

#[test]
fn a_leader_that_can_grant_no_more_does_not_wake_to_look_again() {
    // Eight octets are left of which no chunk can be made, or no entry more may be in flight.
    for (held, most_entries) in [(1_000, 512), (1_024, 1)] {
        let mut leader = settings(Role::Leader);
        leader.most_entries_in_flight = most_entries;
        let mut both = Ends::with(leader, settings(Role::Follower), 8_000_000);
        both.stream(qos(32));
        // Until what the follower has applied is written.
        both.run(100);
        hold(&mut both, 0, &[held]);
        while grants(&both).is_empty() {
            both.run(1);
        }
        assert!(both.ends[0].core.deadline().is_none_or(|due| due > both.time + 2), "{held} octets");
    }
}

#[test]
fn nothing_is_skipped_before_both_ends_ask() {
    let mut both = Ends::in_step(8_000_000);
    let stream = both.opened(qos(32));
    let next = |both: &Ends| both.ends[0].durable.streams[&stream].next;
    both.get_key(0, stream, Some(5));
    both.run(20);
    let before = both.ends[0].durable.last;
    assert_eq!(next(&both), 0);
    both.get_key(1, stream, Some(7));
    both.run(20);
    assert_eq!(next(&both), 7);
    assert_eq!(both.ends[0].durable.last - before, 1, "one skip for both");
}

#[test]
fn a_stream_of_which_nothing_is_kept_does_not_take_the_last_quarter_where_one_chunk_fits_without() {
    let small = |role| {
        let mut settings = settings(role);
        settings.card.retention.blocks = 8;
        settings
    };
    let mut both = Ends::with(small(Role::Leader), small(Role::Follower), 8_000_000);
    let stream = both.stream(qos(32));
    // Half the room, four blocks, may be kept for streams.
    hold(&mut both, 0, &[10, 10, 10, 1_000]);
    while grants(&both).is_empty() {
        both.run(1);
    }
    assert_eq!(grants(&both), [(both.time, stream, 32)]);
}

#[test]
fn chunks_of_more_blocks_than_an_entry_names_are_said_and_hold_nobody_back_and_short_key_is_not_called_that()
{
    let mut both = Ends::in_step(8_000_000);
    let coarse = both.stream(QosRequest { priority: Some(9), ..qos(5_000) });
    let fine = both.stream(qos(32));
    let words = "its chunks span more blocks than an entry can name";
    hold(&mut both, 0, &[1; 4_095]);
    both.run(20);
    assert!(!both.ends[0].says(words), "more blocks may come");
    assert_eq!(both.ends[0].total(fine), 0, "it is not its turn");
    hold(&mut both, 4_095, &[1]);
    both.run(20);
    assert!(both.ends[0].says(words));
    assert_eq!([coarse, fine].map(|stream| both.ends[0].total(stream)), [0, 4_096]);
}

#[test]
fn small_chunks_do_not_take_the_key_that_a_large_one_waits_for() {
    let mut both = Ends::in_step(8_000_000);
    let [large, small] = [both.stream(qos(4_096)), both.stream(qos(32))];
    for sequence in 0..32 {
        hold(&mut both, sequence, &[512]);
        both.run(20);
        for end in 0..2 {
            both.accept(end, small);
        }
        both.run(5);
    }
    assert_eq!([large, small].map(|stream| both.ends[0].total(stream)), [8_192, 8_192]);
    assert!(!both.ends[0].says("span more blocks"));
}

#[test]
fn nothing_is_granted_while_the_ends_are_not_in_step() {
    let mut both = Ends::in_step(8_000_000);
    let stream = both.opened(qos(32));
    both.get_key(1, stream, None);
    hold(&mut both, 0, &[1_024]);
    both.run(50);
    both.cut();
    both.get_key(0, stream, None);
    both.run(50);
    assert_eq!(granted(&both), 0);
    both.connect();
    both.run(50);
    assert_eq!(granted(&both), 1_024);
}
