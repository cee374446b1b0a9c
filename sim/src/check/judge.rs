//! Judges two histories, line by line.

use std::collections::HashMap;
use std::ops::Range;

use uuid::Uuid;

use super::course::{self, Course, Missing};
use super::inputs::CountedLosses;
use super::matching::{Compared, Matching};
use super::reuse::{self, Reuse, StreamNumber};
use super::verdict::{Findings, LEAST_COMPARED_PERCENT, Outcome, Row, Verdict};
use crate::history::record::{
    Chunk, Invariant, Line, Milliseconds, Run, STEP_DIGEST_BYTES, Unexplained, steps,
};
use crate::history::trace::{Piece, front};

/// Names of the two ends in words.
pub(super) const ENDS: [&str; 2] = ["A", "B"];
#[derive(Debug, Default)]
struct StreamRecord {
    courses: [Course; 2],
    matching: Matching,
    length: Option<u32>,
}

/// What is known of two histories so far.
#[derive(Default)]
pub(super) struct Judge {
    numbers: HashMap<Uuid, StreamNumber>,
    streams: Vec<(Uuid, StreamRecord)>,
    reuse: Reuse,
    findings: Findings,
    not_proven: Vec<String>,
    pub(super) notes: Vec<String>,
    ended: [bool; 2],
    /// What the modules have counted as lost.
    pub(super) counted: CountedLosses,
}

impl Judge {
    fn stream(&mut self, id: Uuid) -> (StreamNumber, &mut StreamRecord) {
        let next = self.streams.len();
        let number = *self.numbers.entry(id).or_insert(next);
        if number == next {
            self.streams.push((id, StreamRecord::default()));
        }
        #[expect(clippy::indexing_slicing, reason = "the number was given out when the stream was put there")]
        (number, &mut self.streams[number].1)
    }

    fn course(&mut self, end: usize, id: Uuid) -> &mut Course {
        let [a, b] = &mut self.stream(id).1.courses;
        if end == 0 { a } else { b }
    }

    /// Takes one line of one end. Says its time, if it has one.
    pub(super) fn line(&mut self, end: usize, line: &Line) -> Option<Milliseconds> {
        match line {
            Line::History(_) => None,
            Line::Open(open) => Some(open.answered),
            Line::GetKey(call) => {
                self.course(end, call.stream).get_key(call.clone());
                Some(call.answered)
            }
            Line::Close(call) => {
                self.course(end, call.stream).close(call);
                Some(call.answered)
            }
            Line::Chunk(chunk) => {
                self.chunk(end, chunk);
                Some(chunk.t)
            }
            Line::Run(run) => {
                self.run(end, run);
                Some(run.until)
            }
            Line::Duplicates(duplicates) => {
                self.course(end, duplicates.stream).duplicates += duplicates.count + duplicates.unchecked;
                if duplicates.unchecked > 0 {
                    self.notes.push(format!(
                        "{} chunks of stream {} came again at {} so late that they could not be compared",
                        duplicates.unchecked,
                        duplicates.stream,
                        name(end)
                    ));
                }
                Some(duplicates.t)
            }
            Line::Changed(changed) => {
                self.course(end, changed.stream).duplicates += 1;
                if changed.first != changed.sha256 {
                    let what = format!("a chunk came again at {} with other octets", name(end));
                    self.findings.add(Invariant::I3, Some(changed.stream), Some(changed.position), what);
                }
                Some(changed.t)
            }
            Line::Gap(gap) => Some(gap.t),
            Line::Notice(notice) => {
                self.course(end, notice.stream).notice(notice.clone());
                Some(notice.t)
            }
            Line::Unexplained(chunk) => {
                self.unexplained(end, chunk);
                None
            }
            Line::Violation(seen) => {
                // Found again below from the records themselves.
                if !matches!(seen.invariant, Invariant::I3 | Invariant::I5) {
                    let what = format!("{} itself saw: {}", name(end), seen.what);
                    self.findings.add(seen.invariant, seen.stream, seen.position, what);
                }
                Some(seen.t)
            }
            Line::Dropped { lines } => {
                self.not_proven
                    .push(format!("{lines} lines of history {} were lost to a slow disk", name(end)));
                None
            }
            Line::End { t } => {
                if let Some(ended) = self.ended.get_mut(end) {
                    *ended = true;
                }
                Some(*t)
            }
        }
    }

