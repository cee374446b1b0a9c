//! What is done to the system, and when: drawn from a seed, in rounds that each end in a recovery.

use std::fmt;
use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// Strikes of a round begin within this time, so that they meet each other and the recovery from one another.
const ROUND: Duration = Duration::from_millis(1500);
/// Longest pause before a round, so that it meets the streams anywhere.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// One of the two ends, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    A,
    B,
    Both,
}

impl Who {
    /// The ends by number.
    pub(super) fn ends(self) -> impl Iterator<Item = usize> {
        let ends: &'static [usize] = match self {
            Self::A => &[0],
            Self::B => &[1],
            Self::Both => &[0, 1],
        };
        ends.iter().copied()
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
            Self::Both => "both",
        })
    }
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// kill -9 of a daemon; started again after the time that the strike lasts.
    Kill(Who),
    /// SIGTERM; started again as above, counted from its end.
    Terminate(Who),
    /// SIGSTOP and, after that time, SIGCONT.
    Freeze(Who),
    /// The peer link is cut.
    CutLink,
    /// The peer link keeps each piece for so many milliseconds, of at most so many octets.
    SlowLink(u64, usize),
    /// The peer link is reset after so many octets.
    ResetLink(usize),
    /// Trouble of this kind at a KMS.
    Kms(Who, &'static str),
    /// A fault of this kind at a card.
    Card(Who, &'static str),
    /// kill -9, and the ledger is gone when the daemon starts again.
    LoseLedger(Who),
    /// kill -9, and the ledger is replaced by a backup when the daemon starts again.
    OldLedger(Who),
}

impl Deed {
    /// What kind of fault it is, whomever it strikes.
    pub(super) fn kind(self) -> String {
        match self {
            Self::Kill(_) => "kill -9".into(),
            Self::Terminate(_) => "SIGTERM".into(),
            Self::Freeze(_) => "SIGSTOP".into(),
            Self::CutLink => "peer link cut".into(),
            Self::SlowLink(..) => "peer link slow".into(),
            Self::ResetLink(_) => "peer link reset".into(),
            Self::Kms(_, kind) => format!("KMS {kind}"),
            Self::Card(_, kind) => format!("card {kind}"),
            Self::LoseLedger(_) => "ledger lost".into(),
            Self::OldLedger(_) => "ledger restored from a backup".into(),
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::CutLink => f.write_str(&kind),
            Self::SlowLink(ms, octets) => write!(f, "{kind}: {octets} octets each {ms} ms"),
            Self::ResetLink(octets) => write!(f, "{kind} after {octets} octets"),
            Self::Kill(who)
            | Self::Terminate(who)
            | Self::Freeze(who)
            | Self::Kms(who, _)
            | Self::Card(who, _)
            | Self::LoseLedger(who)
            | Self::OldLedger(who) => write!(f, "{kind} {who}"),
        }
    }
}

/// A fault at its time, counted from the round's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strike {
    pub(super) at: Duration,
    /// How long it lasts; a daemon is down for so long.
    pub(super) lasts: Duration,
    pub(super) deed: Deed,
}

/// Strikes that belong together, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    /// Time before it.
    pub(super) pause: Duration,
    pub(super) strikes: Vec<Strike>,
}

/// Kinds of trouble of a KMS.
const KMS: [&str; 7] = ["503", "429", "400", "hang", "close-mid-answer", "late", "accepted-then-500"];
/// Kinds of fault of a card, and whether they last.
const CARD: [(&str, bool); 9] = [
    ("lose-block", false),
    ("overflow", false),
    ("duplicate", false),
    ("out-of-order", false),
    ("bad-crc", false),
    ("skip-event", false),
    ("power-loss", false),
    ("outage", true),
    ("realign", true),
];

/// True if a fault of this kind lasts for a time.
pub(super) fn lasts(kind: &str) -> bool {
    CARD.contains(&(kind, true))
}

/// Draws rounds without end.
pub(super) struct Plan {
    dice: ChaCha12Rng,
    /// Kinds that have not come since it was last filled.
    bag: Vec<Deed>,
    /// Ledgers may be lost and restored.
    ledgers: bool,
    rounds: u64,
}

impl Plan {
    pub(super) fn new(seed: u64, ledgers: bool) -> Self {
        Self { dice: ChaCha12Rng::seed_from_u64(seed), bag: Vec::new(), ledgers, rounds: 0 }
    }

