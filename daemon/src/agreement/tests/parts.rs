//! Range sets, token buckets, index arithmetic and the cutting of extents, against plain models of them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::two_ends::settings;
use crate::agreement::Role;
use crate::agreement::delivery::cut;
use crate::agreement::entry::{Decision, Digest, Entry};
use crate::agreement::limiter::Bucket;
use crate::agreement::message::Range;
use crate::agreement::names::{BlockName, Extent, Mark, position_near};
use crate::agreement::qos::resolve;
use crate::agreement::ranges::BlockRanges;
use crate::agreement::stream::Live;
use crate::interface::QosRequest;

#[derive(Clone, Debug)]
enum Change {
    Insert(u64, u64, u64),
    Remove(u64, u64),
    RemoveBelow(u64, u64),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..3_u64, 0..40_u64, 0..6_u64).prop_map(|(s, q, n)| Change::Insert(s, q, q + n)),
        2 => (0..3_u64, 0..40_u64).prop_map(|(s, q)| Change::Remove(s, q)),
        1 => (0..3_u64, 0..40_u64).prop_map(|(s, q)| Change::RemoveBelow(s, q)),
    ]
}

proptest! {
    #[test]
    fn a_range_set_says_the_same_as_a_set_of_names(changes in prop::collection::vec(change(), 1..60)) {
        let mut set = BlockRanges::default();
        let mut model: BTreeSet<BlockName> = BTreeSet::new();
        for change in changes {
            match change {
                Change::Insert(session, first, last) => {
                    set.insert_range(Range { session, first, last });
                    model.extend((first..=last).map(|q| BlockName::new(session, q)));
                }
                Change::Remove(session, sequence) => {
                    set.remove(BlockName::new(session, sequence));
                    model.remove(&BlockName::new(session, sequence));
                }
                Change::RemoveBelow(session, sequence) => {
                    let bound = BlockName::new(session, sequence);
                    set.remove_below(bound);
                    model.retain(|name| *name >= bound);
                }
            }
            let listed: Vec<BlockName> =
                set.iter().flat_map(|r| (r.first..=r.last).map(move |q| BlockName::new(r.session, q))).collect();
            prop_assert_eq!(&listed, &model.iter().copied().collect::<Vec<_>>());
            for (session, sequence) in (0..3).flat_map(|s| (0..48).map(move |q| (s, q))) {
                let name = BlockName::new(session, sequence);
                prop_assert_eq!(set.contains(name), model.contains(&name));
                prop_assert_eq!(set.next_from(name), model.range(name..).next().copied());
                let bound = BlockName::new(2, 20);
                if name <= bound {
                    prop_assert_eq!(
                        set.count_between(name, bound, u64::MAX),
                        model.range(name..bound).count() as u64
                    );
                }
            }
            // Ranges neither touch nor overlap: otherwise their number would grow with the blocks.
            let ranges: Vec<Range> = set.iter().collect();
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].session < pair[1].session || pair[0].last + 1 < pair[1].first);
            }
        }
    }

    #[test]
    fn a_bucket_never_gives_more_than_its_rate_and_depth(
        rate in 0..10_000_000_u32,
        depth in 1..100_000_u64,
        takes in prop::collection::vec((0..200_u64, 0..50_000_u64), 1..80),
    ) {
        let mut bucket = Bucket::new(rate, depth, 5);
        let (mut now, mut taken) = (5_u64, 0_u64);
        for (wait, bytes) in takes {
            now += wait;
            let bytes = bytes.min(bucket.available(now));
            bucket.take(bytes, now);
            taken += bytes;
            let earned = u128::from(depth) + u128::from(rate) * u128::from(now - 5) / 8_000;
            prop_assert!(u128::from(taken) <= earned, "{taken} of {earned}");
        }
    }

    #[test]
    fn a_bucket_is_as_full_as_it_said_it_would_be(
        rate in 1..10_000_000_u32,
        depth in 1..100_000_u64,
        wanted in 1..200_000_u64,
    ) {
        let mut bucket = Bucket::new(rate, depth, 0);
        bucket.take(depth, 0);
        let at = bucket.ready_at(wanted, 0).expect("it fills");
        prop_assert!(bucket.available(at) >= wanted.min(depth));
        if at > 0 {
            let mut earlier = Bucket::new(rate, depth, 0);
            earlier.take(depth, 0);
            prop_assert!(earlier.available(at - 1) < wanted.min(depth));
        }
    }

    #[test]
    fn an_index_means_the_position_nearest_to_the_stream(near in any::<u64>(), distance in -(1_i64 << 31)..(1 << 31)) {
        if let Some(meant) = near.checked_add_signed(distance) {
            prop_assert_eq!(position_near(near, meant as u32), Some(meant));
        } else {
            prop_assert_eq!(position_near(near, (near as u32).wrapping_add(distance as u32)), None);
        }
    }

    #[test]
    fn cutting_extents_is_cutting_their_octets(
        lengths in prop::collection::vec(1..20_u32, 1..8),
        start in 0..60_u64,
        bytes in 0..60_u64,
    ) {
        let extents: Vec<Extent> = lengths
            .iter()
            .enumerate()
            .map(|(i, length)| Extent { block: BlockName::new(1, i as u64), offset: 3, length: *length })
            .collect();
        let octets = |extents: &[Extent]| -> Vec<(BlockName, u32)> {
            extents.iter().flat_map(|e| (e.offset..e.offset + e.length).map(|at| (e.block, at))).collect()
        };
        let all = octets(&extents);
        let wanted: Vec<_> = all.iter().skip(start as usize).take(bytes as usize).copied().collect();
        prop_assert_eq!(octets(&cut(&extents, start, bytes)), wanted);
    }
}

