//! A way in for fuzzing: a ledger's file whose pages are in order and whose rows hold anything.

use redb::backends::InMemoryBackend;
use redb::{Builder, ReadableDatabase, TableDefinition};

use super::rows;
use crate::agreement::{Durable, Record};

/// Rows as they are stored.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Of the header.
    pub header: Vec<u8>,
    /// Of each entry, by number.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// Of each key stream.
    pub streams: Vec<(u128, Vec<u8>)>,
    /// Forbidden IDs.
    pub forbidden: Vec<u128>,
}

const HEADER: TableDefinition<&str, &[u8]> = TableDefinition::new("header");
const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
const STREAMS: TableDefinition<u128, &[u8]> = TableDefinition::new("streams");
const FORBIDDEN: TableDefinition<u128, ()> = TableDefinition::new("forbidden");

/// What a ledger with these rows holds; `None` where it is refused.
///
/// # Errors
/// When the database fails, which has nothing to do with the rows.
pub fn read(rows: &Rows) -> Result<Option<Durable>, redb::Error> {
    let database = Builder::new().create_with_backend(InMemoryBackend::new())?;
    let transaction = database.begin_write()?;
    transaction.open_table(HEADER)?.insert("state", rows.header.as_slice())?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        for (number, row) in &rows.entries {
            entries.insert(number, row.as_slice())?;
        }
        let mut streams = transaction.open_table(STREAMS)?;
        for (id, row) in &rows.streams {
            streams.insert(id, row.as_slice())?;
        }
        let mut forbidden = transaction.open_table(FORBIDDEN)?;
        for id in &rows.forbidden {
            forbidden.insert(id, ())?;
        }
    }
    transaction.commit()?;
    match rows::read(&database.begin_read()?) {
        Ok((durable, _)) => Ok(Some(durable)),
        Err(rows::RowError::Nonsense(_)) => Ok(None),
        Err(rows::RowError::Database(error)) => Err(error),
    }
}

/// The rows that a ledger has after these batches, for seeds.
///
/// # Errors
/// When the database fails.
pub fn rows_after(batches: &[Vec<Record>]) -> Result<Rows, redb::Error> {
    use redb::ReadableTable;
    let database = Builder::new().create_with_backend(InMemoryBackend::new())?;
    let failed = |error| match error {
        rows::RowError::Database(error) => error,
        rows::RowError::Nonsense(what) => redb::Error::Corrupted(what),
    };
    let transaction = database.begin_write()?;
    rows::begin(&transaction).map_err(failed)?;
    let (mut mirror, mut counts) = (Durable::default(), rows::Counts::default());
    for (number, batch) in (1..).zip(batches) {
        rows::write(&transaction, batch, number, &mut mirror, &mut counts).map_err(failed)?;
    }
    transaction.commit()?;
    let transaction = database.begin_read()?;
    let mut found = Rows::default();
    if let Some(row) = transaction.open_table(HEADER)?.get("state")? {
        found.header = row.value().to_vec();
    }
    for row in transaction.open_table(ENTRIES)?.iter()? {
        let (number, row) = row?;
        found.entries.push((number.value(), row.value().to_vec()));
    }
    for row in transaction.open_table(STREAMS)?.iter()? {
        let (id, row) = row?;
        found.streams.push((id.value(), row.value().to_vec()));
    }
    for row in transaction.open_table(FORBIDDEN)?.iter()? {
        found.forbidden.push(row?.0.value());
    }
    Ok(found)
}
