//! I2: no octet of key under two positions, none shifted, none invented.

use std::collections::{BTreeMap, HashMap};

use qkd_contract::limits::BLOCK_BYTES_MAX;

use crate::history::digest::Digest;
use crate::history::position::{self, Origin};
use crate::history::trace::{INVENTED_BYTES, Piece};

/// Digests that are remembered for telling repeated key that is no test key.
const MOST_DIGESTS: usize = 8_000_000;
/// Chunks that wait for their place to be found.
const MOST_UNEXPLAINED: usize = 1_000_000;
/// First chunks of streams whose place is searched for in blocks that nothing is known of.
const MOST_FIRST_CHUNKS: usize = 16;
/// Octets of the largest chunk that is made up anew to be compared with its digest.
const LARGEST_REMADE: u32 = 16 << 20;
/// Chunks smaller than this repeat by chance.
const SMALLEST: u32 = 16;

/// A stream, by the order in which the judge met it.
pub(super) type StreamNumber = usize;

/// Octets of a block that were used in one go.
#[derive(Clone, Copy, Debug)]
struct Use {
    end: u32,
    stream: StreamNumber,
    /// Where in the stream's octets the first one lies.
    at: u64,
}

impl Use {
    /// Stream and place that block offset 0 would have; the same for all octets used in one go.
    fn line(&self, start: u32) -> (StreamNumber, i128) {
        (self.stream, i128::from(self.at) - i128::from(start))
    }
}

/// Two uses of the same octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// The first octet that both use.
    pub(super) origin: Origin,
    /// Stream of the earlier use, and where in its octets.
    pub(super) other: (StreamNumber, u64),
}

struct Unexplained {
    stream: StreamNumber,
    position: u64,
    length: u32,
    digest: Digest,
}

/// Everything that was used, over all streams of both histories.
#[derive(Default)]
pub(super) struct Reuse {
    blocks: BTreeMap<(u32, u64), BTreeMap<u32, Use>>,
    digests: HashMap<[u8; 16], (StreamNumber, u64)>,
    unexplained: Vec<Unexplained>,
    /// Octets whose origin is told, and octets where it is not.
    pub(super) named: u64,
    /// Octets of test key whose origin is not told.
    pub(super) unknown: u64,
    /// Digests that were not remembered, because there were too many.
    pub(super) not_remembered: u64,
}

