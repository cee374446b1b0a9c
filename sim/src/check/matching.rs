//! I1: compares what two ends received on one stream, whichever way each end recorded it.

use std::collections::BTreeMap;

use crate::history::digest::Digest;
use crate::history::record::STEP_DIGEST_BYTES;
use crate::history::run::step_digest;

/// Digest of a step as a run records it.
pub(super) type StepDigest = [u8; STEP_DIGEST_BYTES];

/// Waiting records per stream beyond which those that nothing can match any more are dropped.
const SWEEP_AFTER: usize = 4096;

/// What one end has recorded and the other has not yet.
#[derive(Debug, Default)]
struct Waiting {
    chunks: BTreeMap<u64, Digest>,
    /// By first position: one past the last, and the digest.
    steps: BTreeMap<u64, (u64, StepDigest)>,
    samples: BTreeMap<u64, Digest>,
    /// One past the last position.
    next: u64,
}

impl Waiting {
    fn len(&self) -> usize {
        self.chunks.len() + self.steps.len() + self.samples.len()
    }

    /// Digest of the step, if every chunk of it is waiting.
    fn step(&self, from: u64, to: u64) -> Option<StepDigest> {
        let chunks = self.chunks.range(from..to);
        (u64::try_from(chunks.clone().count()) == Ok(to - from))
            .then(|| step_digest(chunks.map(|(_, digest)| digest)))
    }

    /// The step that holds `position`.
    fn step_around(&self, position: u64) -> Option<(u64, u64, StepDigest)> {
        let (&from, &(to, digest)) = self.steps.range(..=position).next_back()?;
        (position < to).then_some((from, to, digest))
    }

    fn forget_chunks(&mut self, from: u64, to: u64) {
        let after = self.chunks.split_off(&from);
        self.chunks.extend(after.into_iter().skip_while(|(position, _)| *position < to));
    }
}

/// What came of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compared {
    /// First position.
    pub(super) from: u64,
    /// One past the last.
    pub(super) to: u64,
    /// The octets are the same.
    pub(super) same: bool,
}

/// The comparison of one stream.
#[derive(Debug, Default)]
pub(super) struct Matching {
    ends: [Waiting; 2],
    /// Positions compared.
    pub(super) compared: u64,
    largest: usize,
}

impl Matching {
    /// One chunk at `end` (0 or 1). Says what could be compared by it.
    pub(super) fn chunk(&mut self, end: usize, position: u64, digest: Digest) -> Option<Compared> {
        self.tidy();
        let (own, other) = self.sides(end);
        own.next = own.next.max(position.saturating_add(1));
        if let Some(theirs) = other.chunks.remove(&position) {
            return Some(self.told(position, position.saturating_add(1), theirs == digest));
        }
        own.chunks.insert(position, digest);
        let (from, to, theirs) = other.step_around(position)?;
        let ours = own.step(from, to)?;
        other.steps.remove(&from);
        own.forget_chunks(from, to);
        Some(self.told(from, to, ours == theirs))
    }

    /// One step of a run at `end`.
    pub(super) fn step(&mut self, end: usize, from: u64, to: u64, digest: StepDigest) -> Option<Compared> {
        self.tidy();
        let (own, other) = self.sides(end);
        own.next = own.next.max(to);
        let theirs = match other.steps.get(&from) {
            Some(&(their_to, theirs)) if their_to == to => {
                other.steps.remove(&from);
                Some(theirs)
            }
            _ => {
                let theirs = other.step(from, to);
                if theirs.is_some() {
                    other.forget_chunks(from, to);
                }
                theirs
            }
        };
        if let Some(theirs) = theirs {
            return Some(self.told(from, to, theirs == digest));
        }
        own.steps.insert(from, (to, digest));
        None
    }

