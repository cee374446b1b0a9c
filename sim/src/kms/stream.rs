//! What one key stream has received, and whether it may be so.

use std::collections::VecDeque;
use std::time::Instant;

use base64_turbo::STANDARD;
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

use super::body::KeyMaterial;
use super::journal::Journal;
use super::samples::Samples;
use crate::history::digest::Digest;
use crate::history::record::{
    Changed, Chunk, Duplicates, Gap, Invariant, Line, Milliseconds, Notice, RecordedKey, STEP_POSITIONS,
    Unexplained,
};
use crate::history::run::RunBuilder;
use crate::history::trace::{Findings, INVENTED_BYTES, TELLING_BYTES, Tracer};

/// Octets after which a stream without test key is taken for real key, when the kind of key is not given.
const UNDECIDED_BYTES: u64 = 256;

/// What the KMS expects of the octets of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyKind {
    /// Find out from the first octets of each stream.
    Auto,
    /// The simulator's positional test key: every octet is checked.
    Positional,
    /// Real key, or the simulator's random one: only repetition can be seen.
    Random,
}

/// How closely a KMS looks at its streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) kind: KeyKind,
    /// Chunks per second above which a stream is recorded in runs.
    pub(super) sample_above: u64,
    /// Chunks whose digest is remembered, for telling a repeated one from a changed one. More than any window in flight.
    pub(super) remembered: usize,
}

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Take it.
    Accept,
    /// 400 with this detail: it is not what the interface says.
    Refuse(String),
}

/// Counts of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Chunks that came, each counted once.
    pub(super) chunks: u64,
    /// Their octets.
    pub(super) octets: u64,
    /// Requests with a chunk that had come before.
    pub(super) duplicates: u64,
    /// Gaps, and positions missing in them.
    pub(super) gaps: u64,
    /// Positions missing in the gaps.
    pub(super) missing: u64,
    /// Chunks that came and were refused, and have not come again.
    pub(super) refused: u64,
    /// Notices.
    pub(super) notices: u64,
}

struct Seen {
    position: u64,
    digest: Digest,
    accepted: bool,
}

pub(super) struct Stream {
    id: Uuid,
    chunk_size: u32,
    kind: KeyKind,
    asked: bool,
    closed: bool,
    next: Option<u64>,
    seen: VecDeque<Seen>,
    tracer: Tracer,
    run: Option<RunBuilder>,
    key: Zeroizing<Vec<u8>>,
    second: Milliseconds,
    in_second: u64,
    fast: bool,
    sample_above: u64,
    remembered: usize,
    unwritten: Duplicates,
    pub(super) counts: Counts,
    pub(super) samples: Samples,
    pub(super) last: Option<Instant>,
}

impl Stream {
    pub(super) fn new(id: Uuid, chunk_size: u32, watch: Watch) -> Self {
        let Watch { kind, sample_above, remembered } = watch;
        Self {
            id,
            chunk_size,
            kind,
            asked: false,
            closed: false,
            next: None,
            seen: VecDeque::new(),
            tracer: Tracer::default(),
            run: None,
            key: Zeroizing::new(Vec::new()),
            second: 0,
            in_second: 0,
            fast: false,
            sample_above,
            remembered,
            unwritten: Duplicates { t: 0, stream: id, count: 0, unchecked: 0 },
            counts: Counts::default(),
            samples: Samples::default(),
            last: None,
        }
    }

    /// The KMS is about to send get-key.
    pub(super) fn asked(&mut self) {
        self.asked = true;
    }

    /// Close has been answered.
    pub(super) fn closed(&mut self) {
        self.closed = true;
    }

    /// Position that should come next.
    pub(super) fn next(&self) -> u64 {
        self.next.unwrap_or(0)
    }

    /// Judges and records one request that is answered with `answer`, an HTTP status.
    pub(super) fn take(
        &mut self,
        material: &KeyMaterial<'_>,
        answer: u16,
        t: Milliseconds,
        journal: &Journal,
    ) -> Verdict {
        let position = unwrap_index(material.index, self.next());
        if material.status != 0 || material.key.is_empty() {
            return self.notice(material, position, t, journal);
        }
        let mut key = std::mem::take(&mut self.key);
        let verdict = match self.decode(material, &mut key) {
            Ok(()) => self.chunk(&key, material.index, position, answer, t, journal),
            Err(why) => {
                journal.violation(t, Some(self.id), Some(position), Invariant::Interface, why.clone());
                Verdict::Refuse(why)
            }
        };
        key.zeroize();
        self.key = key;
        verdict
    }