impl Reuse {
    /// Takes the origin of octets of `stream` from `at` on.
    pub(super) fn take(
        &mut self,
        stream: StreamNumber,
        mut at: u64,
        pieces: impl Iterator<Item = Piece>,
    ) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Named { from, length } => {
                    self.named += u64::from(length);
                    conflicts.extend(self.take_piece(stream, at, from, length));
                }
                Piece::Unknown { length } => self.unknown += u64::from(length),
            }
            at = at.saturating_add(u64::from(piece.length()));
        }
        conflicts
    }

    fn take_piece(&mut self, stream: StreamNumber, at: u64, from: Origin, length: u32) -> Option<Conflict> {
        if length == 0 {
            return None;
        }
        let uses = self.blocks.entry((from.session, from.sequence)).or_default();
        let (mut start, mut new) = (from.offset, Use { end: from.offset.saturating_add(length), stream, at });
        // Neighbours that touch and lie on the same line are joined; others that overlap are conflicts.
        let before =
            uses.range(..start).next_back().filter(|(_, used)| used.end >= start).map(|(start, _)| *start);
        let touching: Vec<u32> =
            before.into_iter().chain(uses.range(start..=new.end).map(|(start, _)| *start)).collect();
        let mut conflict = None;
        for other_start in touching {
            let Some(other) = uses.get(&other_start).copied() else { continue };
            if other.line(other_start) == new.line(start) {
                uses.remove(&other_start);
                if other_start < start {
                    (start, new.at) = (other_start, other.at);
                }
                new.end = new.end.max(other.end);
            } else if other.end > from.offset && other_start < from.offset.saturating_add(length) {
                let first = other_start.max(from.offset);
                conflict.get_or_insert(Conflict {
                    origin: Origin { offset: first, ..from },
                    other: (other.stream, other.at + u64::from(first - other_start)),
                });
            }
        }
        if conflict.is_none() {
            uses.insert(start, new);
        }
        conflict
    }

    /// Takes the digest of a chunk of key that is no test key. Says where the same key was before.
    pub(super) fn take_digest(
        &mut self,
        stream: StreamNumber,
        position: u64,
        length: u32,
        digest: &Digest,
    ) -> Option<(StreamNumber, u64)> {
        if length < SMALLEST {
            return None;
        }
        let [half @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = digest.0;
        if let Some(&before) = self.digests.get(&half) {
            return (before != (stream, position)).then_some(before);
        }
        if self.digests.len() >= MOST_DIGESTS {
            self.not_remembered += 1;
        } else {
            self.digests.insert(half, (stream, position));
        }
        None
    }

    /// Takes a chunk whose place its KMS could not tell. False: it is too long for that, or there are too many.
    pub(super) fn take_unexplained(
        &mut self,
        stream: StreamNumber,
        position: u64,
        length: u32,
        digest: Digest,
    ) -> bool {
        if self.unexplained.len() >= MOST_UNEXPLAINED || length as usize > INVENTED_BYTES {
            return false;
        }
        self.unexplained.push(Unexplained { stream, position, length, digest });
        true
    }

    /// The chunks that are not the unused end of one block and the unused start of the next, so that nothing explains
    /// them: stream and position.
    pub(super) fn inexplicable(&self) -> Vec<(StreamNumber, u64)> {
        if self.unexplained.is_empty() {
            return Vec::new();
        }
        let mut lengths: Vec<u32> = self.unexplained.iter().map(|chunk| chunk.length).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let mut possible = std::collections::HashSet::new();
        let blocks = self.blocks.iter().zip(self.blocks.iter().skip(1));
        for ((end_name, end_uses), (start_name, start_uses)) in blocks {
            let used_to = end_uses.values().map(|used| used.end).max().unwrap_or(0);
            let used_from = start_uses.keys().next().copied().unwrap_or(0);
            for length in lengths.iter().copied().filter(|length| *length > used_from) {
                let mut key = vec![0; length as usize];
                let (end, start) = key.split_at_mut((length - used_from) as usize);
                position::fill(end_name.0, end_name.1, used_to, end);
                position::fill(start_name.0, start_name.1, 0, start);
                possible.insert(Digest::of(&key));
            }
        }
        let mut left: Vec<&Unexplained> =
            self.unexplained.iter().filter(|chunk| !possible.contains(&chunk.digest)).collect();
        if left.len() <= MOST_FIRST_CHUNKS {
            left.retain(|chunk| !self.begins_with_an_unknown_block(chunk));
        }
        left.into_iter().map(|chunk| (chunk.stream, chunk.position)).collect()
    }

    /// Whether the chunk is the end of a block of which nothing else is known, because it was burnt or used before these
    /// histories began, and the unused start of the next one.
    fn begins_with_an_unknown_block(&self, chunk: &Unexplained) -> bool {
        let starts = self.blocks.iter().filter_map(|(name, uses)| {
            let used_from = uses.keys().next().copied().unwrap_or(0);
            let before = (name.0, name.1.checked_sub(1)?);
            let fits = (1..chunk.length).contains(&used_from) && !self.blocks.contains_key(&before);
            fits.then_some((*name, before, used_from))
        });
        starts.take(MOST_FIRST_CHUNKS).any(|(name, before, used_from)| {
            let mut key = vec![0; chunk.length as usize];
            let (end, start) = key.split_at_mut((chunk.length - used_from) as usize);
            position::fill(name.0, name.1, 0, start);
            let mut end = end.to_vec();
            (0..BLOCK_BYTES_MAX).any(|from| {
                position::fill(before.0, before.1, from, &mut end);
                if let Some(place) = key.get_mut(..end.len()) {
                    place.copy_from_slice(&end);
                }
                Digest::of(&key) == chunk.digest
            })
        })
    }
}

