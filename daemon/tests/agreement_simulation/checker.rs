//! Judges what both KMSs are sent by the invariants of the key agreement: I1 agreement, I2 no reuse, I3 stability,
//! I4 order, I5 consent. Delivery is the first send.

use std::collections::{BTreeMap, BTreeSet};

use qkd_daemon::agreement::{BlockName, Decision, Durable, LossCause, Record};
use qkd_daemon::interface::KeyStreamId;

/// An octet of key: the block and the place in it say which.
pub(crate) type Octet = (BlockName, u32);

/// An invariant was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
}

pub(crate) type Verdict = Result<(), Violation>;

pub(crate) fn broken(invariant: &'static str, what: String) -> Verdict {
    Err(Violation { invariant, what })
}

type Chunk = (KeyStreamId, u64);

#[derive(Debug, Default)]
pub(crate) struct Checker {
    /// What each end was sent.
    sent: [BTreeMap<Chunk, Vec<Octet>>; 2],
    /// Highest position first sent, plus one.
    reached: [BTreeMap<KeyStreamId, u64>; 2],
    used: BTreeMap<Octet, Chunk>,
    /// Runs of positions that an end has counted as lost, or that were never granted, durably.
    excused: [BTreeMap<KeyStreamId, Vec<(u64, u64)>>; 2],
    wanted: [BTreeSet<KeyStreamId>; 2],
    closed: [BTreeSet<KeyStreamId>; 2],
    /// What each end's log has granted.
    granted: [BTreeMap<Chunk, Vec<Octet>>; 2],
    pub(crate) deliveries: u64,
    pub(crate) losses: BTreeMap<&'static str, u64>,
    pub(crate) entries: BTreeMap<&'static str, u64>,
}

impl Checker {
    pub(crate) fn close_done(&mut self, end: usize, stream: KeyStreamId) {
        self.closed[end].insert(stream);
    }

    pub(crate) fn reached(&self, end: usize, stream: KeyStreamId) -> u64 {
        self.reached[end].get(&stream).copied().unwrap_or(0)
    }

    /// A chunk goes out to the KMS.
    pub(crate) fn sends(
        &mut self,
        end: usize,
        stream: KeyStreamId,
        position: u64,
        octets: &[Octet],
    ) -> Verdict {
        let chunk = (stream, position);
        let name = format!("end {end}, stream {stream}, position {position}: {octets:?}");
        if self.closed[end].contains(&stream) {
            return broken("I5", format!("sent after close was answered; {name}"));
        }
        if !(0..2).all(|e| self.wanted[e].contains(&stream)) {
            return broken("I5", format!("sent before both KMSs had sent get-key; {name}"));
        }
        if let Some(before) = self.sent[end].get(&chunk) {
            if before != octets {
                return broken("I3", format!("sent as {before:?} before; {name}"));
            }
            return Ok(());
        }
        if let Some(other) = self.sent[1 - end].get(&chunk)
            && other != octets
        {
            return broken("I1", format!("the other end was sent {other:?}; {name}"));
        }
        for octet in octets {
            if let Some(other) = self.used.insert(*octet, chunk)
                && other != chunk
            {
                return broken("I2", format!("octet {octet:?} was delivered as {other:?}; {name}"));
            }
        }
        let reached = self.reached(end, stream);
        if position < reached {
            return broken("I4", format!("sent for the first time after position {reached}; {name}"));
        }
        let excused = self.excused[end].entry(stream).or_default();
        for gap in reached..position {
            if !excused.iter().any(|(from, to)| (*from..*to).contains(&gap)) {
                return broken("I4", format!("position {gap} was left out and not counted; {name}"));
            }
        }
        self.reached[end].insert(stream, position + 1);
        self.sent[end].insert(chunk, octets.to_vec());
        self.deliveries += 1;
        Ok(())
    }

    /// `record` is about to become durable at `end`, whose ledger holds `before`.
    pub(crate) fn writes(
        &mut self,
        end: usize,
        before: &Durable,
        record: &Record,
        lost_here: &BTreeMap<BlockName, &'static str>,
        get_keys: &BTreeSet<KeyStreamId>,
    ) -> Verdict {
        match record {
            Record::Wanted { stream } => {
                if !get_keys.contains(stream) {
                    return broken(
                        "I5",
                        format!("end {end} takes stream {stream} for wanted without a get-key"),
                    );
                }
                // Durable: it counts, even if its answer is lost.
                self.wanted[end].insert(*stream);
            }
            Record::Entry { entry, .. } => {
                let kind = match &entry.decision {
                    Decision::Open(_) => "open",
                    Decision::Grant(grant) => {
                        let size = u64::from(before.streams[&grant.stream].qos.key_chunk_size);
                        let octets: Vec<Octet> = grant
                            .extents
                            .iter()
                            .flat_map(|e| (e.offset..e.offset + e.length).map(|at| (e.block, at)))
                            .collect();
                        for (i, octets) in octets.chunks(size as usize).enumerate() {
                            self.granted[end].insert((grant.stream, grant.first + i as u64), octets.to_vec());
                        }
                        "grant"
                    }
                    Decision::Skip { stream, to } => {
                        let from = before.streams[stream].next;
                        self.excused[end].entry(*stream).or_default().push((from, *to));
                        "skip"
                    }
                    Decision::Burn { .. } => "burn",
                    Decision::End { .. } => "end",
                };
                *self.entries.entry(kind).or_insert(0) += 1;
            }
            Record::Lost { stream, first, count, cause } => {
                self.excused[end].entry(*stream).or_default().push((*first, first + count));
                let kind = match cause {
                    LossCause::BlockLost => "block lost",
                    LossCause::Expired => "expired",
                    LossCause::Skipped => "skipped",
                };
                *self.losses.entry(kind).or_insert(0) += count;
                if *cause == LossCause::BlockLost {
                    for position in *first..first + count {
                        let octets = self.granted[end].get(&(*stream, position));
                        let real =
                            octets.is_some_and(|o| o.iter().any(|(block, _)| lost_here.contains_key(block)));
                        if !real {
                            return broken(
                                "loss",
                                format!(
                                    "end {end}, stream {stream}, position {position} is called lost, \
                                     but its blocks were not: {octets:?}"
                                ),
                            );
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
