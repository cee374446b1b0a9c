//! Schedules of two daemons, two cards, two KMSs and every fault, each from one seed, judged by the invariants.
//!
//! `QKD_SEEDS` sets how many seeds run, `QKD_SEED` runs one and prints its trace.
#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a panic is how a test fails"
)]

mod card;
mod checker;
mod defects;
mod dice;
mod heal;
mod kms_calls;
mod node;
mod push;
mod trouble;
mod world;

use std::collections::BTreeMap;

use checker::Violation;
use defects::Defect;
use trouble::Fault;
use world::World;

const STEPS: u64 = 500;

fn run(seed: u64, defect: Option<Defect>, traced: bool) -> (Result<(), Violation>, World) {
    let mut world = World::new(seed, defect, traced);
    let verdict = (|| {
        world.begin()?;
        if world.dice.hits(700) {
            world.warm_up()?;
        }
        for _ in 0..STEPS {
            world.step()?;
        }
        world.heal()
    })();
    (verdict, world)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Shows the end of a failing seed's trace.
fn show(seed: u64, defect: Option<Defect>, violation: &Violation) -> String {
    let (_, world) = run(seed, defect, true);
    for node in &world.nodes {
        println!("==== end {}", node.end);
        let trace = node.trace.as_deref().unwrap_or_default();
        for line in
            &trace[trace.len().saturating_sub(if number("QKD_SEED").is_some() { 100_000 } else { 60 })..]
        {
            println!("{line}");
        }
    }
    format!(
        "{}: {}\nreplay: QKD_SEED={seed} cargo test -p qkd-daemon --test agreement_simulation every_schedule",
        violation.invariant, violation.what
    )
}

/// What happened in schedules, and how often.
#[derive(Debug, Default)]
struct Tally {
    struck: BTreeMap<Fault, u64>,
    counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn count(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_insert(0) += times;
    }

    fn add(&mut self, world: &World) {
        for (fault, times) in &world.struck {
            *self.struck.entry(*fault).or_insert(0) += times;
        }
        self.count("chunks delivered", world.checker.deliveries);
        let nodes = world.nodes.iter().flat_map(|node| &node.counts);
        for (what, times) in world.checker.entries.iter().chain(&world.checker.losses).chain(nodes) {
            self.count(what, *times);
        }
        for node in &world.nodes {
            self.count("epochs", node.core.status().counters.epochs);
            self.count("peer faults", node.core.status().counters.peer_faults);
        }
    }

    fn merge(&mut self, other: &Self) {
        for (fault, times) in &other.struck {
            *self.struck.entry(*fault).or_insert(0) += times;
        }
        for (what, times) in &other.counts {
            self.count(what, *times);
        }
    }

    /// Schedules in which a kind of trouble never struck show nothing about it.
    fn is_complete(&self, seeds: u64) {
        for fault in Fault::ALL {
            assert!(self.struck.contains_key(&fault), "{fault:?} never struck");
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
            "opened",
            "get-key done",
            "closed",
            "notice",
            "refused 3",
            "refused 5",
            "refused 6",
        ] {
            assert!(self.counts.contains_key(what), "{what} never happened");
        }
        assert!(self.counts["chunks delivered"] > 20 * seeds, "hardly anything was delivered");
        assert_eq!(self.counts["peer faults"], 0, "honest ends found fault with each other");
    }
}

/// Runs the seeds of `seeds` that are `part` modulo `parts`.
fn some(seeds: std::ops::Range<u64>, part: u64, parts: u64) -> Result<Tally, (u64, Violation)> {
    let mut tally = Tally::default();
    for seed in seeds.filter(|seed| seed % parts == part) {
        let (verdict, world) = run(seed, None, false);
        verdict.map_err(|violation| (seed, violation))?;
        tally.add(&world);
    }
    Ok(tally)
}

#[test]
fn every_schedule_keeps_the_invariants() {
    let seeds = match number("QKD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("QKD_SEEDS").unwrap_or(2_000),
    };
    let parts = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..parts)
            .map(|part| {
                scope.spawn({
                    let seeds = seeds.clone();
                    move || some(seeds, part, parts)
                })
            })
            .collect();
        for run in runs {
            match run.join() {
                Ok(Ok(part)) => tally.merge(&part),
                Ok(Err((seed, violation))) => panic!("{}", show(seed, None, &violation)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    println!("{seeds:?}: {:?}\n{:?}", tally.counts, tally.struck);
    if seeds.end - seeds.start >= 500 {
        tally.is_complete(seeds.end - seeds.start);
    }
}

#[test]
fn a_planted_defect_is_caught() {
    std::thread::scope(|scope| {
        for defect in Defect::ALL {
            scope.spawn(move || {
                let caught = (0..2_000).find_map(|seed| {
                    // A core that is lied to may also stop with a panic of the harness: that is noticed as well.
                    match std::panic::catch_unwind(|| run(seed, Some(defect), false).0) {
                        Ok(Ok(())) => None,
                        Ok(Err(violation)) => Some((seed, violation.invariant)),
                        Err(_) => Some((seed, "panic")),
                    }
                });
                println!("{defect:?}: {caught:?}");
                assert!(caught.is_some(), "{defect:?} went unnoticed");
            });
        }
    });
}
