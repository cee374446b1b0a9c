//! The fault plan: what goes wrong, at which end and when.

mod kind;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::card::Trouble;
use crate::link::End;
pub use kind::Kind;
pub(crate) use parse::duration;
pub use parse::{BadFault, FaultText, read_plan};

/// Named faults that a plan holds at most.
const FAULTS_MAX: usize = 100_000;

/// The end or ends that a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Where {
    /// The transmitter's end.
    A,
    /// The receiver's end.
    B,
    /// Both ends.
    Both,
}

impl Where {
    /// Whether an end is struck.
    #[must_use]
    pub const fn includes(self, end: End) -> bool {
        matches!((self, end), (Self::Both, _) | (Self::A, End::A) | (Self::B, End::B))
    }
}

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deed {
    /// A card misbehaves.
    Card(Trouble),
    /// So many blocks are lost at one end.
    LoseBlocks(u32),
    /// No light for so many microseconds.
    Outage(u64),
    /// Realignment for so many microseconds.
    Realign(u64),
    /// No authentication key for so many microseconds.
    NoAuthenticationKey(u64),
    /// The error rate rises by this ratio for so many microseconds.
    Qber(f64, u64),
}

/// One fault at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// Microseconds since the pair began.
    pub at: u64,
    /// Where it strikes; faults of the link strike both ends.
    pub end: Where,
    /// What it does.
    pub deed: Deed,
}

/// Faults in the order of their time: named ones, and random ones without end.
#[derive(Debug, Default)]
pub struct Plan {
    named: VecDeque<Fault>,
    random: Option<RandomFaults>,
}

impl Plan {
    /// Nothing goes wrong by plan.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// These faults, each at its time.
    #[must_use]
    pub fn named(mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.at);
        Self { named: faults.into(), random: None }
    }

    /// Adds random faults, so many a minute on average, of the kinds from which a system recovers by itself.
    #[must_use]
    pub fn with_random(mut self, seed: u64, per_minute: f64) -> Self {
        self.random = (per_minute > 0.0).then(|| RandomFaults::new(seed, per_minute));
        self
    }

    /// Adds a fault behind those of the same time. False when as many wait already as a plan holds.
    pub(crate) fn insert(&mut self, fault: Fault) -> bool {
        let room = self.named.len() < FAULTS_MAX;
        if room {
            let place = self.named.partition_point(|other| other.at <= fault.at);
            self.named.insert(place, fault);
        }
        room
    }

    /// Takes out the next fault that is due by `now`.
    pub(crate) fn next_until(&mut self, now: u64) -> Option<Fault> {
        let named_at = self.named.front().map(|fault| fault.at);
        let random_at = self.random.as_ref().map(|random| random.next.at);
        if random_at.is_some_and(|at| at <= now && named_at.is_none_or(|named| at < named)) {
            return self.random.as_mut().map(RandomFaults::take);
        }
        self.named.pop_front_if(|fault| fault.at <= now)
    }
}

#[derive(Debug)]
struct RandomFaults {
    rng: ChaCha8Rng,
    mean_us: f64,
    next: Fault,
}

impl RandomFaults {
    fn new(seed: u64, per_minute: f64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5EED_FA17);
        let mean_us = 60e6 / per_minute;
        let next = draw(&mut rng, 0, mean_us);
        Self { rng, mean_us, next }
    }

    fn take(&mut self) -> Fault {
        let next = draw(&mut self.rng, self.next.at, self.mean_us);
        std::mem::replace(&mut self.next, next)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as saturates")]
fn draw(rng: &mut ChaCha8Rng, after: u64, mean_us: f64) -> Fault {
    let gap = -mean_us * rng.random_range(f64::MIN_POSITIVE..1.0_f64).ln();
    let end = if rng.random_bool(0.5) { Where::A } else { Where::B };
    let recoverable = Kind::RECOVERABLE;
    let kind = recoverable.get(rng.random_range(0..recoverable.len())).copied().unwrap_or(Kind::LoseBlock);
    let duration = rng.random_range(50_000..2_000_000);
    let deed = kind.deed(rng.random_range(1..4), duration);
    Fault { at: after.saturating_add(gap as u64), end, deed }
}