    fn decode(&self, material: &KeyMaterial<'_>, key: &mut Vec<u8>) -> Result<(), String> {
        let text = &material.key;
        // Whatever the KMS takes as a body it has room for.
        key.resize(STANDARD.decoded_len_estimate(text.len()), 0);
        let length = STANDARD.decode_slice(text, key).map_err(|_| "key_buffer is not base64".to_owned())?;
        key.truncate(length);
        if u32::try_from(length) != Ok(self.chunk_size) {
            return Err(format!("key_buffer has {length} octets; key_chunk_size is {}", self.chunk_size));
        }
        Ok(())
    }

    fn notice(
        &mut self,
        material: &KeyMaterial<'_>,
        position: u64,
        t: Milliseconds,
        journal: &Journal,
    ) -> Verdict {
        if material.status == 0 || !material.key.is_empty() {
            let what = "key-material must have key with status 0, and none with any other".to_owned();
            journal.violation(t, Some(self.id), Some(position), Invariant::Interface, what.clone());
            return Verdict::Refuse(what);
        }
        self.counts.notices += 1;
        journal.record(&Line::Notice(Notice {
            t,
            stream: self.id,
            status: material.status,
            index: material.index,
            position,
        }));
        Verdict::Accept
    }

    fn chunk(
        &mut self,
        key: &[u8],
        index: u32,
        position: u64,
        answer: u16,
        t: Milliseconds,
        journal: &Journal,
    ) -> Verdict {
        let digest = Digest::of(key);
        let accepted = (200..300).contains(&answer);
        if let Some(next) = self.next
            && position < next
        {
            return self.again(position, digest, accepted, t, journal);
        }
        if !self.asked || self.closed {
            let when = if self.closed { "after close was answered" } else { "before get-key was sent" };
            journal.violation(
                t,
                Some(self.id),
                Some(position),
                Invariant::I5,
                format!("a chunk came {when}"),
            );
        }
        if let Some(from) = self.next
            && position > from
        {
            self.flush(journal);
            self.tracer.lost();
            self.counts.gaps += 1;
            self.counts.missing += position - from;
            journal.record(&Line::Gap(Gap { t, stream: self.id, from, to: position }));
        }
        self.next = position.checked_add(1);
        self.counts.chunks += 1;
        self.counts.octets += u64::from(self.chunk_size);
        self.counts.refused += u64::from(!accepted);
        self.last = Some(Instant::now());
        self.samples.take(position, &digest);
        if self.seen.len() >= self.remembered {
            self.seen.pop_front();
        }
        self.seen.push_back(Seen { position, digest, accepted });
        self.paced(t);

        if self.fast && self.run.is_none() && position.is_multiple_of(STEP_POSITIONS) {
            self.run = Some(RunBuilder::new(t, position, digest));
        }
        let mut own = Vec::new();
        let pieces = self.run.as_mut().map_or(&mut own, |run| &mut run.pieces);
        if self.kind != KeyKind::Random {
            let findings = self.tracer.follow(key, pieces);
            self.judge_origin(findings, position, digest, t, journal);
        }
        if !self.traced() {
            own.clear();
            journal.watch_repetition(key, &digest, self.id, position, t);
        }
        if let Some(run) = &mut self.run {
            let full = run.push(t, digest);
            if full || (!self.fast && run.next().is_multiple_of(STEP_POSITIONS)) {
                self.flush(journal);
            }
            return Verdict::Accept;
        }
        let key = journal.records_keys().then(|| RecordedKey(STANDARD.encode(key)));
        journal.record(&Line::Chunk(Chunk {
            t,
            stream: self.id,
            index,
            position,
            length: self.chunk_size,
            sha256: digest,
            answer,
            origin: own.into_iter().map(Into::into).collect(),
            key,
        }));
        Verdict::Accept
    }

