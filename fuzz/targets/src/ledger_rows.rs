//! A ledger whose rows hold anything: refused, or the start of a core that does not break.

use qkd_daemon::agreement::{Durable, Record};
use qkd_daemon::ledger::fuzzing::{Rows, read, rows_after};

use crate::Target;
use crate::input::Input;
use crate::peer_core::records;

pub(crate) const TARGET: Target = Target { name: "ledger_rows", run, seeds, bounded: 2_000, longest: 16_384 };

fn run(octets: &[u8]) {
    let rows = unpack(octets);
    if let Some(durable) = read(&rows).expect("the database in memory works") {
        check(&durable);
    }
}

/// What was taken hangs together.
fn check(durable: &Durable) {
    let mut before = None;
    for (number, logged) in &durable.log {
        assert_eq!(*number, logged.entry.number);
        assert!(*number <= durable.last);
        if let Some((last, hash)) = before
            && last + 1 == *number
        {
            assert!(logged.entry.follows(&hash), "a chain with a gap was taken");
        }
        before = Some((*number, logged.entry.hash));
    }
}

/// Each row: which table, key, length, octets. The last header counts.
fn unpack(octets: &[u8]) -> Rows {
    let mut input = Input::new(octets);
    let mut rows = Rows::default();
    while !input.is_empty() {
        let (table, key, length) = (input.byte(), input.number(), usize::from(input.u16()));
        let row = input.take(length).to_vec();
        match table % 4 {
            0 => rows.header = row,
            1 => rows.entries.push((key, row)),
            2 => rows.streams.push((key.into(), row)),
            _ => rows.forbidden.push(key.into()),
        }
    }
    rows
}

fn pack(rows: &Rows) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut row = |table: u8, key: u64, row: &[u8]| {
        octets.push(table);
        octets.push(255);
        octets.extend_from_slice(&key.to_be_bytes());
        octets.extend_from_slice(&u16::try_from(row.len()).expect("a short row").to_be_bytes());
        octets.extend_from_slice(row);
    };
    row(0, 0, &rows.header);
    rows.entries.iter().for_each(|(number, entry)| row(1, *number, entry));
    rows.streams.iter().for_each(|(id, stream)| row(2, u64::try_from(*id).expect("a small ID"), stream));
    rows.forbidden.iter().for_each(|id| row(3, u64::try_from(*id).expect("a small ID"), &[]));
    octets
}

fn seeds() -> Vec<Vec<u8>> {
    let batches: Vec<Vec<Record>> = records();
    let lengths = [1, batches.len() / 4, batches.len() / 2, batches.len()];
    lengths
        .iter()
        .map(|length| pack(&rows_after(&batches[..*length]).expect("a database in memory")))
        .collect()
}