    fn chunk(&mut self, end: usize, chunk: &Chunk) {
        if !self.came(
            end,
            chunk.stream,
            chunk.position..chunk.position.saturating_add(1),
            [chunk.t; 2],
            chunk.length,
        ) {
            return;
        }
        if low_bits(chunk.position) != chunk.index {
            let what =
                format!("index {} at {} is not the low 32 bits of the position", chunk.index, name(end));
            self.findings.add(Invariant::Interface, Some(chunk.stream), Some(chunk.position), what);
        }
        let (number, stream) = self.stream(chunk.stream);
        let compared = stream.matching.chunk(end, chunk.position, chunk.sha256);
        self.told(chunk.stream, compared);
        let pieces: Vec<Piece> = chunk.origin.iter().map(|piece| Piece::from(*piece)).collect();
        if pieces.is_empty() {
            let before = self.reuse.take_digest(number, chunk.position, chunk.length, &chunk.sha256);
            if let Some((other, position)) = before {
                let what = format!("the same key as stream {}, position {position}", self.name_of(other));
                self.findings.add(Invariant::I2, Some(chunk.stream), Some(chunk.position), what);
            }
            return;
        }
        if reuse::fits(&pieces, chunk.length, &chunk.sha256) == Some(false) {
            let what =
                format!("the key at {} is not what its origin says: shifted, damaged or invented", name(end));
            self.findings.add(Invariant::I2, Some(chunk.stream), Some(chunk.position), what);
        }
        self.origin(chunk.stream, chunk.position, 1, chunk.length, &pieces);
    }

    fn run(&mut self, end: usize, run: &Run) {
        let past = run.first.saturating_add(run.count);
        let digests = base64_turbo::STANDARD.decode(&run.steps).unwrap_or_default();
        let (digests, rest) = digests.as_chunks::<STEP_DIGEST_BYTES>();
        // Counted by arithmetic first: the count is foreign.
        let wanted = past.div_ceil(crate::history::record::STEP_POSITIONS)
            - run.first / crate::history::record::STEP_POSITIONS;
        if run.count == 0 || !rest.is_empty() || u64::try_from(digests.len()) != Ok(wanted) {
            self.not_proven.push(format!("a run at {} has digests that do not fit its positions", name(end)));
            return;
        }
        if !self.came(end, run.stream, run.first..past, [run.t, run.until], run.length) {
            return;
        }
        let pieces: Vec<Piece> = run.origin.iter().map(|piece| Piece::from(*piece)).collect();
        for (step, digest) in steps(run.first, run.count).zip(digests) {
            let compared = self.stream(run.stream).1.matching.step(end, step.start, step.end, *digest);
            self.told(run.stream, compared);
        }
        let compared = self.stream(run.stream).1.matching.sample(end, run.first, run.sample);
        self.told(run.stream, compared.filter(|compared| !compared.same));
        if !pieces.is_empty() {
            if reuse::fits(&front(&pieces, run.length), run.length, &run.sample) == Some(false) {
                let what = format!(
                    "the key at {} is not what its origin says: shifted, damaged or invented",
                    name(end)
                );
                self.findings.add(Invariant::I2, Some(run.stream), Some(run.first), what);
            }
            self.origin(run.stream, run.first, run.count, run.length, &pieces);
        }
    }

