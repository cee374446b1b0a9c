//! How often the card's thread wakes: blocks that come fast are gathered, and where there is no room it is looked for.

use std::time::{Duration, Instant};

/// More than one block in so long is fast.
const FAST: Duration = Duration::from_millis(1);
/// How long fast blocks are gathered, in the card's ring.
const GATHER: Duration = Duration::from_millis(2);
/// Blocks are counted over so long at least.
const COUNT: Duration = Duration::from_millis(4);
/// Part of the ring that may fill up with what is gathered; more than this at a time is not left to wait.
const GATHERED_OF_SLOTS: u32 = 4;

/// How soon to look first while there is no room, in the vault or with the engine: the card's ring fills, as it should.
const HELD_BACK: Duration = Duration::from_millis(2);
/// How late at last where some room was found, and where none was. An order, which tells that blocks were released, comes
/// before that.
const HELD_BACK_LONG: Duration = Duration::from_millis(8);
const HELD_BACK_LONGEST: Duration = Duration::from_millis(64);

/// How blocks came so far.
#[derive(Debug)]
pub(super) struct Pace {
    slots: u32,
    since: Instant,
    came: u32,
    fast: bool,
    held_back: Duration,
}

impl Pace {
    /// Of a card with so many slots.
    pub(super) fn new(slots: u32, now: Instant) -> Self {
        Self { slots, since: now, came: 0, fast: false, held_back: HELD_BACK }
    }

    /// Everything was taken, `took` of it since the last time: how long to leave the card alone before its next event may wake the
    /// thread. `None`: not at all.
    pub(super) fn taken(&mut self, took: u32, now: Instant) -> Option<Duration> {
        self.held_back = HELD_BACK;
        self.came = self.came.saturating_add(took);
        let time = now.saturating_duration_since(self.since);
        if time >= COUNT {
            self.fast = time < FAST.saturating_mul(self.came);
            (self.since, self.came) = (now, 0);
        }
        (self.fast && took <= self.slots / GATHERED_OF_SLOTS).then_some(GATHER)
    }

    /// Something has no room, and `took` had: how long to wait for some.
    pub(super) fn held_back(&mut self, took: u32) -> Duration {
        let longest = if took > 0 { HELD_BACK_LONG } else { HELD_BACK_LONGEST };
        let wait = self.held_back.min(longest);
        self.held_back = (wait * 2).min(longest);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many times a thread wakes for blocks that come one in `gap`, for a second.
    fn wakes(gap: Duration) -> u32 {
        let begin = Instant::now();
        let mut pace = Pace::new(64, begin);
        let (mut now, mut taken, mut wakes) = (Duration::ZERO, 0, 0);
        while now < Duration::from_secs(1) {
            let came = u32::try_from(now.as_nanos() / gap.as_nanos()).unwrap() - taken;
            taken += came;
            wakes += 1;
            now = match pace.taken(came, begin + now) {
                Some(pause) => now + pause,
                None => gap * (taken + 1),
            };
        }
        wakes
    }

    #[test]
    fn blocks_that_come_fast_do_not_wake_the_thread_one_by_one_and_others_do_not_wait() {
        assert!(wakes(Duration::from_micros(330)) < 520);
        assert!(wakes(Duration::from_micros(700)) < 520);
        assert!((799..=801).contains(&wakes(Duration::from_micros(1_250))));
        assert!((99..=101).contains(&wakes(Duration::from_millis(10))));
    }

    #[test]
    fn a_ring_that_fills_is_not_left_to_wait() {
        let begin = Instant::now();
        let mut pace = Pace::new(64, begin);
        assert_eq!(pace.taken(16, begin + COUNT), Some(GATHER));
        assert_eq!(pace.taken(17, begin + 2 * COUNT), None);
        assert_eq!(Pace::new(2, begin).taken(1, begin + COUNT), None);
    }

    #[test]
    fn who_finds_room_each_time_looks_more_often_than_who_finds_none() {
        let mut pace = Pace::new(64, Instant::now());
        let mut ms = |took| u64::try_from(pace.held_back(took).as_millis()).unwrap();
        assert_eq!([0, 0, 0, 0, 0, 0, 0].map(&mut ms), [2, 4, 8, 16, 32, 64, 64]);
        assert_eq!([1, 1, 0, 0].map(&mut ms), [8, 8, 8, 16]);
        let _ = pace.taken(0, Instant::now());
        assert_eq!([1, 1, 1, 1].map(|took| pace.held_back(took).as_millis()), [2, 4, 8, 8]);
    }
}
