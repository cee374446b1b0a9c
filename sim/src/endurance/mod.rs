//! The whole system as real processes, with both daemons killed, stopped and started again at random instants, the peer
//! link cut, slowed and reset, and troubles of KMSs and cards: nothing may be wrong, and every stream must go on by itself.

mod daemon;
mod endings;
mod losses;
mod outcome;
mod plan;
mod progress;
mod strikes;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::check::{CheckError, CountedLosses, judge};
use crate::stage::cast::{Cast, Script};
use crate::stage::picture::Picture;
use crate::stage::process::ProcessError;
use crate::stage::{Interruption, Places, Say, StageError};
use outcome::Shown;
use plan::Plan;
use progress::Progress;
use strikes::Strikes;

/// What each stream asks for. Beside the usual ones: chunks that fit no block evenly and span two, large ones in a
/// limited stream of higher priority, and keys that expire while a daemon or a KMS is away.
const STREAMS: [&str; 5] = [
    "chunk-size=32",
    "chunk-size=48 priority=1 max-bps=200000",
    "chunk-size=1024 priority=2 max-bps=400000",
    "chunk-size=64 min-bps=50000",
    "chunk-size=16 ttl=2",
];
/// KMSs report so often; what is told of pauses is as fine as that.
const REPORT_EVERY: &str = "100ms";
/// Chunks of which a KMS remembers the digest: as many as a daemon may send again that was killed.
const REMEMBERED: &str = "131072";
/// Memory for key at each daemon: locked and wiped at each start, which takes its time.
const VAULT_BYTES: u64 = 16 << 20;
/// Longest time until keys come at both ends.
const FIRST_KEY_WITHIN: Duration = Duration::from_secs(90);
/// Time between two looks at the processes.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Streams that did not resume and are named.
const MOST_SILENT_TOLD: usize = 3;
/// Complaints after which a run is given up.
const MOST_COMPLAINTS: usize = 10;

const EXIT_CODES: &str = "\
A round is a few faults at random instants that may overlap; each has a kill -9. The round is over when every stream has
received again at both ends without a new open.

Exit codes: 0 nothing was wrong, and every stream went on by itself after every round, 1 not so, 2 the system could not
be run.";

/// Arguments of the subcommand.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// Ends after so many kills of a daemon.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    kills: u64,
    /// Repeats the plan of faults and the link's behaviour; not what the operating system does in between.
    #[arg(long)]
    seed: Option<u64>,
    /// Longest time until every stream has received again, once a round's faults are over and both daemons are ready.
    #[arg(long, default_value = "30s", value_parser = crate::kms::duration, value_name = "DURATION")]
    recovers_within: Duration,
    /// Also lose ledgers and restore them from backups. Streams end by that, and the KMSs open new ones.
    #[arg(long)]
    ledger_faults: bool,
    /// Secret key rate of the link in bit/s: 1k, 10M, 115.8M.
    #[arg(long, default_value = "2M")]
    rate: String,
    /// Say everything as lines of JSON.
    #[arg(long)]
    json: bool,
    /// Keep histories, logs, ledgers and configurations in this directory, which must be new or empty.
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
    /// The daemon's program; otherwise `qkdd` beside this program.
    #[arg(long, value_name = "FILE")]
    qkdd: Option<PathBuf>,
}

