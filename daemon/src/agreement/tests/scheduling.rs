//! Who gets how much key, and at what cost.

use std::time::Instant;

use super::two_ends::{BLOCK, Ends, settings};
use crate::agreement::{BlockName, Decision, Event, Message, Role};
use crate::interface::{KeyStreamId, QosRequest};

fn qos(chunk: u32) -> QosRequest {
    QosRequest { key_chunk_size: Some(chunk), ..QosRequest::default() }
}

/// Runs `ms` milliseconds with `blocks` blocks in each, whose key is accepted at once but by `stuck`.
fn flow(both: &mut Ends, streams: &[KeyStreamId], ms: u64, blocks: u64, stuck: &[KeyStreamId]) {
    for _ in 0..ms {
        for _ in 0..blocks {
            both.block();
        }
        both.run(1);
        for end in 0..2 {
            for stream in streams.iter().filter(|stream| !stuck.contains(stream)) {
                both.accept(end, *stream);
            }
            both.ends[end].forget_old();
        }
    }
}

#[test]
fn equals_share_alike_whatever_their_chunk_sizes() {
    let mut both = Ends::in_step(8_000_000);
    let streams: Vec<KeyStreamId> = [32, 100, 1_000].map(|chunk| both.stream(qos(chunk))).into();
    flow(&mut both, &streams, 600, 1, &[]);
    let shares: Vec<u64> = streams.iter().map(|stream| both.ends[0].total(*stream)).collect();
    let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
    assert!(*least > 150_000 && most - least < 40_000, "{shares:?}");
}

#[test]
fn a_minimum_comes_before_a_priority_and_a_priority_before_the_rest() {
    let mut both = Ends::in_step(8_000_000);
    let minimum = both.stream(QosRequest { min_bps: Some(2_000_000), ..qos(32) });
    let preferred = both.stream(QosRequest { priority: Some(9), ..qos(32) });
    let rest = both.stream(qos(32));
    flow(&mut both, &[minimum, preferred, rest], 1_000, 1, &[]);
    let total = |stream| both.ends[0].total(stream);
    // 250 kB are its due; a second's worth may have been saved up.
    assert!((240_000..520_000).contains(&total(minimum)), "{}", total(minimum));
    assert!(total(preferred) > 400_000, "{}", total(preferred));
    assert!(total(rest) < 100_000, "{}", total(rest));
}

#[test]
fn nobody_gets_more_than_its_limit() {
    let mut both = Ends::in_step(8_000_000);
    let limited = both.stream(QosRequest { max_bps: Some(800_000), jitter: Some(80_000), ..qos(32) });
    let free = both.stream(qos(32));
    flow(&mut both, &[limited, free], 2_000, 1, &[]);
    let got = both.ends[0].total(limited);
    // 100 kB a second and a bucket of 10 kB.
    assert!((180_000..=210_000).contains(&got), "{got}");
    assert!(both.ends[0].total(free) > 1_500_000);
}

#[test]
fn a_stream_whose_kms_takes_nothing_gets_its_window_and_holds_nobody_back() {
    let mut leader = settings(Role::Leader);
    leader.window_bytes = 8_192;
    let mut both = Ends::with(leader, settings(Role::Follower), 8_000_000);
    let stuck = both.stream(qos(32));
    let others = both.stream(qos(32));
    flow(&mut both, &[stuck, others], 500, 1, &[stuck]);
    assert_eq!(both.ends[0].total(stuck), 8_192);
    assert!(both.ends[0].total(others) > 450_000);
}

#[test]
fn chunks_larger_than_a_block_are_made_of_several() {
    let mut both = Ends::in_step(8_000_000);
    let stream = both.stream(qos(5 * BLOCK + 1));
    flow(&mut both, &[stream], 100, 1, &[]);
    flow(&mut both, &[stream], 100, 0, &[]);
    assert_eq!(both.ends[0].total(stream) / u64::from(5 * BLOCK + 1), 100 * 1_024 / (5 * 1_024 + 1));
}