    /// Takes note that positions came. False: they came out of order, and are judged no further.
    fn came(
        &mut self,
        end: usize,
        id: Uuid,
        positions: Range<u64>,
        t: [Milliseconds; 2],
        length: u32,
    ) -> bool {
        let first = positions.start;
        let (_, stream) = self.stream(id);
        let known = *stream.length.get_or_insert(length);
        let in_order = self.course(end, id).came(positions, t[0], t[1]);
        if known != length {
            let what =
                format!("a chunk of {length} octets at {} in a stream of chunks of {known}", name(end));
            self.findings.add(Invariant::Interface, Some(id), Some(first), what);
        }
        if !in_order {
            let what = format!("a chunk came at {} for the first time after a later one", name(end));
            self.findings.add(Invariant::I4, Some(id), Some(first), what);
        }
        in_order
    }

    fn told(&mut self, id: Uuid, compared: Option<Compared>) {
        let Some(Compared { from, to, same: false }) = compared else { return };
        let what = if to - from == 1 {
            "the two ends have other octets under the same index".to_owned()
        } else {
            format!("the two ends have other octets somewhere in the positions {from} to {}", to - 1)
        };
        self.findings.add(Invariant::I1, Some(id), Some(from), what);
    }

    fn origin(&mut self, id: Uuid, position: u64, count: u64, length: u32, pieces: &[Piece]) {
        let octets: u64 = pieces.iter().map(|piece| u64::from(piece.length())).sum();
        if Some(octets) != count.checked_mul(u64::from(length)) {
            let what = format!("{octets} octets of origin for {count} chunks of {length}");
            return self.findings.add(Invariant::I2, Some(id), Some(position), what);
        }
        let (number, _) = self.stream(id);
        let at = position.saturating_mul(u64::from(length));
        for conflict in self.reuse.take(number, at, pieces.iter().copied()) {
            let (other, other_at) = conflict.other;
            let what = format!(
                "key used twice: {:?} is also in stream {}, position {}",
                conflict.origin,
                self.name_of(other),
                other_at / u64::from(length.max(1))
            );
            self.findings.add(Invariant::I2, Some(id), Some(position), what);
        }
    }

    fn unexplained(&mut self, end: usize, chunk: &Unexplained) {
        let (number, _) = self.stream(chunk.stream);
        if !self.reuse.take_unexplained(number, chunk.position, chunk.length, chunk.sha256) {
            let what = format!("no test key at {}: invented or damaged", name(end));
            self.findings.add(Invariant::I2, Some(chunk.stream), Some(chunk.position), what);
        }
    }

    fn name_of(&self, number: StreamNumber) -> Uuid {
        self.streams.get(number).map_or(Uuid::nil(), |(id, _)| *id)
    }

    /// The verdict on all that was taken.
    pub(super) fn finish(mut self) -> Verdict {
        for (number, position) in self.reuse.inexplicable() {
            let what = "the key is no test key of the link's: invented or damaged".to_owned();
            self.findings.add(Invariant::I2, Some(self.name_of(number)), Some(position), what);
        }
        if self.reuse.not_remembered > 0 {
            self.notes
                .push(format!("{} chunks were not looked up for repetition", self.reuse.not_remembered));
        }
        for (ended, end) in self.ended.iter().zip(ENDS) {
            if !ended {
                self.notes.push(format!("history {end} has no last line: its KMS did not end in order"));
            }
        }
        let mut rows = Vec::new();
        for (id, stream) in std::mem::take(&mut self.streams) {
            self.consent(id, &stream.courses);
            self.gaps(id, &stream.courses);
            rows.push(row(id, &stream));
        }
        self.weigh(&rows);
        let (violations, findings) = self.findings.finish();
        let outcome = match (violations.is_empty(), self.not_proven.is_empty()) {
            (false, _) => Outcome::Violated,
            (true, false) => Outcome::NotProven,
            (true, true) => Outcome::Agree,
        };
        Verdict {
            outcome,
            not_proven: self.not_proven,
            violations,
            findings,
            streams: rows,
            origin_octets: self.reuse.named,
            unknown_octets: self.reuse.unknown,
            notes: self.notes,
        }
    }

