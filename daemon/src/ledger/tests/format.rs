//! Formats: an older one is brought to this one whole or not at all, a newer one is refused, and this one stays as it is.

use std::path::Path;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::super::format::{FORMAT, Step};
use super::super::{FileLedger, Ledger, LedgerError};
use super::story::Story;
use crate::agreement::{Opened, Record};
use crate::interface::QosRequest;

const HEADER: TableDefinition<&str, &[u8]> = TableDefinition::new("header");
const ABOUT: TableDefinition<&str, u32> = TableDefinition::new("about");

/// A made-up format 0 that had no counts of rows: all of them were 0.
fn from_made_up_0(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    let mut header = transaction.open_table(HEADER)?;
    let row = header.get("state")?.unwrap().value().to_vec();
    let mut row: serde_json::Value = serde_json::from_slice(&row).unwrap();
    for table in ["entries", "streams", "forbidden"] {
        row[table] = 0.into();
    }
    header.insert("state", row.to_string().as_bytes())?;
    Ok(())
}

fn fails(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    from_made_up_0(transaction)?;
    Err(redb::Error::Corrupted("made up".into()))
}

/// Changes the file as another release would have written it.
fn change(directory: &Path, change: impl FnOnce(&WriteTransaction)) {
    let database = Database::open(directory.join("ledger.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

fn make_format_0(directory: &Path) {
    drop(FileLedger::open(directory).unwrap());
    change(directory, |transaction| {
        transaction.open_table(ABOUT).unwrap().insert("format", 0).unwrap();
        let mut header = transaction.open_table(HEADER).unwrap();
        let row = header.get("state").unwrap().unwrap().value().to_vec();
        let mut row: serde_json::Value = serde_json::from_slice(&row).unwrap();
        for table in ["entries", "streams", "forbidden"] {
            row.as_object_mut().unwrap().remove(table);
        }
        header.insert("state", row.to_string().as_bytes()).unwrap();
    });
}

fn open_with(directory: &Path, steps: &[(u32, Step)]) -> Result<FileLedger, LedgerError> {
    let path = directory.join("ledger.redb");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    FileLedger::open_on(FileBackend::new(file).unwrap(), &path, FORMAT, steps)
}

#[test]
fn an_older_format_is_brought_to_this_one_in_one_transaction() {
    let folder = tempfile::tempdir().unwrap();
    make_format_0(folder.path());
    assert!(
        matches!(FileLedger::open(folder.path()), Err(LedgerError::Damaged { .. })),
        "nobody knows format 0"
    );
    assert!(open_with(folder.path(), &[(0, fails)]).is_err());
    let database = Database::open(folder.path().join("ledger.redb")).unwrap();
    let about = database.begin_read().unwrap().open_table(ABOUT).unwrap();
    assert_eq!(about.get("format").unwrap().unwrap().value(), 0, "a step that failed has changed nothing");
    drop((about, database));
    let mut ledger = open_with(folder.path(), &[(0, from_made_up_0)]).unwrap();
    assert_eq!(ledger.load().unwrap(), Default::default());
    drop(ledger);
    assert!(FileLedger::open(folder.path()).is_ok(), "it stays in this format");
}

#[test]
fn a_newer_format_is_refused_in_words_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(FileLedger::open(folder.path()).unwrap());
    change(folder.path(), |transaction| {
        transaction.open_table(ABOUT).unwrap().insert("format", FORMAT + 1).unwrap();
    });
    for _ in 0..2 {
        let error = FileLedger::open(folder.path()).unwrap_err();
        assert!(matches!(error, LedgerError::Newer { found, known, .. } if found == known + 1));
        assert!(error.to_string().contains("install the release"), "{error}");
    }
}

/// Who changes a row changes the format: raise FORMAT and write a step, then mend this test.
#[test]
fn rows_of_format_1_are_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = FileLedger::open(folder.path()).unwrap();
    let mut story = Story::new(5);
    let mut batch: Vec<_> = (0..3).flat_map(|_| story.batch(2)).collect();
    let stream = *story.told.streams.keys().next().unwrap();
    let qos = QosRequest { key_chunk_size: Some(32), ..QosRequest::default() };
    batch.push(Record::Opened { stream, opened: Opened { kms: "kms://ä".into(), qos } });
    ledger.commit(&batch).unwrap();
    drop(ledger);
    let database = Database::open(folder.path().join("ledger.redb")).unwrap();
    let read = database.begin_read().unwrap();
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    let header = text(read.open_table(HEADER).unwrap().get("state").unwrap().unwrap().value());
    let entries = read.open_table(TableDefinition::<u64, &[u8]>::new("entries")).unwrap();
    let entries: Vec<_> = entries.iter().unwrap().map(|row| text(row.unwrap().1.value())).collect();
    let streams = read.open_table(TableDefinition::<u128, &[u8]>::new("streams")).unwrap();
    let streams: Vec<_> = streams.iter().unwrap().map(|row| text(row.unwrap().1.value())).collect();
    let found = format!("{header}\n{}\n{}\n", entries.join("\n"), streams.join("\n"));
    assert_eq!(found, include_str!("format_1.txt"), "found:\n{found}");
}