/// The run could not be brought to its end.
#[derive(Debug, thiserror::Error)]
enum EnduranceError {
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error("no key came at both ends of every stream within {} s", FIRST_KEY_WITHIN.as_secs())]
    NoKey,
    #[error("cannot read the losses in {path}: {source}")]
    Log { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Check(#[from] CheckError),
}

impl From<ProcessError> for EnduranceError {
    fn from(error: ProcessError) -> Self {
        StageError::from(error).into()
    }
}

/// Runs the subcommand until the kills are done and everything is cleared up.
pub fn run(args: Args) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| EnduranceError::from(StageError::Runtime(error)));
    match runtime.and_then(|runtime| runtime.block_on(stage(&args))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log::error!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Sets the stage, strikes, and clears up. True if all went well.
async fn stage(args: &Args) -> Result<bool, EnduranceError> {
    let mut places = Places::new("qkd-endurance-", args.keep.as_deref(), args.qkdd.as_deref())?;
    let mut interruption = Interruption::new().map_err(StageError::Runtime)?;
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let script = script(args, seed);
    let started = tokio::select! {
        started = Cast::start(&script, &places) => started,
        () = interruption.wait() => return Err(StageError::Interrupted.into()),
    };
    let (cast, result) = match started {
        Err((cast, error)) => (cast, Err(error.into())),
        Ok(cast) => {
            let mut run = Run::new(args, seed, script, &places, cast);
            let result = tokio::select! {
                result = run.play() => result,
                () = interruption.wait() => Err(StageError::Interrupted.into()),
            };
            (Some(run.cast), result)
        }
    };
    if let Some(mut cast) = cast {
        cast.end().await;
        if !matches!(result, Ok(true) | Err(EnduranceError::Stage(StageError::Interrupted))) {
            let last: String = cast.all().map(|process| process.last_lines()).collect();
            eprint!("{last}");
            if let Some(kept) = places.keep() {
                eprintln!("histories, logs and ledgers are kept in {}", kept.display());
            }
        }
    }
    result
}

/// A seed for those who have none: short enough to be typed again.
fn fresh_seed() -> u64 {
    let (seed, ..) = uuid::Uuid::new_v4().as_fields();
    seed.into()
}

fn script(args: &Args, seed: u64) -> Script {
    let mut script = Script {
        rate: args.rate.clone(),
        seed: Some(seed),
        streams: u32::try_from(STREAMS.len()).unwrap_or(u32::MAX),
        largest_chunk: 1024,
        vault_bytes: VAULT_BYTES,
        // Shorter than the KMSs' lateness: they answer when the module has given up.
        more: "[push]\nanswer_deadline_ms = 1000\n",
        ..Script::default()
    };
    script.pair.extend(["--faults-from".into(), "-".into()]);
    let [both, a, _] = &mut script.kms;
    both.extend(["--troubles-from", "-", "--report-every", REPORT_EVERY].map(Into::into));
    both.extend(["--insist", "--sample-above", "100", "--remember", REMEMBERED].map(Into::into));
    if args.ledger_faults {
        both.push("--reopen".into());
    }
    a.extend(STREAMS.iter().flat_map(|qos| ["--also".to_owned(), (*qos).to_owned()]));
    script
}

struct Run<'a> {
    args: &'a Args,
    seed: u64,
    script: Script,
    places: &'a Places,
    cast: Cast,
    say: Say,
    picture: Picture,
    strikes: Strikes,
    recoveries: Vec<Duration>,
    begun: Instant,
}

impl<'a> Run<'a> {
    fn new(args: &'a Args, seed: u64, script: Script, places: &'a Places, cast: Cast) -> Self {
        let say = Say { json: args.json };
        let (picture, strikes, begun) = (Picture::default(), Strikes::new(), Instant::now());
        Self { args, seed, script, places, cast, say, picture, strikes, recoveries: Vec::new(), begun }
    }

    async fn play(&mut self) -> Result<bool, EnduranceError> {
        self.say.text(&format!(
            "two cards, two daemons and two KMSs are up; {} key streams, link at {} bit/s, seed {}",
            STREAMS.len(),
            self.args.rate,
            self.seed
        ));
        let mut progress = Progress::new(STREAMS.len());
        while !progress.look(&self.picture) {
            if progress.waited() > FIRST_KEY_WITHIN {
                return Err(EnduranceError::NoKey);
            }
            self.look().await?;
        }
        self.say.text("keys arrive at both ends of every stream");
        self.begun = Instant::now();
        let mut plan = Plan::new(self.seed, self.args.ledger_faults);
        let mut rounds = 0;
        let mut goes_on = true;
        while goes_on && self.strikes.kills() < self.args.kills {
            rounds += 1;
            goes_on = self.round(rounds, plan.round()).await?;
        }
        self.finish(rounds).await
    }

