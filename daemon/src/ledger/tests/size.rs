//! The file stays small however long the daemon runs.

use std::time::Instant;

use super::super::storage::ROOM;
use super::super::{FileLedger, Ledger};
use crate::agreement::{BlockName, Decision, Digest, Entry, Extent, Grant, Mark, Pair, Record, Role, Stamp};

/// Entries written; QKD_ENTRIES says how many, for a longer look.
fn entries() -> u64 {
    std::env::var("QKD_ENTRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(50_000)
}

#[test]
fn a_long_run_does_not_make_the_file_larger_than_the_room_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = FileLedger::open(folder.path()).unwrap();
    let hash = Digest::of_epoch(1, 1, 2);
    let pair = Pair { role: Role::Leader, card: 1, peer_card: 2 };
    ledger.commit(&[Record::Pair(pair), Record::Epoch { epoch: 1, hash, mark: Mark::ZERO }]).unwrap();
    let (mut before, mut number, mut commits, mut largest) = (hash, 0, 0_u64, 0);
    let begun = Instant::now();
    let all = entries();
    while number < all {
        let mut batch = Vec::new();
        for _ in 0..256 {
            number += 1;
            let extents = (0..4)
                .map(|part| Extent { block: BlockName::new(1, number * 4 + part), offset: 0, length: 32_768 })
                .collect();
            let stream = uuid::Uuid::from_u128(9);
            let mark = Mark::after(BlockName::new(1, number * 4 + 3));
            let grant = Grant { stream, first: number * 4_096, count: 4_096, extents, mark };
            let entry = Entry::chained(&before, number, Decision::Grant(grant));
            before = entry.hash;
            batch
                .push(Record::Entry { entry, stamp: Stamp { boot_id: 1, boot_ms: number, wall_ms: number } });
            if number > 512 {
                batch.push(Record::Trimmed { number: number - 512 });
            }
        }
        ledger.commit(&batch).unwrap();
        commits += 1;
        largest = largest.max(std::fs::metadata(ledger.file()).unwrap().len());
    }
    let took = begun.elapsed();
    println!("{number} entries in {commits} commits: {took:?}, the file was {largest} bytes at most");
    assert!(largest <= ROOM, "{largest} bytes");
    assert_eq!(ledger.load().unwrap().log.len(), 512);
}