    /// True if every octet of this stream should name its place.
    fn traced(&self) -> bool {
        self.kind == KeyKind::Positional || (self.kind == KeyKind::Auto && self.tracer.positional())
    }

    /// A chunk at a position that has been passed.
    fn again(
        &mut self,
        position: u64,
        digest: Digest,
        accepted: bool,
        t: Milliseconds,
        journal: &Journal,
    ) -> Verdict {
        self.counts.duplicates += 1;
        self.unwritten.t = t;
        match self.seen.binary_search_by_key(&position, |seen| seen.position) {
            Ok(at) => {
                let Some(seen) = self.seen.get_mut(at) else { return Verdict::Accept };
                if accepted && !seen.accepted {
                    seen.accepted = true;
                    self.counts.refused -= 1;
                }
                if seen.digest == digest {
                    self.unwritten.count += 1;
                } else {
                    let first = seen.digest;
                    journal.record(&Line::Changed(Changed {
                        t,
                        stream: self.id,
                        position,
                        first,
                        sha256: digest,
                    }));
                    let what = "a chunk came again with other octets".to_owned();
                    journal.violation(t, Some(self.id), Some(position), Invariant::I3, what.clone());
                    return Verdict::Refuse(what);
                }
            }
            Err(0) => self.unwritten.unchecked += 1,
            Err(_) => {
                let what = "a chunk came for the first time after a later one".to_owned();
                journal.violation(t, Some(self.id), Some(position), Invariant::I4, what);
            }
        }
        Verdict::Accept
    }

    fn judge_origin(
        &mut self,
        found: Findings,
        position: u64,
        digest: Digest,
        t: Milliseconds,
        journal: &Journal,
    ) {
        if !self.traced() {
            if self.counts.octets >= UNDECIDED_BYTES {
                self.kind = KeyKind::Random;
            }
            return;
        }
        if let Some((had, got)) = found.went_back {
            let what = format!("key goes back: {got:?} after {had:?}");
            journal.violation(t, Some(self.id), Some(position), Invariant::I2, what);
        }
        if let Some(from) = found.damaged_before {
            let what = format!("octets just before {from:?} are damaged");
            journal.violation(t, Some(self.id), Some(position), Invariant::I2, what);
        }
        let unknown = found.longest_unknown as usize;
        if unknown >= INVENTED_BYTES {
            let what = format!("{unknown} octets in a row are not the link's test key: invented or damaged");
            journal.violation(t, Some(self.id), Some(position), Invariant::I2, what);
        } else if unknown >= TELLING_BYTES {
            let (stream, length) = (self.id, self.chunk_size);
            journal.record(&Line::Unexplained(Unexplained { stream, position, length, sha256: digest }));
        }
    }

    /// Counts the pace of the stream, which decides whether it is recorded in runs.
    fn paced(&mut self, t: Milliseconds) {
        let second = t / 1000;
        if second != self.second {
            self.fast = second == self.second + 1 && self.in_second > self.sample_above;
            (self.second, self.in_second) = (second, 0);
        }
        self.in_second += 1;
        self.fast |= self.in_second > self.sample_above;
    }

    /// Writes what is gathered and not yet written.
    pub(super) fn flush(&mut self, journal: &Journal) {
        if let Some(run) = self.run.take() {
            journal.record(&Line::Run(run.finish(self.id, self.chunk_size)));
        }
        self.write_duplicates(journal);
    }

    /// Writes how many chunks came again since this was last written.
    pub(super) fn write_duplicates(&mut self, journal: &Journal) {
        if self.unwritten.count + self.unwritten.unchecked > 0 {
            journal.record(&Line::Duplicates(self.unwritten.clone()));
            (self.unwritten.count, self.unwritten.unchecked) = (0, 0);
        }
    }
}

/// The position with these low 32 bits that is nearest to `expected`, and not below 0.
fn unwrap_index(index: u32, expected: u64) -> u64 {
    const HALF: u32 = 1 << 31;
    #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are what is meant")]
    let ahead = index.wrapping_sub(expected as u32);
    if ahead < HALF {
        return expected.saturating_add(u64::from(ahead));
    }
    let behind = u64::from(ahead.wrapping_neg());
    expected.checked_sub(behind).unwrap_or_else(|| expected.saturating_add(u64::from(ahead)))
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