    /// One round. False: it has not ended well, and nothing more can be learned.
    async fn round(&mut self, number: u64, round: plan::Round) -> Result<bool, EnduranceError> {
        let pause = Instant::now() + round.pause;
        while Instant::now() < pause {
            self.look().await?;
        }
        let deeds: Vec<_> = round.strikes.iter().map(|strike| strike.deed.to_string()).collect();
        self.strikes.begin(round.strikes);
        while !self.strikes.healed() {
            for said in self.look().await? {
                self.say.text(&format!("{:>7.1} s  {said}", self.begun.elapsed().as_secs_f64()));
            }
            if self.strikes.complaints.len() >= MOST_COMPLAINTS {
                return Ok(false);
            }
        }
        let mut progress = Progress::new(STREAMS.len());
        while !progress.look(&self.picture) {
            self.look().await?;
            if progress.waited() > self.args.recovers_within {
                let silent = progress.silent(&self.picture);
                let complaint = format!(
                    "round {number} ({}) was over for {} s: {}{}",
                    deeds.join(", "),
                    self.args.recovers_within.as_secs(),
                    silent.iter().take(MOST_SILENT_TOLD).cloned().collect::<Vec<_>>().join("; "),
                    if silent.len() > MOST_SILENT_TOLD { " and more" } else { "" }
                );
                self.say.text(&complaint);
                self.strikes.complaints.push(complaint);
                return Ok(false);
            }
        }
        self.recoveries.push(progress.waited());
        let [a, b] = self.picture.chunks();
        self.say.text(&format!(
            "{:>7.1} s  round {number}: every stream goes on at both ends {:.1} s after the last fault; {} kills; chunks A \
             {a}, B {b}",
            self.begun.elapsed().as_secs_f64(),
            progress.waited().as_secs_f64(),
            self.strikes.kills(),
        ));
        Ok(true)
    }

    /// Waits a little, does what is due to be done to the system, and takes in what the processes have said.
    async fn look(&mut self) -> Result<Vec<String>, EnduranceError> {
        tokio::time::sleep(LOOK_EVERY).await;
        let said = self.strikes.look(&mut self.cast, &self.script, self.places).await?;
        for line in self.cast.pair.lines() {
            if line.starts_with("fault refused") {
                self.strikes.complaints.push(line.clone());
            }
            self.picture.pair_line(&line);
        }
        for (end, kms) in self.cast.kms.iter().enumerate() {
            for line in kms.lines() {
                self.picture.kms_line(end, &line);
            }
        }
        // The daemons are looked after above.
        for process in self.cast.kms.iter_mut().chain(std::iter::once(&mut self.cast.pair)) {
            process.check_alive()?;
        }
        Ok(said)
    }

    async fn finish(&mut self, rounds: u64) -> Result<bool, EnduranceError> {
        let lasted = self.begun.elapsed();
        self.say.text("both KMSs close their streams");
        let each = self.picture.kms.iter().flat_map(|kms| &kms.each);
        let alive: BTreeSet<Uuid> = each.filter_map(|each| each.stream.parse().ok()).collect();
        let closed = self.cast.close_streams().await;
        let left = self.cast.leave().await;
        let mut counted = CountedLosses::default();
        let mut lost = [0; 2];
        for (end, (sum, name)) in lost.iter_mut().zip(["qkdd-a.log", "qkdd-b.log"]).enumerate() {
            let path = self.places.directory.join(name);
            *sum = losses::read(&path, end, &mut counted)
                .map_err(|source| EnduranceError::Log { path: path.clone(), source })?;
        }
        let verdict = judge(&self.places.history(0), &self.places.history(1), counted)?;
        let [a, b] = [self.places.history(0), self.places.history(1)];
        let endings = endings::read([&a, &b], &alive).map_err(CheckError::from)?;
        let mut complaints = std::mem::take(&mut self.strikes.complaints);
        complaints.extend([closed, left].into_iter().filter_map(|result| Some(result.err()?.to_string())));
        if self.picture.equal != self.picture.sampled {
            complaints.push("sampled chunks differed while running".into());
        }
        if endings.ended > 0 && (endings.told == 0 || !self.args.ledger_faults) {
            complaints
                .push(format!("{} streams ended, {} of them with a notice", endings.ended, endings.told));
        }
        let shown = Shown {
            seed: self.seed,
            lasted,
            rounds,
            kills: self.strikes.kills(),
            struck: &self.strikes.struck,
            missed: self.strikes.missed,
            recoveries: &self.recoveries,
            lost,
            endings,
            verdict: &verdict,
            complaints: &complaints,
        };
        if self.args.json {
            self.say.line(&shown.json().to_string());
        } else {
            self.say.line(shown.text().trim_end());
        }
        Ok(shown.good())
    }
}
