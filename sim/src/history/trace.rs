//! Tells where the octets of a key stream came from, when the key is the positional test key.

use zeroize::Zeroizing;

use super::position::{self, CELL_BYTES, Origin};

/// A run of this many octets out of one block holds a whole cell, whatever its start.
pub const TELLING_BYTES: usize = 2 * CELL_BYTES - 1;
/// A run this long that shows no whole cell cannot be made of the end of one block and the start of another.
pub const INVENTED_BYTES: usize = 2 * TELLING_BYTES - 1;
/// Blocks that are tried as the next one, when too little of it is there to hold a cell.
const NEXT_BLOCKS_TRIED: u64 = 16;
/// Octets that the start of a block must show to be taken for one without a whole cell: session, sequence and number.
const NAME_BYTES: usize = 12;
/// Octets of a cell's checksum that must agree to tell a place; the others are alike in many cells of a block.
const TELLING_CHECK_BYTES: usize = 3;

/// One piece of a chunk, in the order of its octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Octets that name their place.
    Named {
        /// Place of the first.
        from: Origin,
        /// How many.
        length: u32,
    },
    /// So many octets whose place cannot be told: fewer than a cell, or no test key at all.
    Unknown {
        /// How many.
        length: u32,
    },
}

impl Piece {
    /// Octets of this piece.
    #[must_use]
    pub const fn length(&self) -> u32 {
        match self {
            Self::Named { length, .. } | Self::Unknown { length } => *length,
        }
    }
}

/// The pieces of the first `octets` octets.
#[must_use]
pub fn front(pieces: &[Piece], mut octets: u32) -> Vec<Piece> {
    let mut front = Vec::new();
    for piece in pieces {
        let length = piece.length().min(octets);
        octets -= length;
        front.push(match *piece {
            Piece::Named { from, .. } => Piece::Named { from, length },
            Piece::Unknown { .. } => Piece::Unknown { length },
        });
        if octets == 0 {
            break;
        }
    }
    front
}

/// Appends `piece`, joined with the last one where it goes on from there.
pub fn join(pieces: &mut Vec<Piece>, piece: Piece) {
    match (pieces.last_mut(), piece) {
        (_, piece) if piece.length() == 0 => {}
        (Some(Piece::Named { from, length }), Piece::Named { from: next, length: more })
            if from.advanced(*length) == next =>
        {
            *length = length.saturating_add(more);
        }
        (Some(Piece::Unknown { length }), Piece::Unknown { length: more }) => {
            *length = length.saturating_add(more);
        }
        (_, piece) => pieces.push(piece),
    }
}

/// Drops the last `octets` octets of `pieces`.
fn drop_last(pieces: &mut Vec<Piece>, mut octets: u32) {
    while octets > 0 {
        let Some(last) = pieces.last_mut() else { return };
        let cut = octets.min(last.length());
        octets -= cut;
        match last {
            Piece::Named { length, .. } | Piece::Unknown { length } => *length -= cut,
        }
        if last.length() == 0 {
            pieces.pop();
        }
    }
}

/// What a chunk was made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Octets in the longest run whose place cannot be told.
    pub longest_unknown: u32,
    /// A piece lies before one that this stream has had already: the place had, and the place found.
    pub went_back: Option<(Origin, Origin)>,
    /// Octets whose place cannot be told stand where the segment around them goes on here: they were damaged.
    pub damaged_before: Option<Origin>,
}

