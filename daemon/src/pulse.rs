//! Signs of life of the daemon's parts, for the watchdog.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A counter that a part raises each time it turns.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// The part has turned.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Pulses of alike parts that come and go, such as threads that a library starts anew.
#[derive(Clone, Debug, Default)]
pub struct Pulses(Arc<Mutex<Vec<Weak<AtomicU64>>>>);

impl Pulses {
    /// A pulse that counts until its last clone is dropped.
    #[must_use]
    pub fn begin(&self) -> Pulse {
        let pulse = Pulse::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&pulse.0));
        pulse
    }
}

/// Tells whether parts have turned since the last look.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    seen: Vec<(Weak<AtomicU64>, u64)>,
}

impl Looks {
    /// Whether this part has turned since the last time that the answer was yes.
    pub(crate) fn one(&mut self, pulse: &Pulse) -> bool {
        self.turned(&Arc::downgrade(&pulse.0), pulse.beats())
    }

    /// Whether there is such a part and every one has turned since the last time that the answer for it was yes.
    pub(crate) fn all(&mut self, pulses: &Pulses) -> bool {
        let mut parts = pulses.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|part| part.strong_count() > 0);
        let mut alive = !parts.is_empty();
        for part in parts.iter() {
            let beats = part.upgrade().map_or(0, |beats| beats.load(Ordering::Relaxed));
            alive &= self.turned(part, beats);
        }
        alive
    }

    fn turned(&mut self, part: &Weak<AtomicU64>, beats: u64) -> bool {
        self.seen.retain(|(seen, _)| seen.strong_count() > 0);
        match self.seen.iter_mut().find(|(seen, _)| seen.ptr_eq(part)) {
            Some((_, before)) if *before == beats => false,
            Some((_, before)) => {
                *before = beats;
                true
            }
            None => {
                // A part that has never turned has shown nothing.
                self.seen.push((part.clone(), beats));
                beats > 0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Looks, Pulse, Pulses};

    #[test]
    fn a_part_that_never_turned_or_stopped_turning_is_not_alive() {
        let (pulse, mut looks) = (Pulse::default(), Looks::default());
        assert!(!looks.one(&pulse), "it has never turned");
        pulse.beat();
        assert!(looks.one(&pulse));
        assert!(!looks.one(&pulse), "it has not turned since");
        pulse.beat();
        assert!(looks.one(&pulse), "and may turn again");
    }

    #[test]
    fn one_part_of_many_that_hangs_is_seen_and_one_that_ended_is_not_missed() {
        let (pulses, mut looks) = (Pulses::default(), Looks::default());
        assert!(!looks.all(&pulses), "there is none");
        let (first, second) = (pulses.begin(), pulses.begin());
        first.beat();
        assert!(!looks.all(&pulses), "the second has never turned");
        second.beat();
        first.beat();
        assert!(looks.all(&pulses));
        first.beat();
        assert!(!looks.all(&pulses), "the second hangs");
        drop(second);
        first.beat();
        assert!(looks.all(&pulses), "the second is not there any more");
        drop(first);
        assert!(!looks.all(&pulses), "none is left");
    }
}
