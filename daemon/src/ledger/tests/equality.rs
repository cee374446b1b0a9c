//! A ledger in a file says the same as one in memory, whatever it was told and however often it was opened anew.

use std::path::Path;

use super::super::{FileLedger, Ledger, MemoryLedger};
use super::story::Story;

fn opened(directory: &Path) -> FileLedger {
    FileLedger::open(directory).unwrap()
}

#[test]
fn what_was_told_is_what_comes_back_after_any_number_of_starts() {
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("ledger");
        let mut story = Story::new(seed);
        let mut memory = MemoryLedger::new();
        let mut file = opened(&place);
        assert!(file.is_new());
        assert_eq!(file.load().unwrap(), memory.load().unwrap());
        for _ in 0..60 {
            let batch = story.batch(12);
            kinds.extend(batch.iter().map(|record| {
                let text = format!("{record:?}");
                text.split([' ', '(']).next().unwrap_or_default().to_owned()
            }));
            assert_eq!(file.commit(&batch).unwrap(), memory.commit(&batch).unwrap());
            story.told.write_number = memory.durable().write_number;
            if story.dice.below(6) == 0 {
                drop(file);
                file = opened(&place);
                assert!(!file.is_new());
            }
            if story.dice.below(3) == 0 {
                assert_eq!(&file.load().unwrap(), memory.durable(), "seed {seed}");
            }
        }
        drop(file);
        assert_eq!(&opened(&place).load().unwrap(), memory.durable(), "seed {seed}");
    }
    assert_eq!(kinds.len(), 14, "every kind of record must have been told, not only {kinds:?}");
}

#[test]
fn write_numbers_rise_and_go_on_above_the_cards_cell_over_starts() {
    use crate::agreement::Record;
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = opened(folder.path());
    assert_eq!(ledger.commit(&[]).unwrap(), 1);
    assert_eq!(ledger.commit(&[Record::WriteNumber(40)]).unwrap(), 41);
    drop(ledger);
    let mut ledger = opened(folder.path());
    assert_eq!(ledger.write_number(), 41);
    assert_eq!(ledger.commit(&[Record::WriteNumber(3)]).unwrap(), 42);
    assert!(ledger.commit(&[Record::WriteNumber(u64::MAX)]).is_err());
    drop(ledger);
    assert_eq!(
        opened(folder.path()).load().unwrap().write_number,
        42,
        "nothing of a write that failed is kept"
    );
}
