//! The command line and the state file.

use std::os::unix::fs::PermissionsExt;

use clap::Parser;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use super::options::{Args, BadOptions};
use super::state_file::{BadState, Memories};
use crate::card::Remembered;
use crate::link::{Optics, PairOptions};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(more: &str) -> Result<Args, clap::Error> {
    let words = "pair --socket-a a --socket-b b".split(' ').chain(more.split_whitespace());
    Line::try_parse_from(words).map(|line| line.args)
}

fn options(more: &str, drawn: u64) -> Result<PairOptions, BadOptions> {
    args(more).unwrap().pair_options([1, 2], &mut ChaCha12Rng::seed_from_u64(drawn))
}

#[test]
fn a_rate_becomes_the_loss_that_gives_it() {
    for (text, rate) in [("1k", 1e3), ("10M", 1e7), ("115.8M", 115.8e6), ("250000", 250e3), ("0.01G", 1e7)] {
        let loss = options(&format!("--rate {text}"), 0).unwrap().loss_db;
        let given = Optics::RECORD.usually(loss).secret_bit_s;
        assert!((given / rate - 1.0).abs() < 1e-3, "{text}");
    }
    let many = options("--channels 16 --rate 1.6G", 0).unwrap();
    assert!((many.optics.usually(many.loss_db).secret_bit_s / 1.6e9 - 1.0).abs() < 1e-3, "{many:?}");
    assert!((options("--loss-db 12.5", 0).unwrap().loss_db - 12.5).abs() < 1e-9);
}

#[test]
fn rates_that_no_link_gives_are_refused_with_the_most_it_gives() {
    for text in ["0", "-5", "x", "k", "", "1kM", "nan", "inf"] {
        assert!(args(&format!("--rate={text}")).is_err(), "{text:?}");
    }
    let error = options("--rate 10G", 0).unwrap_err().to_string();
    assert!(error.contains("10000000000 bit/s cannot be had"), "{error}");
    assert!(args("--rate 1M --loss-db 3").is_err());
}

#[test]
fn without_a_seed_key_and_run_are_drawn_apart() {
    let one = options("", 1).unwrap();
    let other = options("", 2).unwrap();
    assert_ne!(one.seed, other.seed);
    assert_ne!(one.key_seed, other.key_seed);
    let (again, seeded) = (options("--seed 7", 1).unwrap(), options("--seed 7", 2).unwrap());
    assert_eq!((again.seed, again.key_seed), (seeded.seed, seeded.key_seed));
    assert_eq!(options("--key positional", 1).unwrap().key_seed, None);
}

#[test]
fn random_faults_are_a_number() {
    for bad in ["-1", "1e9", "nan"] {
        assert!(args(&format!("--random-faults={bad}")).unwrap().fault_plan(1).is_err());
    }
    assert!(args("--random-faults 6").unwrap().fault_plan(1).is_ok());
}

fn load(path: Option<&std::path::Path>) -> Result<Memories, BadState> {
    let mut next = 0;
    Memories::load(path, || {
        next += 1;
        next << 40
    })
}

#[test]
fn serials_counters_and_cells_outlive_the_pair() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pair.toml");
    let mut first = load(Some(&path)).unwrap();
    assert_ne!(first.serials[0], first.serials[1]);
    let remembered = Remembered { session_counter: 1 << 40, cell: 77 };
    first.memories[1].1.store(remembered).unwrap();
    let second = load(Some(&path)).unwrap();
    assert_eq!(second.serials, first.serials);
    assert_eq!(second.memories[1].0, remembered);
    assert_eq!(second.memories[0].0, first.memories[0].0);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
}

#[test]
fn without_a_state_file_no_session_number_comes_again() {
    let first = load(None).unwrap();
    assert!(first.memories.iter().all(|(remembered, _)| remembered.session_counter > 17_000_000_000));
    assert!(first.serials.iter().all(|&serial| serial != 0 && serial != u64::MAX));
}

#[test]
fn a_state_file_that_cannot_be_trusted_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pair.toml");
    for text in ["", "a = 1", "[a]\nserial = 1\nsession_counter = 1\ncell = -1\n"] {
        std::fs::write(&path, text).unwrap();
        assert!(matches!(load(Some(&path)), Err(BadState::Content { .. })), "{text:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    assert!(matches!(load(Some(&folder.path().join("no/such"))), Err(BadState::Io { .. })));
}

#[test]
fn a_memory_that_cannot_be_written_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pair.toml");
    let mut memories = load(Some(&path)).unwrap();
    drop(folder);
    assert!(memories.memories[0].1.store(Remembered::default()).is_err());
}