    /// The next round. Each has a kill -9; the other kinds come in turn, so that none is left out for long. Every other
    /// round has a ledger lost or restored, where that may be.
    pub(super) fn round(&mut self) -> Round {
        let kills = match self.dice.random_range(0..10) {
            0..6 => 1,
            6..9 => 2,
            _ => 3,
        };
        let mut strikes: Vec<Strike> = (0..kills)
            .map(|_| {
                let who = match self.dice.random_range(0..10) {
                    0..4 => Who::A,
                    4..8 => Who::B,
                    _ => Who::Both,
                };
                self.strike(Deed::Kill(who))
            })
            .collect();
        for _ in 0..self.dice.random_range(0..=2) {
            let deed = self.other();
            let strike = self.strike(deed);
            strikes.push(strike);
        }
        self.rounds += 1;
        if self.ledgers && self.rounds.is_multiple_of(2) {
            let who = if self.dice.random() { Who::A } else { Who::B };
            let lost = self.rounds.is_multiple_of(4);
            let strike = self.strike(if lost { Deed::LoseLedger(who) } else { Deed::OldLedger(who) });
            strikes.push(strike);
        }
        strikes.sort_by_key(|strike| strike.at);
        Round { pause: self.time(Duration::ZERO, LONGEST_PAUSE), strikes }
    }

    fn strike(&mut self, deed: Deed) -> Strike {
        let (least, most) = match deed {
            Deed::Kill(_) | Deed::Terminate(_) | Deed::LoseLedger(_) | Deed::OldLedger(_) => (0, 400),
            Deed::Freeze(_) => (10, 2500),
            Deed::CutLink => (10, 1500),
            Deed::SlowLink(..) => (200, 1500),
            Deed::ResetLink(_) => (0, 0),
            // Beyond the time that the daemons wait for an answer.
            Deed::Kms(..) => (200, 2000),
            Deed::Card(..) => (100, 800),
        };
        Strike {
            at: self.time(Duration::ZERO, ROUND),
            lasts: self.time(Duration::from_millis(least), Duration::from_millis(most)),
            deed,
        }
    }

    fn time(&mut self, least: Duration, most: Duration) -> Duration {
        self.dice.random_range(least..=most)
    }

    fn other(&mut self) -> Deed {
        if self.bag.is_empty() {
            self.fill();
        }
        self.bag.pop().unwrap_or(Deed::CutLink)
    }

    fn fill(&mut self) {
        let ms = self.dice.random_range(5..40);
        let octets = self.dice.random_range(64..2048);
        let after = self.dice.random_range(1..600);
        self.bag = vec![Deed::CutLink, Deed::SlowLink(ms, octets), Deed::ResetLink(after)];
        let mut who = || if self.dice.random() { Who::A } else { Who::B };
        self.bag.extend([Deed::Terminate(who()), Deed::Freeze(Who::A), Deed::Freeze(Who::B)]);
        self.bag.extend(KMS.map(|kind| Deed::Kms(who(), kind)));
        // The light is one for both; the other faults strike one card.
        self.bag.extend(CARD.map(|(kind, lasts)| Deed::Card(if lasts { Who::Both } else { who() }, kind)));
        self.bag.shuffle(&mut self.dice);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_that_does_not_repeat_its_plan_is_caught() {
        let rounds = |seed| {
            let mut plan = Plan::new(seed, true);
            (0..50).map(|_| plan.round()).collect::<Vec<_>>()
        };
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
    }

    #[test]
    fn a_kind_that_never_comes_and_a_round_without_a_kill_are_caught() {
        for ledgers in [false, true] {
            let mut plan = Plan::new(1, ledgers);
            let mut kinds = BTreeSet::new();
            for _ in 0..40 {
                let strikes = plan.round().strikes;
                assert!(strikes.iter().any(|strike| matches!(strike.deed, Deed::Kill(_))));
                assert!(strikes.is_sorted_by_key(|strike| strike.at));
                kinds.extend(strikes.into_iter().map(|strike| strike.deed.kind()));
            }
            let expected = 6 + KMS.len() + CARD.len() + if ledgers { 2 } else { 0 };
            assert_eq!(kinds.len(), expected, "{kinds:?}");
        }
    }
}