/// Follows one key stream. Chunks must come in the order of their positions; after a gap call [`Tracer::lost`].
#[derive(Default)]
pub struct Tracer {
    /// Where the next octet should come from.
    next: Option<Origin>,
    /// While octets are unknown: where the next one would come from, if the segment before them had gone on.
    hole: Option<Origin>,
    /// One past the last octet that was named, for telling key that goes back.
    latest: Option<Origin>,
    /// The last octets before the next chunk whose place is unknown, for chunks smaller than a cell.
    carried: Zeroizing<Vec<u8>>,
    /// A whole cell has been seen.
    positional: bool,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Tracer {
    /// True once a whole cell of test key has been seen in this stream.
    #[must_use]
    pub fn positional(&self) -> bool {
        self.positional
    }

    /// Forgets what should come next, because some positions of the stream are missing.
    pub fn lost(&mut self) {
        self.next = None;
        self.hole = None;
        self.carried.clear();
    }

    /// Appends what `chunk` is made of to `pieces` (joined with what is there) and says what is odd about it.
    pub fn follow(&mut self, chunk: &[u8], pieces: &mut Vec<Piece>) -> Findings {
        let mut findings = Findings::default();
        let mut done = 0;
        let mut found_here = false;
        while done < chunk.len() {
            if let Some(next) = self.next.take() {
                let rest = chunk.get(done..).unwrap_or_default();
                let matched = position::matching(next, rest);
                let told = found_here || telling(next, matched);
                let all = matched == rest.len();
                if told {
                    self.named(next, matched, pieces, &mut findings);
                } else if all {
                    join(pieces, Piece::Unknown { length: to_u32(matched) });
                }
                if told || all {
                    done += matched;
                    self.hole = Some(next.advanced(to_u32(matched)));
                } else {
                    // Another place may begin like this one, so this chunk is looked at anew.
                    self.hole = Some(next);
                }
                if all {
                    self.next = self.hole.take();
                    break;
                }
            }
            done = self.find_next(chunk, done, pieces, &mut findings);
            found_here = true;
        }
        self.carry(chunk);
        findings
    }

    /// Finds the segment that begins about `done` octets into the chunk. Says how much of the chunk is settled.
    fn find_next(
        &mut self,
        chunk: &[u8],
        done: usize,
        pieces: &mut Vec<Piece>,
        findings: &mut Findings,
    ) -> usize {
        let Some((at, origin)) = self.anchor(chunk, done) else {
            let Some((begin, start)) = self.next_block(chunk, done) else {
                self.unknown(chunk.len() - done, pieces, findings);
                return chunk.len();
            };
            self.take_back(done.saturating_sub(begin), pieces);
            self.unknown(begin.saturating_sub(done), pieces, findings);
            self.next = Some(start);
            return begin;
        };
        self.positional = true;
        let before = position::matching_before(origin, chunk.get(..at).unwrap_or_default());
        let begin = at - before;
        let start = Origin { offset: origin.offset - to_u32(before), ..origin };
        self.take_back(done.saturating_sub(begin), pieces);
        // Segments begin where a chunk or a block begins: what agreed with the old one there did so by chance. Elsewhere
        // octets at the border may agree with either by chance, so only whole cells are taken.
        let from = if begin == 0 || start.offset == 0 {
            begin
        } else {
            let from = begin.max(done);
            let into_cell = (start.offset as usize + from - begin) % CELL_BYTES;
            from + (CELL_BYTES - into_cell) % CELL_BYTES
        };
        self.unknown(from - begin.min(done), pieces, findings);
        self.next = Some(start.advanced(to_u32(from - begin)));
        from
    }

    /// Gives up the last `octets` that were taken for the old segment.
    fn take_back(&mut self, octets: usize, pieces: &mut Vec<Piece>) {
        drop_last(pieces, to_u32(octets));
        for place in [&mut self.latest, &mut self.hole].into_iter().flatten() {
            place.offset = place.offset.saturating_sub(to_u32(octets));
        }
    }

    /// The first whole cell of a segment that begins about `done` octets into the chunk, and its place.
    fn anchor(&self, chunk: &[u8], done: usize) -> Option<(usize, Origin)> {
        if done == 0
            && let Some(found) = self.anchor_over_border(chunk)
        {
            return Some(found);
        }
        // Less than a cell may have matched the old segment by chance, so the search starts that much earlier.
        (done.saturating_sub(CELL_BYTES - 1)..chunk.len())
            .find_map(|at| position::decode(chunk.get(at..)?).map(|origin| (at, origin)))
    }

    /// A cell that begins in the octets carried over from the chunk before, as the place of this chunk's first octet.
    fn anchor_over_border(&self, chunk: &[u8]) -> Option<(usize, Origin)> {
        let mut joined = Zeroizing::new(Vec::with_capacity(self.carried.len() + CELL_BYTES));
        joined.extend_from_slice(&self.carried);
        joined.extend_from_slice(chunk.get(..CELL_BYTES.min(chunk.len()))?);
        // Only cells that reach into this chunk: progress is made with each one found.
        (self.carried.len().saturating_sub(CELL_BYTES - 1)..self.carried.len()).find_map(|at| {
            let origin = position::decode(joined.get(at..)?)?;
            Some((0, origin.advanced(to_u32(self.carried.len() - at))))
        })
    }

    /// The start of one of the next blocks of the session, where what is left of the chunk fits it to the end.
    fn next_block(&self, chunk: &[u8], done: usize) -> Option<(usize, Origin)> {
        let latest = self.latest?;
        (done.saturating_sub(CELL_BYTES - 1)..chunk.len()).find_map(|begin| {
            let rest = chunk.get(begin..).filter(|rest| rest.len() >= NAME_BYTES)?;
            (1..=NEXT_BLOCKS_TRIED).find_map(|ahead| {
                let sequence = (latest.sequence + ahead) & position::SEQUENCE_MASK;
                let origin = Origin { session: latest.session, sequence, offset: 0 };
                (position::matching(origin, rest) == rest.len()).then_some((begin, origin))
            })
        })
    }

    /// Takes `length` octets from `from` on as told.
    fn named(&mut self, from: Origin, length: usize, pieces: &mut Vec<Piece>, findings: &mut Findings) {
        if length == 0 {
            return;
        }
        if let Some(latest) = self.latest
            && from < latest
        {
            findings.went_back.get_or_insert((latest, from));
        }
        if self.hole.take() == Some(from) {
            findings.damaged_before = Some(from);
        }
        self.latest = Some(from.advanced(to_u32(length)));
        self.carried.clear();
        join(pieces, Piece::Named { from, length: to_u32(length) });
    }

    /// Takes `length` octets as untold.
    fn unknown(&mut self, length: usize, pieces: &mut Vec<Piece>, findings: &mut Findings) {
        let length = to_u32(length);
        self.hole = self.hole.map(|hole| hole.advanced(length));
        findings.longest_unknown = findings.longest_unknown.max(length);
        join(pieces, Piece::Unknown { length });
    }

    /// Keeps the last octets of `chunk` while their place is unknown.
    fn carry(&mut self, chunk: &[u8]) {
        if self.next.is_some() {
            return;
        }
        // Wiped by hand where the vector would only be shifted.
        let mut all = Zeroizing::new(Vec::with_capacity(self.carried.len() + TELLING_BYTES));
        all.extend_from_slice(&self.carried);
        all.extend_from_slice(chunk.get(chunk.len().saturating_sub(TELLING_BYTES)..).unwrap_or_default());
        let keep = all.len().saturating_sub(TELLING_BYTES);
        self.carried = Zeroizing::new(all.get(keep..).unwrap_or_default().to_vec());
    }
}

/// True if `length` octets that are the test key of `from` on can hardly be that of another place.
fn telling(from: Origin, length: usize) -> bool {
    let offset = from.offset as usize % CELL_BYTES;
    let checks = (offset..offset + length.min(CELL_BYTES)).filter(|at| at % CELL_BYTES >= 12);
    checks.count() >= TELLING_CHECK_BYTES
}

/// Chunks are far below 4 GiB: their length is a u32 on the wire.
fn to_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
