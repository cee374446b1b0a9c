//! What the two KMSs ask of their modules.

use std::collections::BTreeSet;

use qkd_daemon::agreement::Event;
use qkd_daemon::calls::{Call, Close, GetKey, Open};
use qkd_daemon::interface::{KeyStreamId, QosRequest};

use super::checker::{Verdict, Violation};
use super::faults::Fault;
use super::node::{Asked, KMS_EACH, kms, kms_number};
use super::world::World;

impl World {
    pub(crate) fn call(&mut self, end: usize, call: Call, asked: Asked) -> Verdict {
        if !self.is_up(end) {
            return Ok(());
        }
        self.calls += 1;
        let id = self.calls;
        self.nodes[end].asked.insert(id, asked);
        self.streams += 1;
        let fresh_stream = KeyStreamId::from_u128(self.streams);
        self.handle(end, Event::Call { id, call, fresh_stream })
    }

    /// Opens a new stream, or joins or repeats one, at `end`.
    pub(crate) fn open(&mut self, end: usize, stream: Option<KeyStreamId>) -> Verdict {
        let short_lived = !self.healed && self.faults.contains(&Fault::Expiry) && self.dice.hits(300);
        let qos = QosRequest {
            key_chunk_size: Some(1 + self.dice.below(6) as u32),
            max_bps: self.dice.hits(200).then_some(40_000),
            // What the link gives while all is well is several times the sum of them: nobody starves for long.
            min_bps: self.dice.hits(200).then_some(800),
            priority: self.dice.hits(200).then_some(1),
            ttl: short_lived.then_some(1),
            ..QosRequest::default()
        };
        let (here, there) = (self.dice.index(KMS_EACH), self.dice.index(KMS_EACH));
        let fresh = || {
            let (here, there) = (kms(end, here), kms(1 - end, there));
            if qos.min_bps.is_some() { (here.clone(), there, here) } else { (there, here.clone(), here) }
        };
        let (source, destination, mine) = stream.and_then(|id| self.parties(end, id)).unwrap_or_else(fresh);
        self.call(end, Call::Open(Open { kms: mine, source, destination, stream, qos }), Asked::Open)
    }

    /// Source, destination and this end's KMS of a stream that lives at either end.
    fn parties(&self, end: usize, id: KeyStreamId) -> Option<(String, String, String)> {
        let nodes = [&self.nodes[end], &self.nodes[1 - end]].into_iter();
        let streams = nodes.filter(|node| node.down_until.is_none()).flat_map(|node| node.core.streams());
        let stream = streams.into_iter().find(|s| s.stream == id)?;
        let (source, destination) = (stream.source.to_owned(), stream.destination.to_owned());
        let of_end = format!("kms://{}", ["a", "b"][end]);
        let mine = if source.starts_with(&of_end) { source.clone() } else { destination.clone() };
        Some((source, destination, mine))
    }

    /// A KMS of `end` opens a stream that is another's.
    fn wrong_open(&mut self, end: usize) -> Verdict {
        let live = self.live(end);
        if live.is_empty() {
            return Ok(());
        }
        let id = live[self.dice.index(live.len())];
        let Some((source, destination, mine)) = self.parties(end, id) else { return Ok(()) };
        if !self.strikes_if_up(Fault::WrongKms, end, 1_000) {
            return Ok(());
        }
        let which = 1 - kms_number(&mine);
        let wrong = kms(end, which);
        let (source, destination) =
            if source == mine { (wrong.clone(), destination) } else { (source, wrong.clone()) };
        let qos = QosRequest::default();
        let open = Open { kms: wrong, source, destination, stream: Some(id), qos };
        self.call(end, Call::Open(open), Asked::WrongOpen(which))
    }

    /// Streams that a KMS at either end has opened.
    pub(crate) fn known(&self) -> Vec<KeyStreamId> {
        let known: BTreeSet<KeyStreamId> =
            self.nodes.iter().flat_map(|node| node.opened.iter().copied()).collect();
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
        if self.faults.contains(&Fault::WrongKms) && self.dice.hits(200) {
            return self.wrong_open(end);
        }
        let known = self.known();
        if !known.is_empty() && self.strikes_if_up(Fault::IdReused, end, 300) {
            let id = known[self.dice.index(known.len())];
            return self.open(end, Some(id));
        }
        if self.live(0).len() >= 4 {
            return Ok(());
        }
        let predefined = self.dice.hits(300);
        self.streams += 1;
        let id = KeyStreamId::from_u128(self.streams);
        self.open(end, predefined.then_some(id))
    }

    pub(crate) fn get_key(&mut self, end: usize, stream: KeyStreamId, index: Option<u32>) -> Verdict {
        let kms = self.by_name(end, stream);
        self.call(end, Call::GetKey(GetKey { kms, stream, index }), Asked::GetKey(stream))
    }

    pub(crate) fn some_get_key(&mut self) -> Verdict {
        let end = self.dice.index(2);
        let live = self.live(end);
        if live.is_empty() {
            return Ok(());
        }
        if self.faults.contains(&Fault::WrongKms) && self.dice.hits(150) {
            return self.stranger_calls(end);
        }
        let stream = live[self.dice.index(live.len())];
        let mut index = None;
        if self.strikes_if_up(Fault::IndexGiven, end, 250) {
            let position =
                self.nodes[end].core.streams().find(|s| s.stream == stream).map_or(0, |s| s.position) as u32;
            index = Some((position + self.dice.below(8) as u32).saturating_sub(2));
        }
        self.get_key(end, stream, index)
    }

    pub(crate) fn close(&mut self, end: usize, stream: KeyStreamId) -> Verdict {
        let kms = self.by_name(end, stream);
        self.call(end, Call::Close(Close { kms, stream }), Asked::Close(stream))
    }

    /// A stream's own KMS at `end`, where the call is to tell who calls.
    fn by_name(&mut self, end: usize, stream: KeyStreamId) -> Option<String> {
        if self.dice.hits(500) { self.parties(end, stream).map(|(_, _, mine)| mine) } else { None }
    }

    /// A KMS of `end` starts or closes a stream that is another's.
    fn stranger_calls(&mut self, end: usize) -> Verdict {
        let live = self.live(end);
        if live.is_empty() {
            return Ok(());
        }
        let stream = live[self.dice.index(live.len())];
        let Some((_, _, mine)) = self.parties(end, stream) else { return Ok(()) };
        if !self.strikes_if_up(Fault::WrongKms, end, 1_000) {
            return Ok(());
        }
        let stranger = Some(kms(end, 1 - kms_number(&mine)));
        let call = if self.dice.hits(500) {
            Call::GetKey(GetKey { kms: stranger, stream, index: None })
        } else {
            Call::Close(Close { kms: stranger, stream })
        };
        self.call(end, call, Asked::Stranger(stream))
    }
}