    /// I5.
    fn consent(&mut self, id: Uuid, courses: &[Course; 2]) {
        for (course, end) in courses.iter().zip(ENDS) {
            if let Some((closed, last)) = course.after_close() {
                let what =
                    format!("a chunk came at {end} {} ms after its close had been answered", last - closed);
                self.findings.add(Invariant::I5, Some(id), None, what);
            }
            let Some(first) = course.first() else { continue };
            for (asking, asker) in courses.iter().zip(ENDS) {
                let what = match asking.asked() {
                    None => {
                        format!("key came at {end}, but KMS {asker} never sent a get-key that was accepted")
                    }
                    Some(asked) if first < asked => {
                        format!("key came at {end} {} ms before KMS {asker} sent get-key", asked - first)
                    }
                    Some(_) => continue,
                };
                self.findings.add(Invariant::I5, Some(id), None, what);
            }
        }
    }

    /// I4: each gap was told or wished.
    fn gaps(&mut self, id: Uuid, courses: &[Course; 2]) {
        let [a, b] = courses;
        let ends = [(a, b, ENDS[0]), (b, a, ENDS[1])];
        let CountedLosses { positions, more } = &mut self.counted;
        let counted = positions.entry(id).or_default();
        for ((own, other, end), more) in ends.into_iter().zip(more) {
            if own.overflowed {
                self.not_proven
                    .push(format!("stream {id} has too many gaps, notices or calls at {end} to judge"));
            }
            let excused = |missing: &Missing, counted: &mut Vec<Range<u64>>| {
                own.wished_past(missing)
                    || other.wished_past(missing)
                    || own.told_of(missing)
                    || course::covered(&missing.positions, counted)
            };
            for missing in own.missing.iter().cloned().chain(own.missing_before_first(other)) {
                if !excused(&missing, counted) {
                    let count = missing.positions.end - missing.positions.start;
                    if let Some(left) = more.get_mut(&id).filter(|left| **left >= count) {
                        *left -= count;
                        continue;
                    }
                    let what = format!("{count} chunks were passed over at {end} without a counted loss");
                    self.findings.add(Invariant::I4, Some(id), Some(missing.positions.start), what);
                }
            }
        }
    }

    /// Whether there is enough to judge.
    fn weigh(&mut self, rows: &[Row]) {
        let sum = |of: fn(&Row) -> u64| rows.iter().map(of).sum::<u64>();
        let (common, compared) = (sum(|row| row.common), sum(|row| row.compared));
        for (end, chunks) in ENDS.iter().zip([sum(|row| row.chunks[0]), sum(|row| row.chunks[1])]) {
            if chunks == 0 {
                self.not_proven.push(format!("no key came at {end}"));
            }
        }
        if common == 0 {
            self.not_proven.push("the two ends have no chunk in common".into());
        } else if compared.saturating_mul(100) < common.saturating_mul(LEAST_COMPARED_PERCENT) {
            self.not_proven.push(format!("only {compared} of {common} common chunks could be compared"));
        }
        for row in rows.iter().filter(|row| row.common == 0) {
            self.notes.push(format!("stream {} has nothing in common", row.stream));
        }
    }
}

fn row(id: Uuid, stream: &StreamRecord) -> Row {
    let [a, b] = &stream.courses;
    let missing = |course: &Course| {
        course.missing.iter().map(|missing| missing.positions.end - missing.positions.start).sum::<u64>()
    };
    Row {
        stream: id,
        chunks: [a.chunks, b.chunks],
        common: course::common(&a.had, &b.had),
        compared: stream.matching.compared,
        gaps: [a.missing.len() as u64, b.missing.len() as u64],
        missing: [missing(a), missing(b)],
        duplicates: [a.duplicates, b.duplicates],
    }
}

fn name(end: usize) -> &'static str {
    ENDS.get(end).copied().unwrap_or("?")
}

fn low_bits(position: u64) -> u32 {
    u32::try_from(position & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}
