//! Chunks lost in a row are one line in the log, not one for each grant that they came with.

use std::collections::HashMap;

use tokio::time::{Duration, Instant};

use crate::agreement::{Durable, LossCause, Position};
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

/// Says at the start what the ledger has counted. A daemon that was killed may have counted losses without having said them.
pub(super) fn say_counted(durable: &Durable) {
    for line in counted(durable) {
        log::info!(id = "stream.lost_before"; "{line}");
    }
}

fn counted(durable: &Durable) -> Vec<String> {
    let mut streams: Vec<_> = durable.streams.iter().collect();
    streams.sort_unstable_by_key(|(stream, _)| **stream);
    let lines = streams.into_iter().filter_map(|(stream, state)| {
        let causes: Vec<String> = LossCause::ALL
            .iter()
            .zip(state.lost)
            .filter(|(_, count)| *count > 0)
            .map(|(cause, count)| format!("{count} ({cause:?})"))
            .collect();
        let sum = state.lost.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        (sum > 0).then(|| {
            format!(
                "key stream {stream}: the ledger counts {sum} lost chunks below {}: {}",
                state.position,
                causes.join(", ")
            )
        })
    });
    lines.collect()
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
            log::warn!(id = "stream.lost"; "{line}");
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

    use super::{GATHERED_FOR, Losses, counted};
    use crate::agreement::{Durable, LossCause, StreamState};
    use crate::interface::{KeyStreamId, Qos};

    #[test]
    fn what_a_killed_daemon_has_counted_and_not_said_is_said_at_the_next_start() {
        let mut state = StreamState {
            source: "kms://a".into(),
            destination: "kms://b".into(),
            qos: Qos::for_tests(),
            opened: None,
            peer_opened: false,
            wanted: false,
            wish: 0,
            closed: false,
            next: 100,
            position: 0,
            lost: [0; LossCause::ALL.len()],
        };
        let mut durable = Durable::default();
        durable.streams.insert(KeyStreamId::from_u128(1), state.clone());
        assert!(counted(&durable).is_empty(), "nothing is lost");
        state.position = 90;
        state.lost[LossCause::BlockLost as usize] = 7;
        state.lost[LossCause::Expired as usize] = 3;
        durable.streams.insert(KeyStreamId::from_u128(2), state);
        assert_eq!(
            counted(&durable),
            [
                "key stream 00000000-0000-0000-0000-000000000002: the ledger counts 10 lost chunks below 90: 7 (BlockLost), \
              3 (Expired)"
            ]
        );
    }

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
