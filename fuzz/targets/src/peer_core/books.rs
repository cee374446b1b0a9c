//! What has been given out at one end, held against what may be.

use std::collections::{BTreeMap, HashMap, HashSet};

use qkd_daemon::agreement::{Action, BlockName, Core, Delivery, Durable};
use qkd_daemon::calls::{Answer, Call};
use qkd_daemon::interface::KeyStreamId;

/// Most of anything that a peer can make an end remember in a target's run: see `ends::settings`.
const MOST_STREAMS: usize = 8;
const MOST_CLOSED: usize = 64;
const MOST_LOG: usize = 2_048;

pub(super) struct Books {
    kms: &'static str,
    /// Blocks in the vault, by length.
    held: BTreeMap<BlockName, u32>,
    /// For each octet of a block the stream and the octet of it that it was given to.
    given: HashMap<(BlockName, u32), (KeyStreamId, u64)>,
    /// First position that may be delivered next, of streams that live.
    next: HashMap<KeyStreamId, u64>,
    chunk: HashMap<KeyStreamId, u32>,
    calls: HashMap<u64, Call>,
    chosen: HashMap<u64, KeyStreamId>,
    answers: HashMap<u64, Answer>,
    opened: HashSet<KeyStreamId>,
    wanted: HashSet<KeyStreamId>,
}

impl Books {
    pub(super) fn new(kms: &'static str) -> Self {
        Self {
            kms,
            held: BTreeMap::new(),
            given: HashMap::new(),
            next: HashMap::new(),
            chunk: HashMap::new(),
            calls: HashMap::new(),
            chosen: HashMap::new(),
            answers: HashMap::new(),
            opened: HashSet::new(),
            wanted: HashSet::new(),
        }
    }

    pub(super) fn hold(&mut self, name: BlockName, length: u32) {
        self.held.insert(name, length);
    }

    pub(super) fn called(&mut self, id: u64, call: &Call, fresh: KeyStreamId) {
        // A call is in force before its answer: what is granted may come along with it.
        match call {
            Call::Open(open) => {
                self.opened.insert(open.stream.unwrap_or(fresh));
            }
            Call::GetKey(get_key) => {
                self.wanted.insert(get_key.stream);
            }
            Call::Close(_) => {}
        }
        self.chosen.insert(id, fresh);
        self.calls.insert(id, call.clone());
    }

    pub(super) fn answer(&self, call: u64) -> Option<&Answer> {
        self.answers.get(&call)
    }

    /// Whether more calls wait than may.
    pub(super) fn answer_missing_for_ever(&self) -> bool {
        self.calls.len() > MOST_STREAMS
    }

    pub(super) fn restarted(&mut self) {
        self.held.clear();
        self.next.clear();
        self.chunk.clear();
        self.calls.clear();
    }

    pub(super) fn delivered(&self) -> Vec<(KeyStreamId, u64)> {
        let mut delivered: Vec<_> = self.next.iter().map(|(stream, next)| (*stream, *next)).collect();
        delivered.sort_unstable();
        delivered
    }

    pub(super) fn delivered_up_to(&self, stream: KeyStreamId) -> u64 {
        self.next.get(&stream).copied().unwrap_or(0)
    }

    /// Nothing of what an end keeps may grow with what its peer says.
    pub(super) fn bounded(&self, core: &Core, durable: &Durable) {
        let status = core.status();
        assert!(status.streams <= MOST_STREAMS, "{} streams", status.streams);
        assert_eq!(core.streams().count(), status.streams, "not every stream can be shown");
        assert!(durable.streams.len() <= MOST_STREAMS, "{} streams in the ledger", durable.streams.len());
        assert!(durable.forbidden.len() <= MOST_CLOSED + MOST_STREAMS, "{} IDs", durable.forbidden.len());
        assert!(durable.log.len() <= MOST_LOG, "{} entries in the ledger", durable.log.len());
    }

    pub(super) fn watch(&mut self, action: &Action) {
        match action {
            Action::Answer { call, answer } => {
                assert!(self.calls.remove(call).is_some(), "an answer to no call, or a second one");
                self.answers.insert(*call, answer.clone());
            }
            Action::Begin { stream, kms, chunk_size, position } => {
                assert_eq!(kms, self.kms, "key of {stream} to a KMS that is not here");
                assert!(self.opened.contains(stream), "{stream} begins, and no KMS here has opened it");
                assert!(*chunk_size > 0);
                self.next.insert(*stream, *position);
                self.chunk.insert(*stream, *chunk_size);
            }
            Action::Deliver(delivery) => self.delivery(delivery),
            Action::Release { block } => {
                self.held.remove(block);
            }
            Action::Stop { stream } => {
                self.chunk.remove(stream);
            }
            _ => {}
        }
    }

    fn delivery(&mut self, delivery: &Delivery) {
        let Delivery { stream, first, count, chunk_size, extents } = delivery;
        assert!(self.opened.contains(stream), "key for {stream}, which no KMS here has opened");
        assert!(self.wanted.contains(stream), "key for {stream}, which no KMS here has asked for");
        assert_eq!(
            self.chunk.get(stream),
            Some(chunk_size),
            "another chunk size, or a pusher that has ended"
        );
        let next = self.next.get_mut(stream).expect("a pusher that has begun");
        assert!(*first >= *next, "position {first} of {stream} comes after {next}");
        *next = first.checked_add(u64::from(*count)).expect("a position that can be counted");
        crate::reach(&crate::DELIVERED);
        let octets: u64 = extents.iter().map(|extent| u64::from(extent.length)).sum();
        assert_eq!(octets, u64::from(*count) * u64::from(*chunk_size));
        let mut place = first.checked_mul(u64::from(*chunk_size)).expect("an octet that can be counted");
        for extent in extents {
            let length = self.held.get(&extent.block).copied().expect("a block that is in the vault");
            let end = extent.offset.checked_add(extent.length).expect("an end");
            assert!(end <= length, "octets beyond the block");
            for offset in extent.offset..end {
                let before = self.given.insert((extent.block, offset), (*stream, place));
                assert!(
                    before.is_none_or(|before| before == (*stream, place)),
                    "octet {offset} of block {} goes to octet {place} of {stream}, and went to {before:?}",
                    extent.block
                );
                place += 1;
            }
        }
    }
}
