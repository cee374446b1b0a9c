//! Random but possible lives of a ledger, as the records that a key agreement writes.

use uuid::Uuid;

use crate::agreement::{
    BlockName, Decision, Digest, Durable, Entry, Extent, Grant, LossCause, Mark, OpenDecision, Opened, Pair,
    Record, Role, Stamp,
};
use crate::interface::{Qos, QosRequest};

/// SplitMix64.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A life in progress: what it has written so far, applied.
pub(super) struct Story {
    pub(super) dice: Dice,
    pub(super) told: Durable,
    sequence: u64,
}

impl Story {
    pub(super) fn new(seed: u64) -> Self {
        Self { dice: Dice(seed), told: Durable::default(), sequence: 0 }
    }

    /// What one turn of the engine writes: up to `most` records.
    pub(super) fn batch(&mut self, most: u64) -> Vec<Record> {
        let mut batch = Vec::new();
        if self.told.pair.is_none() {
            self.tell(Record::Pair(Pair { role: Role::Leader, card: 1, peer_card: 2 }), &mut batch);
            self.epoch(&mut batch);
        }
        for _ in 0..=self.dice.below(most) {
            self.next(&mut batch);
        }
        batch
    }

    fn tell(&mut self, record: Record, batch: &mut Vec<Record>) {
        self.told.apply(&record);
        batch.push(record);
    }

    fn epoch(&mut self, batch: &mut Vec<Record>) {
        let epoch = self.told.epoch + 1;
        let hash = Digest::of_epoch(epoch, 1, 2);
        self.tell(Record::Epoch { epoch, hash, mark: self.told.mark }, batch);
    }

    fn entry(&mut self, decision: Decision, batch: &mut Vec<Record>) {
        let entry = Entry::chained(&self.told.hash, self.told.last + 1, decision);
        let stamp = Stamp { boot_id: u128::MAX - 7, boot_ms: self.dice.next(), wall_ms: self.dice.next() };
        self.tell(Record::Entry { entry, stamp }, batch);
    }

    fn next(&mut self, batch: &mut Vec<Record>) {
        let mut ids: Vec<Uuid> = self.told.streams.keys().copied().collect();
        ids.sort_unstable();
        let chance = self.dice.below(1_000);
        if ids.is_empty() || chance < 30 {
            let stream = Uuid::from_u64_pair(self.dice.next(), self.dice.next());
            let qos = Qos {
                key_chunk_size: 32,
                max_bps: u32::MAX,
                min_bps: 0,
                jitter: 0,
                priority: 0,
                timeout: 5_000,
                ttl: 3_600,
                metadata_mimetype: "application/json".into(),
            };
            let open = OpenDecision {
                stream,
                source: "kms://ä".into(),
                destination: "kms://b".into(),
                qos,
                opener: Role::Leader,
            };
            return self.entry(Decision::Open(open), batch);
        }
        let stream = ids[usize::try_from(self.dice.below(ids.len() as u64)).unwrap()];
        let state = self.told.streams[&stream].clone();
        let oldest = self.told.log.keys().next().copied();
        match chance {
            30..400 => {
                let block = BlockName::new(u64::MAX - 3, self.sequence);
                self.sequence += 1;
                let extents = vec![Extent { block, offset: 0, length: 64 }];
                let grant = Grant { stream, first: state.next, count: 2, extents, mark: Mark::after(block) };
                self.entry(Decision::Grant(grant), batch);
            }
            400..700 => {
                if let Some(number) = oldest {
                    self.tell(Record::Trimmed { number }, batch);
                }
            }
            700..800 => self.tell(Record::Progress { stream, position: state.next }, batch),
            800..850 => {
                let (number, hash) = (self.told.last, self.told.hash);
                self.tell(Record::PeerApplied { number, hash }, batch);
            }
            850..870 => self.entry(Decision::Skip { stream, to: state.next + 5 }, batch),
            870..890 => self.entry(Decision::Burn { to: self.told.mark }, batch),
            890..910 => {
                let opened = Opened { kms: "kms://ä".into(), qos: QosRequest::default() };
                self.tell(Record::Opened { stream, opened }, batch);
            }
            910..920 => self.tell(Record::PeerOpened { stream }, batch),
            920..930 => self.tell(Record::Wanted { stream }, batch),
            930..940 => self.tell(Record::Wish { stream, position: state.next }, batch),
            940..955 => {
                let cause = LossCause::ALL[usize::try_from(self.dice.below(3)).unwrap()];
                self.tell(Record::Lost { stream, first: state.position, count: 1, cause }, batch);
            }
            955..965 => self.tell(Record::Closed { stream }, batch),
            965..990 => {
                self.entry(Decision::End { stream }, batch);
                self.tell(Record::Forbidden { stream }, batch);
            }
            990..995 => self.tell(Record::WriteNumber(self.told.write_number + 10), batch),
            _ => self.epoch(batch),
        }
    }
}
