//! A leader whose log says what cannot be: its follower refuses the entry before it has any effect, and takes what is just
//! allowed.

use qkd_contract::limits::BLOCK_BYTES_MAX;

use super::two_ends::{BLOCK, Ends, settings};
use crate::agreement::entry::{Decision, Digest, Entry, Grant, OpenDecision};
use crate::agreement::message::Log;
use crate::agreement::names::{Extent, position_limit};
use crate::agreement::{BlockName, Event, Mark, Message, Position, Role};
use crate::interface::{KeyStreamId, QosRequest};

const CHUNK: u32 = 64;

/// What the follower is in: a stream of chunks of [`CHUNK`] octets, with one block granted and used up.
fn begun() -> (Ends, KeyStreamId) {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest { key_chunk_size: Some(CHUNK), ..QosRequest::default() });
    both.block();
    both.run(30);
    both.connected = false;
    assert_eq!(both.ends[1].durable.streams[&stream].next, u64::from(BLOCK / CHUNK));
    assert_eq!(both.ends[1].durable.mark, Mark::after(BlockName::new(1, 0)));
    (both, stream)
}

fn says(both: &mut Ends, entries: Vec<Entry>) {
    let log = Log { epoch: both.ends[1].durable.epoch, heard: 0, entries, streams: Vec::new() };
    both.event(1, Event::PeerMessage(Message::Log(log)));
}

/// Whether the follower takes a decision of the leader's. Where it does not, it must not be in the ledger and must end the
/// connection.
fn takes(both: &mut Ends, decision: Decision) -> bool {
    let durable = both.ends[1].durable.clone();
    let entry = Entry::chained(&durable.hash, durable.last + 1, decision);
    says(both, vec![entry.clone()]);
    let end = &both.ends[1];
    let taken = end.durable.last == entry.number;
    assert_eq!(taken, end.core.status().in_step, "{entry:?}");
    if !taken {
        assert!(end.says("broke the peer protocol"), "{entry:?}");
        assert_eq!(end.durable.mark, durable.mark, "{entry:?}");
        assert_eq!(end.durable.streams.len(), durable.streams.len(), "{entry:?}");
    }
    taken
}

fn extent(sequence: u64, offset: u32, length: u32) -> Extent {
    Extent { block: BlockName::new(1, sequence), offset, length }
}

/// A grant of `count` chunks, whose mark is where its last extent ends.
fn grant(stream: KeyStreamId, first: Position, count: u32, extents: &[Extent]) -> Grant {
    let mark = extents
        .last()
        .map_or(Mark::ZERO, |e| Mark { block: e.block, offset: e.offset.saturating_add(e.length) });
    Grant { stream, first, count, extents: extents.to_vec(), mark }
}

/// Whether each of `grants`, made for the stream's next position, is taken by a follower of its own.
fn takes_grant(make: impl Fn(KeyStreamId, Position) -> Grant) -> bool {
    let (mut both, stream) = begun();
    let next = both.ends[1].durable.streams[&stream].next;
    takes(&mut both, Decision::Grant(make(stream, next)))
}

#[test]
fn a_grant_goes_on_where_the_stream_stands_and_is_as_long_as_its_chunks() {
    let two = [extent(1, 0, 2 * CHUNK)];
    assert!(takes_grant(|s, next| grant(s, next, 2, &two)));
    assert!(!takes_grant(|s, next| grant(s, next + 1, 2, &two)));
    assert!(!takes_grant(|s, next| grant(s, next - 1, 2, &two)));
    assert!(!takes_grant(|s, next| grant(s, next, 1, &two)));
    assert!(!takes_grant(|s, next| grant(s, next, 3, &two)));
    assert!(!takes_grant(|_, next| grant(KeyStreamId::from_u128(404), next, 2, &two)));
}

