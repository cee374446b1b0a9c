//! A few digests of each stream, for comparing two KMSs while they run.

use crate::history::digest::Digest;

/// Most samples per report.
const MOST: usize = 32;
/// Fewer than this, and the next report may have more.
const FEW: usize = 8;

/// Digests of the chunks at multiples of a power of two, which adapts to the pace. Whatever the paces at two ends, the
/// coarser one's samples are among the finer one's.
#[derive(Debug, Default)]
pub(super) struct Samples {
    shift: u32,
    taken: Vec<(u64, Digest)>,
}

impl Samples {
    /// Takes note of a chunk.
    pub(super) fn take(&mut self, position: u64, digest: &Digest) {
        if !multiple(position, self.shift) {
            return;
        }
        self.taken.push((position, *digest));
        while self.taken.len() > MOST && self.shift < 63 {
            self.shift += 1;
            let shift = self.shift;
            self.taken.retain(|(position, _)| multiple(*position, shift));
        }
    }

    /// What was taken since the last report.
    pub(super) fn report(&mut self) -> Vec<(u64, Digest)> {
        if self.taken.len() < FEW {
            self.shift = self.shift.saturating_sub(1);
        }
        std::mem::take(&mut self.taken)
    }
}

fn multiple(position: u64, shift: u32) -> bool {
    position.trailing_zeros() >= shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_that_grow_without_bound_or_dry_up_are_caught() {
        let digest = Digest::of(b"");
        let mut fast = Samples::default();
        let mut slow = Samples::default();
        (0..1_000_000).for_each(|position| fast.take(position, &digest));
        (0..20).for_each(|position| slow.take(position * 50_000, &digest));
        let (fast, slow) = (fast.report(), slow.report());
        assert!((FEW..=MOST).contains(&fast.len()), "{}", fast.len());
        assert_eq!(slow.len(), 20);
    }
}
