//! The rows of the file, format 1: one for each log entry, key stream and forbidden ID, and one with everything else.
//!
//! Values are JSON: names and numbers, which a person with the file can read.

use std::collections::BTreeSet;

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::agreement::{
    Decision, Digest, Durable, Entry, LoggedEntry, LossCause, Mark, Opened, Pair, Position, Record, Stamp,
    StreamState,
};
use crate::interface::{KeyStreamId, Qos};

const HEADER: TableDefinition<&str, &[u8]> = TableDefinition::new("header");
const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
const STREAMS: TableDefinition<u128, &[u8]> = TableDefinition::new("streams");
const FORBIDDEN: TableDefinition<u128, ()> = TableDefinition::new("forbidden");

/// The header's only row.
const STATE: &str = "state";

/// A row is not what it must be.
#[derive(Debug)]
pub(super) enum RowError {
    /// What it holds makes no sense.
    Nonsense(String),
    /// It could not be read or written.
    Database(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for RowError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderRow {
    write_number: u64,
    pair: Option<Pair>,
    epoch: u64,
    last: u64,
    hash: Digest,
    peer_applied: u64,
    peer_hash: Digest,
    mark: Mark,
    /// Rows in the other tables, which must all be there.
    entries: u64,
    streams: u64,
    forbidden: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryRow {
    entry: Entry,
    stamp: Stamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamRow {
    source: String,
    destination: String,
    qos: Qos,
    opened: Option<Opened>,
    peer_opened: bool,
    wanted: bool,
    wish: Position,
    closed: bool,
    next: Position,
    position: Position,
    lost: [u64; LossCause::ALL.len()],
}

impl StreamRow {
    fn of(state: &StreamState) -> Self {
        let StreamState {
            source,
            destination,
            qos,
            opened,
            peer_opened,
            wanted,
            wish,
            closed,
            next,
            position,
            lost,
        } = state.clone();
        Self { source, destination, qos, opened, peer_opened, wanted, wish, closed, next, position, lost }
    }

    fn into_state(self) -> StreamState {
        let Self {
            source,
            destination,
            qos,
            opened,
            peer_opened,
            wanted,
            wish,
            closed,
            next,
            position,
            lost,
        } = self;
        StreamState {
            source,
            destination,
            qos,
            opened,
            peer_opened,
            wanted,
            wish,
            closed,
            next,
            position,
            lost,
        }
    }
}

fn to_octets(row: &impl Serialize) -> Result<Vec<u8>, RowError> {
    serde_json::to_vec(row).map_err(|error| RowError::Nonsense(error.to_string()))
}

fn from_octets<T: DeserializeOwned>(octets: &[u8], what: &str) -> Result<T, RowError> {
    serde_json::from_slice(octets).map_err(|error| RowError::Nonsense(format!("{what}: {error}")))
}

/// Writes what a fresh ledger holds.
pub(super) fn begin(transaction: &WriteTransaction) -> Result<(), RowError> {
    transaction.open_table(ENTRIES)?;
    transaction.open_table(STREAMS)?;
    transaction.open_table(FORBIDDEN)?;
    write_header(transaction, &Durable::default(), Counts::default())
}

/// Rows in the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    entries: u64,
    streams: u64,
    forbidden: u64,
}

fn write_header(transaction: &WriteTransaction, durable: &Durable, counts: Counts) -> Result<(), RowError> {
    let row = HeaderRow {
        write_number: durable.write_number,
        pair: durable.pair,
        epoch: durable.epoch,
        last: durable.last,
        hash: durable.hash,
        peer_applied: durable.peer_applied,
        peer_hash: durable.peer_hash,
        mark: durable.mark,
        entries: counts.entries,
        streams: counts.streams,
        forbidden: counts.forbidden,
    };
    transaction.open_table(HEADER)?.insert(STATE, to_octets(&row)?.as_slice())?;
    Ok(())
}

/// Reads everything, and sees that it fits together.
pub(super) fn read(transaction: &ReadTransaction) -> Result<(Durable, Counts), RowError> {
    let header = transaction.open_table(HEADER)?;
    let row = header.get(STATE)?.ok_or_else(|| RowError::Nonsense("the header is missing".into()))?;
    let header: HeaderRow = from_octets(row.value(), "header")?;
    let mut durable = Durable {
        write_number: header.write_number,
        pair: header.pair,
        epoch: header.epoch,
        last: header.last,
        hash: header.hash,
        peer_applied: header.peer_applied,
        peer_hash: header.peer_hash,
        mark: header.mark,
        ..Durable::default()
    };
    for row in transaction.open_table(ENTRIES)?.iter()? {
        let (number, octets) = row?;
        let number = number.value();
        let EntryRow { entry, stamp } = from_octets(octets.value(), &format!("entry {number}"))?;
        if entry.number != number || number > header.last {
            return Err(RowError::Nonsense(format!(
                "entry {number} has another number or is beyond the last"
            )));
        }
        durable.log.insert(number, LoggedEntry { entry, stamp });
    }
    for row in transaction.open_table(STREAMS)?.iter()? {
        let (id, octets) = row?;
        let id = Uuid::from_u128(id.value());
        let state: StreamRow = from_octets(octets.value(), &format!("key stream {id}"))?;
        durable.streams.insert(id, state.into_state());
    }
    for row in transaction.open_table(FORBIDDEN)?.iter()? {
        durable.forbidden.insert(Uuid::from_u128(row?.0.value()));
    }
    let counts = Counts {
        entries: durable.log.len() as u64,
        streams: durable.streams.len() as u64,
        forbidden: durable.forbidden.len() as u64,
    };
    let wanted = Counts { entries: header.entries, streams: header.streams, forbidden: header.forbidden };
    if counts != wanted {
        return Err(RowError::Nonsense(format!("the tables have {counts:?}, and should have {wanted:?}")));
    }
    check_chain(&durable)?;
    Ok((durable, counts))
}

/// Each entry's hash must follow from the entry before, where that is still there.
fn check_chain(durable: &Durable) -> Result<(), RowError> {
    let mut before: Option<&Entry> = None;
    for logged in durable.log.values() {
        let entry = &logged.entry;
        if let Some(before) = before
            && before.number.checked_add(1) == Some(entry.number)
            && !entry.follows(&before.hash)
        {
            return Err(RowError::Nonsense(format!("entry {} does not follow the one before", entry.number)));
        }
        before = Some(entry);
    }
    match before {
        Some(last) if last.number == durable.last && last.hash != durable.hash => {
            Err(RowError::Nonsense("the last entry is not the one that the header names".into()))
        }
        _ => Ok(()),
    }
}

/// Writes the rows that `writes` change. `mirror` is what the ledger holds but for entries and forbidden IDs; it changes
/// along, and gets the number of this write.
pub(super) fn write(
    transaction: &WriteTransaction,
    writes: &[Record],
    number: u64,
    mirror: &mut Durable,
    counts: &mut Counts,
) -> Result<(), RowError> {
    let mut touched: BTreeSet<KeyStreamId> = BTreeSet::new();
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut streams = transaction.open_table(STREAMS)?;
        let mut forbidden = transaction.open_table(FORBIDDEN)?;
        for record in writes {
            match record {
                Record::Pair(_) | Record::WriteNumber(_) | Record::PeerApplied { .. } => {}
                Record::Epoch { .. } => {
                    entries.retain(|_, _| false)?;
                    streams.retain(|_, _| false)?;
                    counts.entries = 0;
                    counts.streams = 0;
                    touched.clear();
                }
                Record::Entry { entry, stamp } => {
                    let row = to_octets(&EntryRow { entry: entry.clone(), stamp: *stamp })?;
                    if entries.insert(entry.number, row.as_slice())?.is_none() {
                        counts.entries += 1;
                    }
                    touched.extend(stream_of(&entry.decision));
                }
                Record::Trimmed { number } => {
                    if entries.remove(*number)?.is_some() {
                        counts.entries -= 1;
                    }
                }
                Record::Opened { stream, .. }
                | Record::PeerOpened { stream }
                | Record::Wanted { stream }
                | Record::Wish { stream, .. }
                | Record::Progress { stream, .. }
                | Record::Lost { stream, .. }
                | Record::Closed { stream } => {
                    touched.insert(*stream);
                }
                Record::Forbidden { stream } => {
                    if forbidden.insert(stream.as_u128(), ())?.is_none() {
                        counts.forbidden += 1;
                    }
                    continue;
                }
            }
            mirror.apply(record);
        }
        for id in touched {
            let key = id.as_u128();
            let before = match mirror.streams.get(&id) {
                Some(state) => {
                    let row = to_octets(&StreamRow::of(state))?;
                    counts.streams += 1;
                    streams.insert(key, row.as_slice())?.is_some()
                }
                None => streams.remove(key)?.is_some(),
            };
            counts.streams -= u64::from(before);
        }
    }
    mirror.log.clear();
    mirror.write_number = number;
    write_header(transaction, mirror, *counts)
}

fn stream_of(decision: &Decision) -> Option<KeyStreamId> {
    match decision {
        Decision::Open(open) => Some(open.stream),
        Decision::Grant(grant) => Some(grant.stream),
        Decision::Skip { stream, .. } | Decision::End { stream } => Some(*stream),
        Decision::Burn { .. } => None,
    }
}
