//! Puts chunks together into runs.

use ring::digest::{Context, SHA256};
use uuid::Uuid;

use super::digest::Digest;
use super::record::{Milliseconds, RUN_POSITIONS, Run, STEP_DIGEST_BYTES, STEP_POSITIONS};
use super::trace::Piece;

/// A run that is being put together.
pub struct RunBuilder {
    t: Milliseconds,
    until: Milliseconds,
    first: u64,
    next: u64,
    sample: Digest,
    step: Context,
    steps: Vec<u8>,
    /// What the chunks so far were made of.
    pub pieces: Vec<Piece>,
}

impl RunBuilder {
    /// A run that will begin with the chunk at `first`, whose digest is `sample`.
    #[must_use]
    pub fn new(t: Milliseconds, first: u64, sample: Digest) -> Self {
        let steps = Vec::with_capacity(
            usize::try_from(RUN_POSITIONS / STEP_POSITIONS).unwrap_or(0) * STEP_DIGEST_BYTES,
        );
        Self {
            t,
            until: t,
            first,
            next: first,
            sample,
            step: Context::new(&SHA256),
            steps,
            pieces: Vec::new(),
        }
    }

    /// Position that the next chunk must have.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes the chunk at the next position. True when the run is full.
    pub fn push(&mut self, t: Milliseconds, digest: Digest) -> bool {
        self.step.update(&digest.0);
        self.until = t;
        self.next = self.next.saturating_add(1);
        if self.next.is_multiple_of(STEP_POSITIONS) {
            self.end_step();
        }
        self.next.is_multiple_of(RUN_POSITIONS)
    }

    fn end_step(&mut self) {
        let step = std::mem::replace(&mut self.step, Context::new(&SHA256)).finish();
        self.steps.extend_from_slice(step.as_ref().get(..STEP_DIGEST_BYTES).unwrap_or_default());
    }

    /// The finished run.
    #[must_use]
    pub fn finish(mut self, stream: Uuid, length: u32) -> Run {
        if !self.next.is_multiple_of(STEP_POSITIONS) {
            self.end_step();
        }
        Run {
            t: self.t,
            until: self.until,
            stream,
            first: self.first,
            count: self.next - self.first,
            length,
            steps: base64_turbo::STANDARD.encode(&self.steps),
            sample: self.sample,
            origin: self.pieces.into_iter().map(Into::into).collect(),
        }
    }
}

/// Digest of one step, from the digests of its chunks.
#[must_use]
pub fn step_digest<'a>(chunks: impl Iterator<Item = &'a Digest>) -> [u8; STEP_DIGEST_BYTES] {
    let mut context = Context::new(&SHA256);
    chunks.for_each(|digest| context.update(&digest.0));
    let mut value = [0; STEP_DIGEST_BYTES];
    for (to, from) in value.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::super::record::steps;
    use super::*;

    #[test]
    fn a_run_whose_steps_do_not_fit_its_positions_is_caught() {
        for (first, count) in [(0, 1024), (0, 1), (63, 1), (63, 2), (64, 64), (100, 900), (1023, 1)] {
            let digests: Vec<_> = (first..first + count).map(|p: u64| Digest::of(&p.to_le_bytes())).collect();
            let mut run = RunBuilder::new(5, first, digests[0]);
            let full: Vec<bool> = digests.iter().map(|digest| run.push(6, *digest)).collect();
            assert!(full.iter().rev().skip(1).all(|full| !full));
            let run = run.finish(Uuid::nil(), 32);
            assert_eq!((run.first, run.count), (first, count));
            let got = base64_turbo::STANDARD.decode(&run.steps).expect("base64");
            let expected: Vec<u8> = steps(first, count)
                .flat_map(|step| {
                    let at = |p: u64| usize::try_from(p - first).expect("small");
                    step_digest(digests[at(step.start)..at(step.end)].iter())
                })
                .collect();
            assert_eq!(got, expected, "{first} {count}");
        }
    }
}
