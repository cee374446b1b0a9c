//! The command line of `qkd-sim pair`.

use std::path::PathBuf;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::card::Identity;
use crate::link::{Optics, PairOptions, Weather};
use crate::plan::{Fault, FaultText, Plan, read_plan};

/// Where key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyKind {
    /// Random octets.
    Random,
    /// Positional test key: each cell of 16 octets names its session, sequence and offset. The cards say so.
    Positional,
}

/// Arguments of the subcommand.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = FAULT_HELP)]
pub struct Args {
    /// Socket of card A, the transmitter. A file that nobody listens on is replaced.
    #[arg(long, value_name = "PATH")]
    pub socket_a: PathBuf,
    /// Socket of card B, the receiver.
    #[arg(long, value_name = "PATH")]
    pub socket_b: PathBuf,
    /// Secret key rate in bit/s, with k or M: 1k, 10M, 115.8M. The loss of the link follows from it.
    #[arg(long, value_parser = bits_per_second, conflicts_with = "loss_db", value_name = "RATE")]
    pub rate: Option<f64>,
    /// Loss of the link in dB; the rate follows from it. Without either, the rate is 1M.
    #[arg(long, value_name = "DB")]
    pub loss_db: Option<f64>,
    /// Systems side by side on one fibre, each at a wavelength of its own: the greatest rate is 146.9M for each.
    #[arg(long, default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub channels: u32,
    /// How often the link stops by itself.
    #[arg(long, value_enum, default_value = "field")]
    pub weather: Weather,
    /// What the key is made of.
    #[arg(long, value_enum, default_value = "random")]
    pub key: KeyKind,
    /// Repeats a run: drift, delays, random faults, and random key, which is no secret then.
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Payload bytes that each card retains at most.
    #[arg(long, default_value_t = Identity::RETENTION_BYTES, value_name = "BYTES")]
    pub retention_bytes: u64,
    /// Blocks that each card retains at most.
    #[arg(long, default_value_t = Identity::RETENTION_BLOCKS, value_name = "BLOCKS")]
    pub retention_blocks: u32,
    /// Largest payload of a block in bytes, a multiple of 64.
    #[arg(long, default_value_t = Identity::BLOCK_MAX, value_name = "BYTES")]
    pub block_max: u32,
    /// A fault, for example "at=3s end=b kind=lose-block count=1". May be given several times.
    #[arg(long, value_name = "FAULT")]
    pub fault: Vec<FaultText>,
    /// A TOML file of faults: tables `[[fault]]` with the same names.
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Faults while the pair runs: reads one on each line from a file, a FIFO, or standard input for "-". `at` counts
    /// from the line on and may be left out. Each line is answered on standard output: "fault done LINE" once it has
    /// struck, or "fault refused: REASON".
    #[arg(long, value_name = "FILE")]
    pub faults_from: Option<PathBuf>,
    /// Leave VFIO's error interrupt out, which tells that a card is gone. QEMU stops its guest at one.
    #[arg(long)]
    pub no_error_interrupt: bool,
    /// Random faults of the kinds from which a system recovers by itself, so many a minute on average.
    #[arg(long, default_value_t = 0.0, value_name = "PER_MINUTE")]
    pub random_faults: f64,
    /// Keeps serial numbers, session counters and cells from one run to the next.
    #[arg(long, value_name = "FILE")]
    pub state_file: Option<PathBuf>,
    /// Prints a line of JSON each second.
    #[arg(long)]
    pub json: bool,
}