/// True if a chunk made of `pieces` has this digest. `None`: not every octet's place is told.
pub(super) fn fits(pieces: &[Piece], length: u32, digest: &Digest) -> Option<bool> {
    if length > LARGEST_REMADE {
        return None;
    }
    let mut key = Vec::with_capacity(length as usize);
    for piece in pieces {
        let Piece::Named { from, length: octets } = *piece else { return None };
        let begin = key.len();
        let more = octets.min(length.saturating_sub(u32::try_from(begin).unwrap_or(u32::MAX)));
        key.resize(begin + more as usize, 0);
        position::fill(from.session, from.sequence, from.offset, key.get_mut(begin..)?);
    }
    (key.len() == length as usize).then(|| Digest::of(&key) == *digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(sequence: u64, offset: u32, length: u32) -> std::iter::Once<Piece> {
        std::iter::once(Piece::Named { from: Origin { session: 1, sequence, offset }, length })
    }

    #[test]
    fn any_overlap_of_two_uses_is_caught_and_the_same_use_at_both_ends_is_not() {
        for (offset, length) in [(0, 32), (31, 1), (16, 64), (63, 1), (32, 32), (0, 200)] {
            let mut reuse = Reuse::default();
            assert!(reuse.take(0, 1000, piece(5, 32, 32)).is_empty());
            assert!(reuse.take(0, 1000, piece(5, 32, 32)).is_empty(), "the other end");
            let overlaps = offset < 64 && offset + length > 32;
            for (stream, at) in [(1, 968 + u64::from(offset)), (0, 969 + u64::from(offset)), (0, 0)] {
                assert_eq!(
                    reuse.take(stream, at, piece(5, offset, length)).len(),
                    usize::from(overlaps),
                    "{offset}"
                );
                reuse = Reuse::default();
                reuse.take(0, 1000, piece(5, 32, 32));
            }
            assert!(reuse.take(0, 968 + u64::from(offset), piece(5, offset, length)).is_empty(), "same line");
        }
    }

    #[test]
    fn uses_that_follow_each_other_take_no_memory() {
        let mut reuse = Reuse::default();
        for i in 0..10_000 {
            assert!(reuse.take(0, u64::from(i) * 32, piece(5, i * 32, 32)).is_empty());
        }
        assert_eq!(reuse.blocks.values().map(BTreeMap::len).sum::<usize>(), 1);
    }

    #[test]
    fn an_origin_that_does_not_fit_the_digest_is_caught() {
        let mut key = [0; 40];
        position::fill(1, 5, 100, &mut key[..30]);
        position::fill(1, 6, 0, &mut key[30..]);
        let pieces: Vec<_> = piece(5, 100, 30).chain(piece(6, 0, 10)).collect();
        assert_eq!(fits(&pieces, 40, &Digest::of(&key)), Some(true));
        key[35] ^= 1;
        assert_eq!(fits(&pieces, 40, &Digest::of(&key)), Some(false));
        assert_eq!(fits(&pieces[..1], 40, &Digest::of(&key)), None);
        let huge: Vec<_> = piece(5, 0, u32::MAX).collect();
        assert!(
            fits(&huge, 40, &Digest::of(&key)).is_some(),
            "a length out of a file decides how much memory is taken"
        );
    }

    #[test]
    fn only_the_end_of_one_block_and_the_start_of_the_next_explain_a_chunk() {
        let mut reuse = Reuse::default();
        reuse.take(0, 0, piece(5, 0, 1000));
        reuse.take(0, 5000, piece(6, 12, 500));
        let mut key = [0; 32];
        position::fill(1, 5, 1000, &mut key[..20]);
        position::fill(1, 6, 0, &mut key[20..]);
        assert!(reuse.take_unexplained(1, 7, 32, Digest::of(&key)));
        assert!(reuse.inexplicable().is_empty());
        assert!(reuse.take_unexplained(1, 8, 32, Digest::of(b"invented")));
        assert_eq!(reuse.inexplicable(), [(1, 8)]);
    }

    #[test]
    fn a_first_chunk_that_begins_in_a_block_used_before_is_explained_and_an_invented_one_is_not() {
        let mut reuse = Reuse::default();
        reuse.take(0, 32, piece(6, 15, 500));
        let mut key = [0; 32];
        position::fill(1, 5, 40_003, &mut key[..17]);
        position::fill(1, 6, 0, &mut key[17..]);
        assert!(reuse.take_unexplained(0, 0, 32, Digest::of(&key)));
        assert!(reuse.inexplicable().is_empty());
        key[3] ^= 1;
        assert!(reuse.take_unexplained(1, 0, 32, Digest::of(&key)));
        assert_eq!(reuse.inexplicable(), [(1, 0)]);
    }
}
