//! Whether every stream received again after the faults were over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::history::now;
use crate::history::record::Milliseconds;
use crate::stage::picture::{Kms, Picture};

/// Waits until each stream has received at both ends after a moment.
pub(super) struct Progress {
    since: Instant,
    /// The same moment as the KMSs write it.
    healed: Milliseconds,
    /// Streams that must receive at both ends.
    expected: usize,
    /// Chunks of each stream when the faults were over, by end.
    before: [Option<BTreeMap<String, u64>>; 2],
}

impl Progress {
    /// Begins now; so many streams are expected to receive.
    pub(super) fn new(expected: usize) -> Self {
        Self { since: Instant::now(), healed: now(), expected, before: [None, None] }
    }

    pub(super) fn waited(&self) -> Duration {
        self.since.elapsed()
    }

    /// Looks at the newest status of both KMSs. True once all have received.
    pub(super) fn look(&mut self, picture: &Picture) -> bool {
        for (kms, before) in picture.kms.iter().zip(&mut self.before) {
            if before.is_none() && kms.t >= self.healed {
                *before = Some(receiving(kms));
            }
        }
        self.silent(picture).is_empty() && self.both_receive(picture)
    }

    /// Enough streams receive at both ends, and the same ones.
    fn both_receive(&self, picture: &Picture) -> bool {
        let [a, b] = picture.kms.each_ref().map(receiving);
        a.len() == self.expected && a.keys().eq(b.keys())
    }

    /// Streams and ends that have not received since.
    pub(super) fn silent(&self, picture: &Picture) -> Vec<String> {
        let mut silent = Vec::new();
        for ((kms, before), end) in picture.kms.iter().zip(&self.before).zip(["A", "B"]) {
            let Some(before) = before else {
                silent.push(format!("KMS {end} says nothing"));
                continue;
            };
            let streams = receiving(kms);
            if streams.len() < self.expected {
                silent.push(format!(
                    "only {} of {} streams are open at KMS {end}",
                    streams.len(),
                    self.expected
                ));
            }
            let late = streams.iter().filter(|(stream, chunks)| *chunks <= before.get(*stream).unwrap_or(&0));
            silent.extend(late.map(|(stream, chunks)| {
                format!("stream {stream} did not resume at {end}: {chunks} chunks as before")
            }));
        }
        silent
    }
}

/// Streams that are open at a KMS, and their chunks.
fn receiving(kms: &Kms) -> BTreeMap<String, u64> {
    let open = kms.each.iter().filter(|each| each.receives);
    open.map(|each| (each.stream.clone(), each.chunks)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::picture::Each;

    fn picture(t: Milliseconds, chunks: [[u64; 2]; 2]) -> Picture {
        let mut picture = Picture::default();
        for (kms, chunks) in picture.kms.iter_mut().zip(chunks) {
            kms.t = t;
            let each = |(number, chunks): (usize, u64)| Each {
                stream: number.to_string(),
                chunks,
                notices: 0,
                receives: true,
            };
            kms.each = chunks.into_iter().enumerate().map(each).collect();
        }
        picture
    }

    #[test]
    fn a_stream_that_stays_silent_at_one_end_is_no_recovery() {
        let mut progress = Progress::new(2);
        let t = progress.healed;
        assert!(!progress.look(&picture(t - 1, [[9, 9], [9, 9]])), "that was before");
        assert!(!progress.look(&picture(t, [[9, 9], [9, 9]])));
        assert!(!progress.look(&picture(t + 1, [[10, 10], [10, 9]])));
        let silent = progress.silent(&picture(t + 1, [[10, 10], [10, 9]]));
        assert_eq!(silent, ["stream 1 did not resume at B: 9 chunks as before"]);
        assert!(progress.look(&picture(t + 2, [[10, 10], [10, 10]])));
    }

    #[test]
    fn a_stream_that_is_gone_is_no_recovery() {
        let mut progress = Progress::new(3);
        let t = progress.healed;
        assert!(!progress.look(&picture(t, [[9, 9], [9, 9]])));
        assert!(!progress.look(&picture(t + 1, [[10, 10], [10, 10]])));
        assert_eq!(progress.silent(&picture(t + 1, [[10, 10], [10, 10]])).len(), 2);
    }
}
