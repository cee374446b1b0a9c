//! What the ledger holds, as the core sees it. It changes only by [`Record`]s.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::entry::{Decision, Digest, Entry, OpenDecision};
use super::event::LossCause;
use super::names::{Mark, Position};
use super::record::{Opened, Pair, Record, Stamp};
use super::settings::Role;
use crate::interface::{KeyStreamId, Qos};

/// What the ledger holds. The default is a fresh ledger, which knows nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Of the last commit; the ledger raises it with each.
    pub write_number: u64,
    /// The pair that it belongs to.
    pub pair: Option<Pair>,
    /// Epoch; 0 for none yet.
    pub epoch: u64,
    /// Number of the last entry.
    pub last: u64,
    /// Its hash.
    pub hash: Digest,
    /// At the leader: the last entry that the follower has applied.
    pub peer_applied: u64,
    /// Its hash.
    pub peer_hash: Digest,
    /// Everything below is used up. Never falls.
    pub mark: Mark,
    /// Entries that are still owed to somebody.
    pub log: BTreeMap<u64, LoggedEntry>,
    /// Key streams.
    pub streams: HashMap<KeyStreamId, StreamState>,
    /// IDs that are never used again.
    pub forbidden: HashSet<KeyStreamId>,
}

impl Default for Durable {
    fn default() -> Self {
        Self {
            write_number: 0,
            pair: None,
            epoch: 0,
            last: 0,
            hash: Digest::NONE,
            peer_applied: 0,
            peer_hash: Digest::NONE,
            mark: Mark::ZERO,
            log: BTreeMap::new(),
            streams: HashMap::new(),
            forbidden: HashSet::new(),
        }
    }
}

/// An entry and when it was committed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEntry {
    /// The entry.
    pub entry: Entry,
    /// When.
    pub stamp: Stamp,
}

/// A key stream at this end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// One KMS.
    pub source: String,
    /// The other.
    pub destination: String,
    /// As registered.
    pub qos: Qos,
    /// How this end's KMS opened it.
    pub opened: Option<Opened>,
    /// The other end's KMS has opened it.
    pub peer_opened: bool,
    /// This end's KMS has sent get-key.
    pub wanted: bool,
    /// First position that it wants.
    pub wish: Position,
    /// This end is closed.
    pub closed: bool,
    /// Everything below has been granted or skipped.
    pub next: Position,
    /// Everything below is settled at this end.
    pub position: Position,
    /// Chunks lost at this end, by cause in the order of [`LossCause::ALL`].
    pub lost: [u64; LossCause::ALL.len()],
}

impl StreamState {
    fn new(open: &OpenDecision, role: Role) -> Self {
        Self {
            source: open.source.clone(),
            destination: open.destination.clone(),
            qos: open.qos.clone(),
            opened: None,
            peer_opened: open.opener != role,
            wanted: false,
            wish: 0,
            closed: false,
            next: 0,
            position: 0,
            lost: [0; LossCause::ALL.len()],
        }
    }
}

impl Durable {
    /// Makes one change. Any number of changes made in the same order to an equal value give an equal value.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Pair(pair) => self.pair = Some(*pair),
            Record::WriteNumber(number) => self.write_number = self.write_number.max(*number),
            Record::Epoch { epoch, hash, mark } => {
                self.epoch = *epoch;
                self.hash = *hash;
                self.mark = *mark;
                self.last = 0;
                self.peer_applied = 0;
                self.peer_hash = *hash;
                self.log.clear();
                self.streams.clear();
            }
            Record::Entry { entry, stamp } => self.apply_entry(entry, *stamp),
            Record::Trimmed { number } => {
                self.log.remove(number);
            }
            Record::PeerApplied { number, hash } => {
                self.peer_applied = *number;
                self.peer_hash = *hash;
            }
            Record::Opened { stream, opened } => {
                self.change(stream, |s| s.opened = Some(opened.clone()));
            }
            Record::PeerOpened { stream } => self.change(stream, |s| s.peer_opened = true),
            Record::Wanted { stream } => self.change(stream, |s| s.wanted = true),
            Record::Wish { stream, position } => self.change(stream, |s| s.wish = s.wish.max(*position)),
            Record::Progress { stream, position } => {
                self.change(stream, |s| s.position = s.position.max(*position));
            }
            Record::Lost { stream, first, count, cause } => self.change(stream, |s| {
                s.position = s.position.max(first.saturating_add(*count));
                if let Some(counter) = s.lost.get_mut(*cause as usize) {
                    *counter = counter.saturating_add(*count);
                }
            }),
            Record::Closed { stream } => self.change(stream, |s| s.closed = true),
            Record::Forbidden { stream } => {
                self.forbidden.insert(*stream);
            }
        }
    }

    fn change(&mut self, stream: &KeyStreamId, change: impl FnOnce(&mut StreamState)) {
        if let Some(state) = self.streams.get_mut(stream) {
            change(state);
        }
    }

    fn apply_entry(&mut self, entry: &Entry, stamp: Stamp) {
        self.last = entry.number;
        self.hash = entry.hash;
        match &entry.decision {
            Decision::Open(open) => {
                let role = self.pair.map_or(Role::Follower, |pair| pair.role);
                self.streams.insert(open.stream, StreamState::new(open, role));
            }
            Decision::Grant(grant) => {
                self.mark = self.mark.max(grant.mark);
                self.change(&grant.stream, |s| s.next = s.next.max(grant.end()));
            }
            Decision::Skip { stream, to } => self.change(stream, |s| s.next = s.next.max(*to)),
            Decision::Burn { to } => self.mark = self.mark.max(*to),
            Decision::End { stream } => {
                self.streams.remove(stream);
            }
        }
        self.log.insert(entry.number, LoggedEntry { entry: entry.clone(), stamp });
    }
}