    /// The digest of one chunk within a run at `end`: compared too, where the other end has that one.
    pub(super) fn sample(&mut self, end: usize, position: u64, digest: Digest) -> Option<Compared> {
        let (own, other) = self.sides(end);
        let theirs = other.samples.remove(&position).or_else(|| other.chunks.get(&position).copied());
        if let Some(theirs) = theirs {
            // Not counted: the step that it belongs to is.
            return Some(Compared { from: position, to: position.saturating_add(1), same: theirs == digest });
        }
        own.samples.insert(position, digest);
        None
    }

    fn sides(&mut self, end: usize) -> (&mut Waiting, &mut Waiting) {
        let [a, b] = &mut self.ends;
        if end == 0 { (a, b) } else { (b, a) }
    }

    fn told(&mut self, from: u64, to: u64, same: bool) -> Compared {
        self.compared += to - from;
        Compared { from, to, same }
    }

    /// Drops what nothing can match any more: both ends are past it. Positions rise at each end.
    fn tidy(&mut self) {
        if self.ends.iter().map(Waiting::len).sum::<usize>() < SWEEP_AFTER.max(2 * self.largest) {
            return;
        }
        let [a, b] = &mut self.ends;
        let both = a.next.min(b.next);
        for end in [&mut *a, &mut *b] {
            end.steps.retain(|_, (to, _)| *to > both);
            end.samples = end.samples.split_off(&both);
        }
        let kept =
            |steps: &BTreeMap<u64, (u64, StepDigest)>| steps.keys().next().copied().unwrap_or(both).min(both);
        let (from_a, from_b) = (kept(&b.steps), kept(&a.steps));
        a.chunks = a.chunks.split_off(&from_a);
        b.chunks = b.chunks.split_off(&from_b);
        self.largest = a.len() + b.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(position: u64) -> Digest {
        Digest::of(&position.to_le_bytes())
    }

    fn step(from: u64, to: u64) -> StepDigest {
        let digests: Vec<_> = (from..to).map(digest).collect();
        step_digest(digests.iter())
    }

    #[test]
    fn steps_and_chunks_are_compared_whichever_comes_first() {
        let mut matching = Matching::default();
        assert_eq!(matching.step(0, 0, 64, step(0, 64)), None);
        let told: Vec<_> =
            (0..64).filter_map(|position| matching.chunk(1, position, digest(position))).collect();
        assert_eq!(told, [Compared { from: 0, to: 64, same: true }]);
        (64..128).for_each(|position| assert_eq!(matching.chunk(1, position, digest(position)), None));
        assert_eq!(
            matching.step(0, 64, 128, step(64, 128)),
            Some(Compared { from: 64, to: 128, same: true })
        );
        assert_eq!(matching.step(0, 128, 192, step(128, 192)), None);
        assert_eq!(
            matching.step(1, 128, 192, step(0, 64)),
            Some(Compared { from: 128, to: 192, same: false })
        );
        assert_eq!(matching.compared, 192);
        assert_eq!(matching.ends.iter().map(Waiting::len).sum::<usize>(), 0);
    }

    #[test]
    fn one_other_chunk_within_a_step_is_caught() {
        for wrong in 0..64 {
            let mut matching = Matching::default();
            matching.step(0, 0, 64, step(0, 64));
            let told = (0..64).find_map(|p| matching.chunk(1, p, digest(if p == wrong { 99 } else { p })));
            assert_eq!(told, Some(Compared { from: 0, to: 64, same: false }), "{wrong}");
        }
    }

    #[test]
    fn memory_that_grows_with_a_history_that_has_gaps_is_caught() {
        let mut matching = Matching::default();
        for position in 0..200_000 {
            matching.chunk(0, position, digest(0));
            if position % 3 != 0 {
                matching.chunk(1, position, digest(0));
            }
        }
        assert!(matching.ends.iter().map(Waiting::len).sum::<usize>() <= 2 * SWEEP_AFTER);
        assert_eq!(matching.compared, 133_333);
    }
}