#[test]
fn no_octet_is_granted_twice_or_below_the_mark() {
    let parts = |a: Extent, b: Extent| move |s, next| grant(s, next, 2, &[a, b]);
    assert!(takes_grant(parts(extent(1, 0, CHUNK), extent(1, CHUNK, CHUNK))));
    assert!(takes_grant(parts(extent(1, 0, CHUNK), extent(2, 0, CHUNK))));
    assert!(!takes_grant(parts(extent(1, 0, CHUNK), extent(1, CHUNK - 1, CHUNK))));
    assert!(!takes_grant(parts(extent(2, 0, CHUNK), extent(1, 0, CHUNK))));
    assert!(!takes_grant(parts(extent(0, BLOCK - CHUNK, CHUNK), extent(1, 0, CHUNK))));
    // Just above a mark within a block, and one octet below it.
    for (offset, taken) in [(CHUNK, true), (CHUNK - 1, false)] {
        let (mut both, stream) = begun();
        let next = both.ends[1].durable.streams[&stream].next;
        assert!(takes(&mut both, Decision::Grant(grant(stream, next, 1, &[extent(1, 0, CHUNK)]))));
        let more = grant(stream, next + 1, 1, &[extent(1, offset, CHUNK)]);
        assert_eq!(takes(&mut both, Decision::Grant(more)), taken, "{offset}");
    }
}

#[test]
fn an_extent_is_a_part_of_a_block() {
    let last = BLOCK_BYTES_MAX - CHUNK;
    assert!(takes_grant(|s, next| grant(s, next, 1, &[extent(1, last, CHUNK)])));
    assert!(!takes_grant(|s, next| grant(s, next, 1, &[extent(1, last + 1, CHUNK)])));
    assert!(!takes_grant(|s, next| grant(s, next, 1, &[extent(1, u32::MAX, CHUNK)])));
    assert!(!takes_grant(|s, next| grant(s, next, 1, &[extent(1, 0, CHUNK), extent(2, 0, 0)])));
    assert!(!takes_grant(|s, next| grant(s, next, 0, &[])));
    assert!(!takes_grant(|s, next| {
        let unusable = Extent { block: BlockName::new(1, u64::MAX), offset: 0, length: CHUNK };
        Grant { mark: Mark::at(BlockName::new(2, 0)), ..grant(s, next, 1, &[unusable]) }
    }));
}

#[test]
fn the_mark_of_a_grant_covers_it() {
    let with = |mark: Mark| move |s, next| Grant { mark, ..grant(s, next, 1, &[extent(1, 0, CHUNK)]) };
    let block = BlockName::new(1, 1);
    assert!(takes_grant(with(Mark { block, offset: CHUNK })));
    assert!(takes_grant(with(Mark { block, offset: CHUNK + 1 })));
    assert!(!takes_grant(with(Mark { block, offset: CHUNK - 1 })));
    assert!(!takes_grant(with(Mark::at(BlockName::new(1, u64::MAX)))));
}

#[test]
fn positions_end_where_a_stream_ends() {
    let limit = position_limit(CHUNK);
    let (mut both, stream) = begun();
    assert!(!takes(&mut both, Decision::Skip { stream, to: limit + 1 }));
    for (to, count, taken) in
        [(limit - 1, 1, true), (limit - 1, 2, false), (limit, 1, false), (limit - 2, 1, true)]
    {
        let (mut both, stream) = begun();
        assert!(takes(&mut both, Decision::Skip { stream, to }));
        let grant = grant(stream, to, count, &[extent(1, 0, count * CHUNK)]);
        assert_eq!(takes(&mut both, Decision::Grant(grant)), taken, "{count} chunks from {to} on");
    }
}

#[test]
fn a_skip_goes_forward_in_a_stream_that_is_open() {
    let (mut both, stream) = begun();
    let next = both.ends[1].durable.streams[&stream].next;
    assert!(takes(&mut both, Decision::Skip { stream, to: next + 1 }));
    for to in [next + 1, next] {
        let (mut both, stream) = begun();
        assert!(takes(&mut both, Decision::Skip { stream, to: next + 1 }));
        assert!(!takes(&mut both, Decision::Skip { stream, to }), "{to}");
    }
    let (mut both, _) = begun();
    assert!(!takes(&mut both, Decision::Skip { stream: KeyStreamId::from_u128(404), to: next + 1 }));
}

#[test]
fn a_stream_is_opened_once_and_ended_once() {
    let (mut both, stream) = begun();
    let qos = both.ends[1].durable.streams[&stream].qos.clone();
    let open = |stream| {
        Decision::Open(OpenDecision {
            stream,
            source: "kms://a".into(),
            destination: "kms://b".into(),
            qos: qos.clone(),
            opener: Role::Leader,
        })
    };
    assert!(takes(&mut both, open(KeyStreamId::from_u128(77))));
    assert!(!takes(&mut both, open(stream)));
    let (mut both, stream) = begun();
    assert!(takes(&mut both, Decision::End { stream }));
    assert!(!takes(&mut both, Decision::End { stream }));
}

