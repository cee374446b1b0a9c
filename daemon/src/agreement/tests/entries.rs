//! The hash chain of the log: whatever is changed in an entry changes its hash.

use std::collections::BTreeSet;

use crate::agreement::entry::{Decision, Digest, Entry, Grant, OpenDecision};
use crate::agreement::names::Extent;
use crate::agreement::{BlockName, Mark, Role};
use crate::interface::{KeyStreamId, Qos};

fn open(change: impl FnOnce(&mut OpenDecision)) -> Decision {
    let qos = Qos {
        key_chunk_size: 32,
        max_bps: 0,
        min_bps: 0,
        jitter: 0,
        priority: 0,
        timeout: 0,
        ttl: 0,
        metadata_mimetype: "application/json".into(),
    };
    let mut open = OpenDecision {
        stream: KeyStreamId::from_u128(1 << 64 | 2),
        source: "kms://a".into(),
        destination: "kms://b".into(),
        qos,
        opener: Role::Leader,
    };
    change(&mut open);
    Decision::Open(open)
}

fn grant(change: impl FnOnce(&mut Grant)) -> Decision {
    let extents = vec![Extent { block: BlockName::new(1, 2), offset: 3, length: 4 }];
    let mark = Mark { block: BlockName::new(1, 2), offset: 7 };
    let mut grant = Grant { stream: KeyStreamId::from_u128(1 << 64 | 2), first: 5, count: 6, extents, mark };
    change(&mut grant);
    Decision::Grant(grant)
}

/// Pairwise different, each field of each kind changed once.
fn decisions() -> Vec<Decision> {
    let (one, other) = (KeyStreamId::from_u128(1 << 64 | 2), KeyStreamId::from_u128(2 << 64 | 2));
    let low = KeyStreamId::from_u128(1 << 64 | 3);
    let extent = Extent { block: BlockName::new(1, 2), offset: 3, length: 4 };
    let mark = |session, sequence, offset| Mark { block: BlockName::new(session, sequence), offset };
    vec![
        open(|_| {}),
        open(|o| o.stream = other),
        open(|o| o.stream = low),
        open(|o| o.source = "kms://c".into()),
        open(|o| o.source = "kms://a\0".into()),
        open(|o| o.destination = "kms://c".into()),
        open(|o| (o.source, o.destination) = ("kms://akms://b".into(), String::new())),
        open(|o| (o.source, o.destination) = (String::new(), "kms://akms://b".into())),
        open(|o| o.qos.key_chunk_size = 33),
        open(|o| o.qos.max_bps = 1),
        open(|o| o.qos.min_bps = 1),
        open(|o| o.qos.jitter = 1),
        open(|o| o.qos.priority = 1),
        open(|o| o.qos.timeout = 1),
        open(|o| o.qos.ttl = 1),
        open(|o| o.opener = Role::Follower),
        grant(|_| {}),
        grant(|g| g.stream = other),
        grant(|g| g.stream = low),
        grant(|g| g.first = 6),
        grant(|g| g.count = 7),
        grant(|g| g.extents = Vec::new()),
        grant(|g| g.extents = vec![extent, extent]),
        grant(|g| g.extents = vec![Extent { block: BlockName::new(2, 2), ..extent }]),
        grant(|g| g.extents = vec![Extent { block: BlockName::new(1, 3), ..extent }]),
        grant(|g| g.extents = vec![Extent { offset: 4, ..extent }]),
        grant(|g| g.extents = vec![Extent { length: 5, ..extent }]),
        grant(|g| g.mark = mark(2, 2, 7)),
        grant(|g| g.mark = mark(1, 3, 7)),
        grant(|g| g.mark = mark(1, 2, 8)),
        Decision::Skip { stream: one, to: 1 },
        Decision::Skip { stream: other, to: 1 },
        Decision::Skip { stream: low, to: 1 },
        Decision::Skip { stream: one, to: 2 },
        Decision::Burn { to: mark(1, 1, 0) },
        Decision::Burn { to: mark(2, 1, 0) },
        Decision::Burn { to: mark(1, 2, 0) },
        Decision::Burn { to: mark(1, 1, 1) },
        Decision::End { stream: one },
        Decision::End { stream: other },
        Decision::End { stream: low },
    ]
}

#[test]
fn no_two_entries_that_differ_have_the_same_hash() {
    let mut hashes = BTreeSet::new();
    let decisions = decisions();
    for decision in &decisions {
        let entry = Entry::chained(&Digest::NONE, 1, decision.clone());
        assert!(entry.follows(&Digest::NONE));
        assert!(hashes.insert(format!("{:?}", entry.hash)), "{decision:?}");
    }
    let burn = Decision::Burn { to: Mark::ZERO };
    let first = Entry::chained(&Digest::NONE, 1, burn.clone());
    for entry in
        [Entry::chained(&Digest::NONE, 2, burn.clone()), Entry::chained(&first.hash, 1, burn.clone()), first]
    {
        assert!(hashes.insert(format!("{:?}", entry.hash)), "{entry:?}");
    }
    assert_eq!(hashes.len(), decisions.len() + 3);
}

/// Two versions of the program, or a ledger and the program that reads it, must come to the same hash.
#[test]
fn the_hash_of_an_entry_is_what_it_was_in_every_version() {
    let hash = |decision: Decision| {
        let entry = Entry::chained(&Digest::NONE, 1, decision);
        serde_json::to_value(entry.hash).unwrap().as_str().unwrap().to_owned()
    };
    let hashes = [
        hash(open(|_| {})),
        hash(open(|o| o.opener = Role::Follower)),
        hash(grant(|_| {})),
        hash(Decision::Skip { stream: KeyStreamId::from_u128(1), to: 2 }),
        hash(Decision::Burn { to: Mark { block: BlockName::new(1, 2), offset: 3 } }),
        hash(Decision::End { stream: KeyStreamId::from_u128(1) }),
    ];
    assert_eq!(
        hashes.map(|hash| hash[..16].to_owned()),
        [
            "4dfe7667efa95d31",
            "ed05c7d2cd961a19",
            "b2f9312538949559",
            "ba0669384623e640",
            "9284cdbd515ddcdd",
            "13373c4812d9d933",
        ]
    );
}
