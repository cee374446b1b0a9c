//! Streams that the modules have ended, and whether a KMS was told.

use std::collections::BTreeSet;
use std::path::Path;

use uuid::Uuid;

use crate::history::read::{ReadError, Reader};
use crate::history::record::Line;

/// Status of a notice that the other end is closed.
const PEER_CLOSED: u32 = 1;

/// Streams that received key and have ended before the run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Endings {
    /// How many.
    pub(super) ended: usize,
    /// Those of them whose end a notice has told to a KMS. The module that has lost its ledger knows of none, and one
    /// that is killed at that moment tells nobody.
    pub(super) told: usize,
}

/// Reads both histories. `alive`: streams that were open to the end.
///
/// # Errors
/// A history cannot be read.
pub(super) fn read(histories: [&Path; 2], alive: &BTreeSet<Uuid>) -> Result<Endings, ReadError> {
    let (mut received, mut told) = (BTreeSet::new(), BTreeSet::new());
    for history in histories {
        let mut reader = Reader::open(history)?;
        while let Some(line) = reader.next_line()? {
            match line {
                Line::Chunk(chunk) => received.insert(chunk.stream),
                Line::Run(run) => received.insert(run.stream),
                Line::Notice(notice) if notice.status == PEER_CLOSED => told.insert(notice.stream),
                _ => false,
            };
        }
    }
    let ended: BTreeSet<Uuid> = received.difference(alive).copied().collect();
    Ok(Endings { ended: ended.len(), told: ended.intersection(&told).count() })
}