pub(super) const FAULT_HELP: &str = "\
Faults are words name=value: at (when, since the start, or since the line with --faults-from), end (a, b or both; both
unless given), kind, count (1 unless given), for (1s unless given). Times are a number with us, ms, s, m or h. Kinds:
  lose-block            the next count blocks are lost at this end
  duplicate             count blocks are delivered twice
  out-of-order          count pairs of blocks come in the wrong order
  bad-crc               count blocks have a payload that does not match its check
  bad-header-crc        count blocks have a header that does not match its check
  bad-event-crc         count events do not match their check
  length                count blocks claim a length beyond their slot
  foreign-session       count blocks name a session that was never begun
  skip-event            the events of count blocks are never written
  overflow              the next count blocks are refused as if retention were full
  realign               the link is realigned for this long; the session goes on
  outage                the link is dark for this long; the session ends
  qber                  the error rate is too high for this long
  no-authentication-key the classical channel has no authentication key for this long; the session ends
  power-loss            the card loses power for a moment: what it retained is gone
  freeze                the card does nothing for this long; its heartbeat stops
  gone                  the card reads all ones for this long and comes back as from power loss
  self-test             the next count self-tests write a wrong pattern
  boot-fails            the next boot from power-on or RESET ends in Fault, code SelfTest
  internal              the card enters Fault with code Internal
  temperature           the card enters Fault with code Temperature
  non-volatile          the card enters Fault with code NonVolatile, for good
  tamper                the card erases its keys and enters Fault with code Tamper, for good
  device-id             the card shows another PCI device identifier
  version               the card claims a newer major version of its contract
  own-identity          the card shows its own identifier and version again, the version from its next reset on";

/// Options that cannot be met.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadOptions {
    /// No link gives that rate.
    #[error("{asked:.0} bit/s cannot be had; ask for 1 to {most:.0} bit/s, for example --rate 10M")]
    Rate {
        /// What was asked for.
        asked: f64,
        /// What a link without loss gives.
        most: f64,
    },
    /// The number of random faults is not one.
    #[error("{0} random faults a minute: give a number from 0 to 60000")]
    RandomFaults(f64),
    /// A fault or a plan cannot be read.
    #[error(transparent)]
    Fault(#[from] crate::plan::BadFault),
}

impl Args {
    /// Options of the pair. `fresh` draws what no seed was given for.
    pub(crate) fn pair_options(
        &self,
        serials: [u64; 2],
        fresh: &mut ChaCha12Rng,
    ) -> Result<PairOptions, BadOptions> {
        let optics = Optics { channels: self.channels, ..Optics::RECORD };
        let loss_db = match (self.loss_db, self.rate.unwrap_or(1e6)) {
            (Some(loss_db), _) => loss_db,
            (None, asked) => optics
                .loss_for(asked)
                .ok_or_else(|| BadOptions::Rate { asked, most: optics.usually(0.0).secret_bit_s })?,
        };
        // Two independent seeds: what can be told about a run must not tell its key.
        let seed = self.seed.unwrap_or_else(|| fresh.next_u64());
        let mut key_seed = [0; 32];
        match self.seed {
            Some(given) => ChaCha12Rng::seed_from_u64(!given).fill_bytes(&mut key_seed),
            None => fresh.fill_bytes(&mut key_seed),
        }
        Ok(PairOptions {
            optics,
            loss_db,
            seed,
            key_seed: (self.key == KeyKind::Random).then_some(key_seed),
            weather: self.weather,
            serials,
            block_max: self.block_max,
            retention_bytes: self.retention_bytes,
            retention_blocks: self.retention_blocks,
        })
    }

    /// The faults of command line and file, and the random ones.
    pub(crate) fn fault_plan(&self, seed: u64) -> Result<Plan, BadOptions> {
        if !(0.0..=60_000.0).contains(&self.random_faults) {
            return Err(BadOptions::RandomFaults(self.random_faults));
        }
        let mut faults: Vec<Fault> = self.fault.iter().copied().map(Fault::from).collect();
        if let Some(path) = &self.plan {
            faults.extend(read_plan(path)?);
        }
        Ok(Plan::named(faults).with_random(seed, self.random_faults))
    }
}

/// A rate with an optional k, M or G.
fn bits_per_second(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.chars().last() {
        Some('k' | 'K') => (text.get(..text.len() - 1), 1e3),
        Some('M') => (text.get(..text.len() - 1), 1e6),
        Some('G') => (text.get(..text.len() - 1), 1e9),
        _ => (Some(text), 1.0),
    };
    match number.unwrap_or_default().parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number * unit),
        _ => Err(format!("{text:?} is no rate; write for example 1k, 10M or 115.8M (bit/s)")),
    }
}
