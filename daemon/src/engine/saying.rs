//! Log lines that would come again and again while something stays wrong: once a minute is enough.

use std::collections::VecDeque;

use tokio::time::{Duration, Instant};

/// The same words are not said again within this time.
const QUIET: Duration = Duration::from_secs(60);
/// Lines remembered.
const RECENT: usize = 16;

/// Says each thing once a minute at most.
#[derive(Debug, Default)]
pub(super) struct Saying {
    recent: VecDeque<(String, Instant)>,
}

impl Saying {
    /// Logs `text` as the message `id`, unless the same words were logged a short while ago.
    pub(super) fn say(&mut self, level: log::Level, id: &str, text: &str) {
        if self.is_new(text, Instant::now()) {
            log::log!(level, id = id; "{text}");
        }
    }

    fn is_new(&mut self, text: &str, now: Instant) -> bool {
        self.recent.retain(|(_, said)| now.duration_since(*said) < QUIET);
        if self.recent.iter().any(|(before, _)| before == text) {
            return false;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((text.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{QUIET, RECENT, Saying};
    use tokio::time::Instant;

    #[test]
    fn a_refusal_every_second_does_not_flood_the_log_and_is_not_forgotten_either() {
        let mut saying = Saying::default();
        let begin = Instant::now();
        assert!(saying.is_new("refused", begin));
        assert!(!saying.is_new("refused", begin + QUIET / 2));
        assert!(saying.is_new("another", begin + QUIET / 2));
        assert!(saying.is_new("refused", begin + QUIET));
    }

    #[test]
    fn what_is_remembered_stays_small() {
        let mut saying = Saying::default();
        let now = Instant::now();
        assert!((0..1_000).all(|number| saying.is_new(&number.to_string(), now)));
        assert_eq!(saying.recent.len(), RECENT);
    }
}
