//! What the two KMSs ask of their modules.

use std::collections::BTreeSet;

use qkd_daemon::agreement::Event;
use qkd_daemon::calls::{Call, Close, GetKey, Open};
use qkd_daemon::interface::{KeyStreamId, QosRequest};

use super::checker::{Verdict, Violation};
use super::node::{Asked, kms};
use super::trouble::Fault;
use super::world::World;

impl World {
    fn call(&mut self, end: usize, call: Call) -> Verdict {
        self.calls += 1;
        let id = self.calls;
        let asked = match &call {
            Call::Open(_) => Asked::Open,
            Call::GetKey(get_key) => Asked::GetKey(get_key.stream),
            Call::Close(close) => Asked::Close(close.stream),
        };
        self.nodes[end].asked.insert(id, asked);
        self.streams += 1;
        let fresh_stream = KeyStreamId::from_u128(self.streams);
        self.handle(end, Event::Call { id, call, fresh_stream })
    }

    /// Opens a new stream, or joins or repeats one, at `end`.
    pub(crate) fn open(&mut self, end: usize, stream: Option<KeyStreamId>) -> Verdict {
        let short_lived = self.strikes(Fault::Expiry, 300);
        let qos = QosRequest {
            key_chunk_size: Some(1 + self.dice.below(6) as u32),
            max_bps: self.dice.hits(200).then_some(40_000),
            min_bps: self.dice.hits(200).then_some(8_000),
            priority: self.dice.hits(200).then_some(1),
            ttl: short_lived.then_some(1),
            ..QosRequest::default()
        };
        let (source, destination) = if self.dice.hits(500) { (kms(0), kms(1)) } else { (kms(1), kms(0)) };
        self.call(end, Call::Open(Open { kms: kms(end), source, destination, stream, qos }))
    }

    /// Streams that a KMS at either end has opened.
    pub(crate) fn known(&self) -> Vec<KeyStreamId> {
        let known: BTreeSet<KeyStreamId> =
            self.nodes.iter().flat_map(|node| node.opened.iter().map(|(id, ..)| *id)).collect();
        known.into_iter().collect()
    }

    /// Streams that live at `end`.
    pub(crate) fn live(&self, end: usize) -> Vec<KeyStreamId> {
        let mut live: Vec<KeyStreamId> = self.nodes[end].core.streams().map(|s| s.stream).collect();
        live.sort_unstable();
        live
    }

    /// The KMS at `end` opens a stream that only the other has opened. Returns whether there is one.
    pub(crate) fn join(&mut self, end: usize) -> Result<bool, Violation> {
        let missing = self.not_joined(end);
        if missing.is_empty() {
            return Ok(false);
        }
        let id = missing[self.dice.index(missing.len())];
        self.open(end, Some(id)).map(|()| true)
    }

    /// Streams that the other end's KMS has opened and this end's has not.
    pub(crate) fn not_joined(&self, end: usize) -> Vec<KeyStreamId> {
        let mine: Vec<KeyStreamId> =
            self.nodes[end].core.streams().filter(|s| s.opened).map(|s| s.stream).collect();
        let theirs = self.nodes[1 - end].core.streams().filter(|s| s.opened && !s.closed);
        let mut missing: Vec<KeyStreamId> =
            theirs.map(|s| s.stream).filter(|id| !mine.contains(id)).collect();
        missing.sort_unstable();
        missing
    }

    pub(crate) fn some_open(&mut self) -> Verdict {
        let end = self.dice.index(2);
        if self.dice.hits(500) {
            return self.join(end).map(|_| ());
        }
        let known = self.known();
        if !known.is_empty() && self.strikes(Fault::IdReused, 300) {
            let id = known[self.dice.index(known.len())];
            return self.open(end, Some(id));
        }
        if self.live(0).len() >= 3 {
            return Ok(());
        }
        let predefined = self.dice.hits(300);
        self.streams += 1;
        let id = KeyStreamId::from_u128(self.streams);
        self.open(end, predefined.then_some(id))
    }

    pub(crate) fn get_key(&mut self, end: usize, stream: KeyStreamId, index: Option<u32>) -> Verdict {
        self.call(end, Call::GetKey(GetKey { stream, index }))
    }

    pub(crate) fn some_get_key(&mut self) -> Verdict {
        let end = self.dice.index(2);
        let live = self.live(end);
        if live.is_empty() {
            return Ok(());
        }
        let stream = live[self.dice.index(live.len())];
        let mut index = None;
        if self.strikes(Fault::IndexGiven, 250) {
            let position =
                self.nodes[end].core.streams().find(|s| s.stream == stream).map_or(0, |s| s.position) as u32;
            index = Some((position + self.dice.below(8) as u32).saturating_sub(2));
        }
        self.get_key(end, stream, index)
    }

    pub(crate) fn close(&mut self, end: usize, stream: KeyStreamId) -> Verdict {
        self.call(end, Call::Close(Close { stream }))
    }
}
