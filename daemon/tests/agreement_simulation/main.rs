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

#[test]
fn every_schedule_keeps_the_invariants() {
    let seeds = match number("QKD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("QKD_SEEDS").unwrap_or(2_000),
    };
    let single = seeds.end - seeds.start == 1;
    let mut struck: BTreeMap<Fault, u64> = BTreeMap::new();
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in seeds.clone() {
        let (verdict, world) = run(seed, None, false);
        if let Err(violation) = verdict {
            panic!("{}", show(seed, None, &violation));
        }
        for (fault, times) in world.struck {
            *struck.entry(fault).or_insert(0) += times;
        }
        *counts.entry("chunks delivered").or_insert(0) += world.checker.deliveries;
        for (what, times) in world.checker.entries.iter().chain(&world.checker.losses) {
            *counts.entry(what).or_insert(0) += times;
        }
        for node in &world.nodes {
            for (what, times) in &node.counts {
                *counts.entry(what).or_insert(0) += times;
            }
            *counts.entry("epochs").or_insert(0) += node.core.status().counters.epochs;
            *counts.entry("peer faults").or_insert(0) += node.core.status().counters.peer_faults;
        }
    }
    println!("{seeds:?}: {counts:?}\n{struck:?}");
    if !single && seeds.end >= 500 {
        for fault in Fault::ALL {
            assert!(
                struck.contains_key(&fault),
                "{fault:?} never struck: the schedules show nothing about it"
            );
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
            assert!(counts.contains_key(what), "{what} never happened");
        }
        assert!(counts["chunks delivered"] > 20 * seeds.end, "hardly anything was delivered");
    }
}

#[test]
fn a_planted_defect_is_caught() {
    for defect in Defect::ALL {
        let caught = (0..1_000).find_map(|seed| {
            let verdict = std::panic::catch_unwind(|| run(seed, Some(defect), false).0);
            match verdict {
                Ok(Ok(())) => None,
                Ok(Err(violation)) => Some((seed, violation.invariant)),
                Err(_) => Some((seed, "panic")),
            }
        });
        println!("{defect:?}: {caught:?}");
        assert!(caught.is_some(), "{defect:?} went unnoticed");
    }
}
