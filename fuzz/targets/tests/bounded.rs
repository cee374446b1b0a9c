//! Every target over its seeds, over what once broke it, and over a fixed number of seeded changes of both: the fuzzing that
//! runs with every test, on the stable toolchain. `QKD_FUZZ_TIMES` makes it longer, `QKD_FUZZ_SEED` other.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use qkd_fuzz_targets::mutate::{Dice, change};
use qkd_fuzz_targets::{DELIVERED, TAKEN, TARGETS, Target};

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Inputs that libFuzzer found, in fuzz/regressions.
fn regressions(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../regressions").join(target.name);
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    files.map(|file| std::fs::read(file.expect("a file").path()).expect("a file that can be read")).collect()
}

fn run(target: &Target, octets: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(octets))) {
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        eprintln!("{} breaks over: {hex}", target.name);
        resume_unwind(panic);
    }
}

/// Worlds in which nothing happens find nothing.
fn reaches(name: &str, what: &AtomicU64, least: u64) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    let before = what.load(Ordering::Relaxed);
    (target.seeds)().iter().for_each(|seed| run(target, seed));
    let reached = what.load(Ordering::Relaxed) - before;
    assert!(reached >= least, "{name}: only {reached} by all seeds");
}

#[test]
fn the_driver_takes_key_and_the_key_agreement_delivers_it() {
    reaches("card", &TAKEN, 50);
    reaches("peer_core", &DELIVERED, 50);
}

fn bounded(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    let mut inputs = (target.seeds)();
    assert!(!inputs.is_empty(), "{name} has no seeds");
    inputs.extend(regressions(target));
    for input in &inputs {
        assert!(input.len() <= target.longest, "{name}: a seed of {} octets", input.len());
        run(target, input);
    }
    let mut dice = Dice(number("QKD_FUZZ_SEED", 1));
    for _ in 0..u64::from(target.bounded) * number("QKD_FUZZ_TIMES", 1) {
        let mut input = inputs[dice.below(inputs.len())].clone();
        let other = &inputs[dice.below(inputs.len())];
        change(&mut input, other, &mut dice, target.longest);
        run(target, &input);
    }
}

macro_rules! each {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            bounded(stringify!($name));
        })*

        #[test]
        fn no_target_is_left_out() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

each! {
    api_body
    card
    config
    contract
    kms_body
    ledger_rows
    peer_core
    peer_frame
    push_answer
    vfio_user_client
    vfio_user_server
}

#[test]
fn each_target_has_a_program_for_libfuzzer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../libfuzzer");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
    for target in TARGETS {
        let program =
            std::fs::read_to_string(folder.join("fuzz_targets").join(format!("{}.rs", target.name)));
        assert!(program.expect("a program").contains(&format!("\"{}\"", target.name)), "{}", target.name);
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
    }
}
