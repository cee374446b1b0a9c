//! Chunks lost in a row are one line in the log, not one for each grant that they came with.

use std::collections::HashMap;

use tokio::time::{Duration, Instant};

use crate::agreement::{LossCause, Position};
use crate::interface::KeyStreamId;

/// Losses are gathered for this long before they are said.
const GATHERED_FOR: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    first: Position,
    last: Position,
    count: u64,
    due: Instant,
}

/// Losses that are not in the log yet.
#[derive(Debug, Default)]
pub(super) struct Losses {
    stretches: HashMap<(KeyStreamId, LossCause), Stretch>,
}

impl Losses {
    /// Takes note of `count` lost chunks from `first` on.
    pub(super) fn add(
        &mut self,
        stream: KeyStreamId,
        cause: LossCause,
        first: Position,
        count: u64,
        now: Instant,
    ) {
        let last = first.saturating_add(count.saturating_sub(1));
        let due = now + GATHERED_FOR;
        let stretch = self.stretches.entry((stream, cause)).or_insert(Stretch { first, last, count: 0, due });
        stretch.last = last.max(stretch.last);
        stretch.count = stretch.count.saturating_add(count);
    }

    /// When [`Losses::say`] is due, if at all.
    pub(super) fn due(&self) -> Option<Instant> {
        self.stretches.values().map(|stretch| stretch.due).min()
    }

    /// Logs what has been gathered long enough by `now`.
    pub(super) fn say(&mut self, now: Instant) {
        for line in self.take(now) {
            log::warn!("{line}");
        }
    }

    fn take(&mut self, now: Instant) -> Vec<String> {
        let due = self.stretches.extract_if(|_, stretch| stretch.due <= now);
        due.map(|((stream, cause), Stretch { first, last, count, .. })| {
            let why = match cause {
                LossCause::BlockLost => "blocks of them are lost at this end",
                LossCause::Expired => "their time to live is over",
                LossCause::Skipped => "the KMS asked for a later position",
                LossCause::Closed => "the key stream is closed",
                LossCause::Epoch => "the two ledgers differ, and a new epoch begins",
            };
            format!("key stream {stream}: {count} chunks from {first} to {last} are not delivered: {why}")
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::{GATHERED_FOR, Losses};
    use crate::agreement::LossCause;
    use crate::interface::KeyStreamId;

    #[test]
    fn a_thousand_expired_grants_are_one_line_that_counts_them_all() {
        let (mut losses, stream, now) = (Losses::default(), KeyStreamId::nil(), Instant::now());
        for grant in 0..1_000 {
            losses.add(stream, LossCause::Expired, grant * 10, 10, now);
        }
        losses.add(stream, LossCause::BlockLost, 7, 1, now);
        assert!(losses.take(now).is_empty());
        let mut lines = losses.take(losses.due().unwrap().max(now + GATHERED_FOR));
        lines.sort();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].contains("10000 chunks from 0 to 9999"), "{lines:?}");
        assert_eq!(losses.due(), None);
    }
}