#[test]
fn blocks_missing_at_one_end_are_burnt_also_without_a_stream() {
    let mut both = Ends::in_step(8_000_000);
    for sequence in 0..20 {
        let name = BlockName::new(1, sequence);
        for end in 0..2 {
            if sequence % 2 == end as u64 {
                both.event(end, Event::BlockHeld { name, length: BLOCK, replayed: false });
            } else {
                both.event(end, Event::BlockLost { name });
            }
        }
    }
    both.run(100);
    for end in &both.ends {
        assert_eq!(end.core.status().held.blocks, 0);
        assert_eq!(end.core.status().counters.burnt_bytes, 10 * u64::from(BLOCK));
    }
}

/// The record link, 115.8 Mb/s in blocks of 64 KiB, for two seconds.
#[test]
fn the_record_rate_costs_few_entries_and_few_messages() {
    for (count, chunk) in [(1_usize, 32), (1, 65_536), (100, 32), (1_000, 32)] {
        let mut leader = settings(Role::Leader);
        leader.most_streams = 2_000;
        leader.most_streams_per_kms = 2_000;
        leader.most_half_open_per_kms = 2_000;
        let mut both = Ends::with(leader, settings(Role::Follower), 115_800_000);
        let streams: Vec<KeyStreamId> = (0..count).map(|_| both.stream(qos(chunk))).collect();
        for end in &mut both.ends {
            end.forget_old();
        }
        let (mut sequence, mut entries, mut messages, mut octets) = (0, 0, 0, 0);
        let begin = Instant::now();
        let mut wire = 0;
        for ms in 0..2_000_u64 {
            while sequence * 65_536 * 8 < ms * 115_800 {
                let name = BlockName::new(1, sequence);
                sequence += 1;
                for end in 0..2 {
                    both.event(end, Event::BlockHeld { name, length: 65_536, replayed: false });
                }
            }
            for message in both.overhear(1).into_iter().flatten() {
                messages += 1;
                let at = Instant::now();
                octets += message.encode().unwrap().len();
                wire += at.elapsed().as_micros();
                if let Message::Log(log) = &message {
                    entries +=
                        log.entries.iter().filter(|e| matches!(e.decision, Decision::Grant(_))).count();
                }
            }
            for end in 0..2 {
                for delivery in both.ends[end].take_deliveries() {
                    let up_to = delivery.first + u64::from(delivery.count);
                    both.event(end, Event::Accepted { stream: delivery.stream, up_to });
                }
                both.ends[end].forget_old();
            }
        }
        let got: u64 = streams.iter().map(|stream| both.ends[1].total(*stream)).sum();
        println!(
            "{count} streams of {chunk} octets: {} kB, {entries} grants, {messages} messages of {octets} octets, \
             {} ms for both ends, {} ms of JSON",
            got / 1_000,
            begin.elapsed().as_millis(),
            wire / 1_000
        );
        assert!(got * 100 >= 95 * sequence * 65_536, "{got} octets of {sequence} blocks were granted");
        assert!(entries < 8_000, "{entries} grants");
        assert!(messages < 3_000, "{messages} messages");
    }
}

#[test]
fn a_minimum_that_finds_no_room_does_not_shut_out_who_has_nothing() {
    let small = |role| {
        let mut settings = settings(role);
        settings.vault_bytes = 24 * u64::from(BLOCK);
        settings.card.retention.blocks = 24;
        settings
    };
    let mut both = Ends::with(small(Role::Leader), small(Role::Follower), 8_000_000);
    let minimum = both.stream(QosRequest { min_bps: Some(4_000_000), ..qos(600) });
    let stuck: Vec<KeyStreamId> = (0..2).map(|_| both.stream(qos(600))).collect();
    let rest = both.stream(qos(600));
    for _ in 0..400 {
        both.block();
        both.run(1);
        for end in 0..2 {
            both.accept(end, rest);
            // The minimum's KMS is slow: what is kept for it fills the room that is left.
            if both.time.is_multiple_of(40) {
                both.accept(end, minimum);
            }
        }
    }
    assert!(stuck.iter().all(|stream| both.ends[0].total(*stream) > 0), "they keep what they have");
    assert!(both.ends[0].total(minimum) > 8 * 1_024, "{}", both.ends[0].total(minimum));
    assert!(both.ends[0].total(rest) > 8 * 1_024, "{}", both.ends[0].total(rest));
}