#[test]
fn an_index_below_the_first_position_means_nothing() {
    assert_eq!(position_near(0, u32::MAX), None);
    assert_eq!(position_near(5, 0), Some(0));
    assert_eq!(position_near((1 << 32) - 2, 1), Some((1 << 32) + 1));
    assert_eq!(position_near((1 << 32) + 1, u32::MAX), Some((1 << 32) - 1));
}

#[test]
fn a_bucket_of_no_rate_never_fills() {
    let mut bucket = Bucket::new(0, 10, 0);
    bucket.take(10, 0);
    assert_eq!(bucket.ready_at(1, 0), None);
    assert_eq!(bucket.available(u64::MAX), 0);
}

#[test]
fn an_altered_entry_breaks_the_chain() {
    let before = Digest::of_epoch(1, 2, 3);
    let entry = Entry::chained(&before, 1, Decision::Burn { to: Mark::at(BlockName::new(1, 2)) });
    assert!(entry.follows(&before));
    assert!(!entry.follows(&Digest::of_epoch(2, 2, 3)));
    assert!(!entry.follows(&Digest::of_epoch(1, 3, 2)));
    let mut other = entry.clone();
    other.decision = Decision::Burn { to: Mark::at(BlockName::new(1, 3)) };
    assert!(!other.follows(&before));
    let mut renumbered = entry;
    renumbered.number = 2;
    assert!(!renumbered.follows(&before));
}

#[test]
fn a_hash_survives_the_wire_and_nothing_else_is_one() {
    let digest = Digest::of_epoch(9, 8, 7);
    let text = String::from(digest);
    assert_eq!(Digest::try_from(text.clone()), Ok(digest));
    for wrong in
        [String::new(), text[1..].to_owned(), format!("{text}0"), text.replace(char::is_numeric, "g")]
    {
        assert!(Digest::try_from(wrong).is_err());
    }
}

#[test]
fn what_lies_between_two_skips_is_not_skipped() {
    let settings = settings(Role::Leader);
    let qos = resolve(&QosRequest::default(), &settings, 65_536, None).expect("the default can be met");
    let mut live = Live::new(&qos, 0, 0);
    assert!(!live.skipped(5, 8), "nothing is settled by it yet");
    assert!(!live.skipped(8, 9) && !live.skipped(12, 14) && !live.skipped(3, 3));
    for (settled, position) in [(4, 4), (5, 9), (10, 10), (11, 11), (12, 14)] {
        assert!(live.advance(settled));
        assert_eq!((live.position, live.issued), (position, position), "after {settled}");
    }
    assert!(live.skipped(14, 20), "it follows at once");
    assert_eq!(live.position, 20);
}
