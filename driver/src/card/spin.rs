//! How long to look for the next event before blocking for its interrupt: as long as looking has paid.

use std::time::Duration;

/// What events that come thick first get: this part of the longest time.
const FIRST: u32 = 8;

/// Looking takes a whole processor, an interrupt some microseconds of one. Events that come one soon after the other are looked
/// for; where they come seldom, the time between two of them says so, and each look is half as long as the one before.
#[derive(Debug)]
pub(super) struct Spin {
    longest: Duration,
    now: Duration,
}

impl Spin {
    /// Never longer than `longest`, which it is at first.
    pub(super) const fn new(longest: Duration) -> Self {
        Self { longest, now: longest }
    }

    /// How long to look after the last event.
    pub(super) const fn time(&self) -> Duration {
        self.now
    }

    /// An event that was waited for came so long after the last one.
    pub(super) fn came_after(&mut self, gap: Duration) {
        let first = self.longest / FIRST;
        self.now = if gap <= self.longest {
            (self.now * 2).clamp(first, self.longest)
        } else if self.now > first {
            self.now / 2
        } else {
            Duration::ZERO
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(50);

    #[test]
    fn rare_events_are_not_looked_for_and_thick_ones_are_again() {
        let mut spin = Spin::new(LONGEST);
        assert_eq!(spin.time(), LONGEST);
        for _ in 0..4 {
            let before = spin.time();
            spin.came_after(Duration::from_micros(51));
            assert!(spin.time() < before);
        }
        spin.came_after(Duration::from_secs(1));
        assert_eq!(spin.time(), Duration::ZERO);
        for _ in 0..4 {
            let before = spin.time();
            spin.came_after(LONGEST);
            assert!(spin.time() > before && spin.time() <= LONGEST);
        }
        spin.came_after(Duration::ZERO);
        assert_eq!(spin.time(), LONGEST);
    }

    #[test]
    fn whoever_wants_no_looking_gets_none() {
        let mut spin = Spin::new(Duration::ZERO);
        spin.came_after(Duration::ZERO);
        assert_eq!(spin.time(), Duration::ZERO);
    }
}
