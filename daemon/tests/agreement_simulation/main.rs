//! Schedules of two daemons, two cards, two pairs of KMSs and every fault, each from one seed, judged by the invariants.
//!
//! `QKD_SEEDS` sets how many seeds run, `QKD_FIRST_SEED` where they begin, `QKD_SEED` runs one and prints its trace.
#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a panic is how a test fails"
)]

mod actions;
mod books;
mod card;
mod checker;
mod dice;
mod disk;
mod faults;
mod heal;
mod key;
mod kms_calls;
mod mutants;
mod node;
mod progress;
mod push;
mod states;
mod tally;
mod trace;
mod trouble;
mod wire;
mod world;
mod zeroize;

use checker::{Violation, broken};
use mutants::Mutant;
use tally::Tally;
use world::World;

/// Seeds that the test command runs.
const SEEDS: u64 = 20_000;
/// Every schedule has as many steps before the faults heal, ...
const STEPS: u64 = 800;
/// ... at least as many events at the two cores, ...
const EVENTS_LEAST: u64 = 500;
/// ... and as many streams.
const STREAMS_LEAST: u64 = 3;

fn run(seed: u64, mutant: Option<Mutant>, traced: bool) -> (Result<(), Violation>, World) {
    let mut world = World::new(seed, mutant, traced);
    let verdict = (|| {
        world.begin()?;
        if world.dice.hits(700) {
            world.warm_up()?;
        }
        let opened = |world: &World| world.checker.entries.get("open").copied().unwrap_or(0);
        for step in 0_u64.. {
            let enough = world.events() >= EVENTS_LEAST && opened(&world) >= STREAMS_LEAST;
            if step >= STEPS && (enough || step >= 5 * STEPS) {
                break;
            }
            world.step()?;
        }
        world.heal()?;
        if world.events() < EVENTS_LEAST || opened(&world) < STREAMS_LEAST {
            return broken("size", format!("{} events, {} streams", world.events(), opened(&world)));
        }
        Ok(())
    })();
    (verdict, world)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Shows the end of a failing seed's trace.
fn show(seed: u64, violation: &Violation) -> String {
    let (_, world) = run(seed, None, true);
    for line in world.trace.tail(if number("QKD_SEED").is_some() { usize::MAX } else { 100 }) {
        println!("{line}");
    }
    format!(
        "{}: {}\nreplay: QKD_SEED={seed} cargo test -p qkd-daemon --test agreement_simulation every_schedule",
        violation.invariant, violation.what
    )
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
    let first = number("QKD_FIRST_SEED").unwrap_or(0);
    let seeds = match number("QKD_SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + number("QKD_SEEDS").unwrap_or(SEEDS),
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
                Ok(Err((seed, violation))) => panic!("{}", show(seed, &violation)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    println!("{seeds:?}: {tally}");
    tally.is_complete(seeds.end - seeds.start);
}

#[test]
fn a_planted_defect_is_caught() {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let parts = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..parts {
            scope.spawn(|| {
                while let Some(mutant) =
                    Mutant::ALL.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).copied()
                {
                    let caught = (0..2_000).find_map(|seed| {
                        run(seed, Some(mutant), false).0.err().map(|violation| (seed, violation.invariant))
                    });
                    let (seed, invariant) =
                        caught.unwrap_or_else(|| panic!("{mutant:?} went unnoticed in 2000 schedules"));
                    println!("{mutant:?}: {invariant} after {} schedules", seed + 1);
                }
            });
        }
    });
}