#[test]
fn a_burn_stays_within_what_blocks_there_can_be() {
    let (mut both, _) = begun();
    assert!(takes(&mut both, Decision::Burn { to: Mark::at(BlockName::new(1, 3)) }));
    assert!(!takes(&mut both, Decision::Burn { to: Mark::at(BlockName::new(1, u64::MAX)) }));
}

#[test]
fn what_was_altered_on_its_way_or_is_of_another_log_is_not_taken() {
    let (mut both, stream) = begun();
    let durable = &both.ends[1].durable;
    let to = durable.streams[&stream].next + 1;
    let before = durable.last;
    let entry = Entry::chained(&Digest::NONE, durable.last + 1, Decision::Skip { stream, to });
    says(&mut both, vec![entry]);
    assert_eq!(both.ends[1].durable.last, before);
    assert!(both.ends[1].says("the two logs differ"));
}

#[test]
fn entries_behind_a_gap_wait_for_what_is_missing_and_old_ones_are_passed_over() {
    let (mut both, stream) = begun();
    let durable = both.ends[1].durable.clone();
    let next = durable.streams[&stream].next;
    let chain =
        |before: &Entry, to| Entry::chained(&before.hash, before.number + 1, Decision::Skip { stream, to });
    let first = Entry::chained(&durable.hash, durable.last + 1, Decision::Skip { stream, to: next + 1 });
    let second = chain(&first, next + 2);
    says(&mut both, vec![second.clone()]);
    assert_eq!(both.ends[1].durable.last, durable.last, "one is missing");
    assert!(both.ends[1].core.status().in_step, "which is nobody's fault");
    says(&mut both, vec![first.clone()]);
    says(&mut both, vec![first, second.clone()]);
    assert_eq!(both.ends[1].durable.last, second.number);
    assert!(both.ends[1].core.status().in_step);
}

#[test]
fn key_of_a_stream_that_no_kms_here_wants_or_that_is_closed_is_not_delivered() {
    for closed in [false, true] {
        let mut both = Ends::in_step(1_000_000);
        let qos = || QosRequest { key_chunk_size: Some(CHUNK), ..QosRequest::default() };
        let stream = KeyStreamId::from_u128(1);
        for end in 0..2 {
            both.open(end, Some(stream), qos());
            both.run(20);
        }
        both.block();
        both.run(5);
        both.connected = false;
        if closed {
            both.get_key(1, stream, None);
            both.close(1, stream);
        }
        assert!(takes(&mut both, Decision::Grant(grant(stream, 0, 2, &[extent(0, 0, 2 * CHUNK)]))));
        assert_eq!(both.delivered(1, stream), 0, "closed: {closed}");
        if !closed {
            both.event(
                1,
                Event::PeerMessage(Message::Log(Log {
                    epoch: both.ends[1].durable.epoch,
                    heard: 0,
                    entries: Vec::new(),
                    streams: Vec::new(),
                })),
            );
            both.get_key(1, stream, None);
            assert_eq!(both.delivered(1, stream), u64::from(2 * CHUNK), "the get-key has come");
        }
    }
}

#[test]
fn a_leader_cannot_make_a_follower_keep_parts_without_end() {
    let capacity = settings(Role::Follower).capacity();
    let most = capacity.bytes / 1_024 + capacity.blocks + 65_536;
    let (mut both, stream) = begun();
    let mut block = 0;
    // `parts` of one octet each, but for the last, which fills the chunk.
    let mut grants = |both: &mut Ends, parts: u64| {
        block += 1;
        let parts = u32::try_from(parts).unwrap();
        let count = parts.div_ceil(CHUNK);
        let mut extents: Vec<Extent> = (0..parts).map(|n| extent(block, n, 1)).collect();
        extents.last_mut().unwrap().length += count * CHUNK - parts;
        let next = both.ends[1].durable.streams[&stream].next;
        takes(both, Decision::Grant(grant(stream, next, count, &extents)))
    };
    // What is granted and not accepted counts.
    loop {
        let left = most - both.ends[1].core.holdings.owed_extents();
        if left == 0 {
            break;
        }
        assert!(grants(&mut both, left.min(4_096)), "{left} are left");
    }
    assert!(!grants(&mut both, 1), "one more than may be");
}
