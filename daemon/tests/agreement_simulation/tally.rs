//! What happened in schedules, and how often. Schedules in which a kind of trouble never struck show nothing about it.

use std::collections::BTreeMap;

use super::faults::{Fault, Matrix};
use super::world::World;

/// Seeds from which on every fault must have struck in every state.
const EVERY_PAIR: u64 = 20_000;
/// Seeds from which on everything must have happened at all.
const EVERYTHING: u64 = 500;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    matrix: Matrix,
    counts: BTreeMap<&'static str, u64>,
    slowest_recovery_ms: u64,
    fewest_events: Option<u64>,
}

impl Tally {
    fn count(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_insert(0) += times;
    }

    pub(crate) fn add(&mut self, world: &World) {
        self.matrix.merge(&world.matrix);
        self.count("chunks delivered", world.checker.deliveries);
        self.count("events", world.events());
        let fates = world.checker.fates();
        let nodes = world.nodes.iter().flat_map(|node| &node.counts);
        for (what, times) in
            world.checker.entries.iter().chain(&world.checker.losses).chain(nodes).chain(&fates)
        {
            self.count(what, *times);
        }
        for node in &world.nodes {
            self.count("epochs", node.core.status().counters.epochs);
            self.count("peer faults", node.core.status().counters.peer_faults);
        }
        self.slowest_recovery_ms = self.slowest_recovery_ms.max(world.recovered_ms);
        let events = self.fewest_events.unwrap_or(u64::MAX).min(world.events());
        self.fewest_events = Some(events);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.matrix.merge(&other.matrix);
        for (what, times) in &other.counts {
            self.count(what, *times);
        }
        self.slowest_recovery_ms = self.slowest_recovery_ms.max(other.slowest_recovery_ms);
        self.fewest_events = self.fewest_events.into_iter().chain(other.fewest_events).min();
    }

    pub(crate) fn is_complete(&self, seeds: u64) {
        if seeds < EVERYTHING {
            return;
        }
        for fault in Fault::ALL {
            assert!(self.matrix.times(*fault) > 0, "{fault:?} never struck");
        }
        for what in [
            "open",
            "grant",
            "skip",
            "burn",
            "end",
            "block lost",
            "expired",
            "skipped",
            "closed over",
            "epoch over",
            "opened",
            "get-key done",
            "closed",
            "notice 1",
            "notice 2",
            "notice 4",
            "refused 3",
            "refused 5",
            "refused 6",
            "octets burnt: a new epoch",
            "octets burnt: no stream takes key",
            "octets burnt: less than a chunk",
        ] {
            assert!(self.counts.contains_key(what), "{what} never happened");
        }
        assert!(self.counts["chunks delivered"] > 20 * seeds, "hardly anything was delivered");
        assert_eq!(self.counts["peer faults"], 0, "honest ends found fault with each other");
        if seeds >= EVERY_PAIR {
            let missing = self.matrix.missing();
            assert!(missing.is_empty(), "{} pairs were not struck: {missing:#?}", missing.len());
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:?}", self.counts)?;
        writeln!(
            f,
            "fewest events in a schedule: {}; slowest recovery after the last fault: {} ms of virtual time",
            self.fewest_events.unwrap_or(0),
            self.slowest_recovery_ms
        )?;
        write!(f, "{}", self.matrix.table())
    }
}
