//! The whole system on one machine: two cards on one link, two daemons, two KMSs, as real processes on loopback.

mod memory;
mod outcome;
mod troubles;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::check::{CheckError, CountedLosses, judge};
use crate::stage::cast::{Cast, Script};
use crate::stage::picture::Picture;
use crate::stage::process::ProcessError;
use crate::stage::{Interruption, Places, Say, StageError};
use memory::Memory;
use outcome::Shown;
use troubles::{Kind, News, Trouble};

/// Shortest time in which every trouble finds its place.
const LEAST_SECONDS: u64 = 8;
/// How long each trouble lasts that has a length.
const TROUBLE_LASTS: Duration = Duration::from_secs(1);
/// Longest time until keys come at both ends.
const FIRST_KEY_WITHIN: Duration = Duration::from_secs(90);
/// Memory for key at each daemon, as qkdd has it by default.
const VAULT_BYTES: u64 = 64 << 20;
/// Time between two looks at the processes.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time between two progress lines.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// Time from the start of the pair to the first key, about.
const START_TAKES: Duration = Duration::from_secs(3);
/// How long after the end of the run a recovery may still come.
const GRACE: Duration = Duration::from_secs(15);

const EXIT_CODES: &str = "\
Exit codes: 0 both KMSs got the same keys on every stream, and keys went on at both ends after every trouble, 1 not so,
2 the system could not be shown.";

/// Arguments of the subcommand.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// Seconds of delivery, counted from the first key.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Secret key rate of the link in bit/s: 1k, 10M, 115.8M.
    #[arg(long, default_value = "10M")]
    rate: String,
    /// Octets per key chunk.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    chunk_size: u32,
    /// Key streams, all of them at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    streams: u32,
    /// Without TLS, which otherwise protects every link with certificates that are made for the run.
    #[arg(long)]
    plain: bool,
    /// Let nothing go wrong.
    #[arg(long)]
    no_trouble: bool,
    /// Say everything as lines of JSON.
    #[arg(long)]
    json: bool,
    /// Repeats the link's behaviour.
    #[arg(long)]
    seed: Option<u64>,
    /// Keep histories, logs and configurations in this directory, which must be new or empty.
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
    /// The daemon's program; otherwise `qkdd` beside this program.
    #[arg(long, value_name = "FILE")]
    qkdd: Option<PathBuf>,
}

impl Args {
    fn fraction(&self, of_hundred: u32) -> Duration {
        Duration::from_secs(self.seconds) * of_hundred / 100
    }

    /// From the start of the pair.
    fn lost_block_at(&self) -> Duration {
        START_TAKES + self.fraction(10)
    }

    /// From the first key at KMS B.
    fn refusal_at(&self) -> Duration {
        self.fraction(30)
    }

    /// What the processes are to be like.
    fn script(&self) -> Script {
        let mut script = Script {
            rate: self.rate.clone(),
            seed: self.seed,
            streams: self.streams,
            largest_chunk: self.chunk_size,
            vault_bytes: VAULT_BYTES,
            tls: !self.plain,
            ..Script::default()
        };
        let [both, _, b] = &mut script.kms;
        both.extend(["--chunk-size".into(), self.chunk_size.to_string()]);
        if !self.no_trouble {
            let at = self.lost_block_at().as_millis();
            script.pair.extend(["--fault".into(), format!("at={at}ms end=b kind=lose-block count=1")]);
            let (at, lasts) = (self.refusal_at().as_millis(), TROUBLE_LASTS.as_millis());
            b.extend(["--trouble".into(), format!("at={at}ms kind=503 for={lasts}ms")]);
        }
        script
    }

    fn troubles(&self) -> Vec<Trouble> {
        if self.no_trouble {
            return Vec::new();
        }
        vec![
            Trouble::new(Kind::LostBlock, Duration::ZERO, Duration::ZERO),
            Trouble::new(Kind::KmsRefuses, self.refusal_at(), TROUBLE_LASTS),
            Trouble::new(Kind::PeerLinkCut, self.fraction(60), TROUBLE_LASTS),
        ]
    }
}

/// The demonstration could not be shown.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("{LEAST_SECONDS} seconds are needed for the troubles; give more --seconds or --no-trouble")]
    TooShort,
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("no key came at both ends of every stream within {} s", FIRST_KEY_WITHIN.as_secs())]
    NoKey,
    #[error(transparent)]
    Check(#[from] CheckError),
}

/// Runs the subcommand until the demonstration is over and everything is cleared up.
pub fn run(args: Args) -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StageError::Runtime);
    let shown = runtime.map_err(DemoError::from).and_then(|runtime| runtime.block_on(stage(&args)));
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log::error!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Sets the stage, plays, and clears up. True if all went well.
async fn stage(args: &Args) -> Result<bool, DemoError> {
    if args.seconds < LEAST_SECONDS && !args.no_trouble {
        return Err(DemoError::TooShort);
    }
    let mut places = Places::new("qkd-demo-", args.keep.as_deref(), args.qkdd.as_deref())?;
    let mut interruption = Interruption::new().map_err(StageError::Runtime)?;
    let script = args.script();
    let started = tokio::select! {
        started = Cast::start(&script, &places) => started,
        () = interruption.wait() => return Err(StageError::Interrupted.into()),
    };
    let (cast, result) = match started {
        Err((cast, error)) => (cast, Err(error.into())),
        Ok(mut cast) => {
            let result = tokio::select! {
                result = play(args, &places, &mut cast) => result,
                () = interruption.wait() => Err(StageError::Interrupted.into()),
            };
            (Some(cast), result)
        }
    };
    if let Some(mut cast) = cast {
        cast.end().await;
        if !matches!(result, Ok(true) | Err(DemoError::Stage(StageError::Interrupted))) {
            let last: String = cast.all().map(|process| process.last_lines()).collect();
            eprint!("{last}");
            if let Some(kept) = places.keep() {
                eprintln!("histories and logs are kept in {}", kept.display());
            }
        }
    }
    result
}

async fn play(args: &Args, places: &Places, cast: &mut Cast) -> Result<bool, DemoError> {
    let say = Say { json: args.json };
    say.text(&format!(
        "two cards, two daemons and two KMSs are up, {}; {} key stream(s) of {}-octet chunks, link at {} bit/s",
        if args.plain { "without TLS" } else { "with TLS between them" },
        args.streams,
        args.chunk_size,
        args.rate
    ));
    let mut picture = Picture::default();
    let mut memory = Memory::default();
    let mut troubles = args.troubles();
    let until_key = Instant::now() + FIRST_KEY_WITHIN;
    let streams = u64::from(args.streams);
    while picture.kms.iter().any(|kms| kms.with_key < streams) {
        if Instant::now() >= until_key {
            return Err(DemoError::NoKey);
        }
        look(cast, &mut picture).await?;
    }
    say.text("keys arrive at both ends");

    let begun = Instant::now();
    let mark = picture.mark();
    let mut said = begun;
    loop {
        look(cast, &mut picture).await?;
        let now = begun.elapsed();
        for trouble in &mut troubles {
            for news in trouble.look(now, &picture) {
                match news {
                    News::Say(text) => say.text(&text),
                    News::CutPeerLink(cut) => {
                        if let Some(proxy) = &cast.proxy {
                            proxy.cut(cut);
                        }
                    }
                }
            }
        }
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            progress(say, now, &picture);
            for process in cast.all() {
                if let Some(id) = process.id() {
                    memory.sample(process.name, id);
                }
            }
        }
        let over = now.as_secs() >= args.seconds;
        let settled = troubles.iter().all(Trouble::recovered);
        if over && (settled || now >= Duration::from_secs(args.seconds) + GRACE) {
            break;
        }
    }
    let shares = picture.shares(&mark);
    say.text("both KMSs close their streams");
    let closed = cast.close_streams().await;
    // The cards' last word, after the last key was delivered.
    look(cast, &mut picture).await.or_else(|error| if closed.is_ok() { Ok(()) } else { Err(error) })?;
    let left = cast.leave().await;
    let verdict = judge(&places.history(0), &places.history(1), CountedLosses::default())?;
    let shown = Shown {
        args,
        verdict: &verdict,
        picture: &picture,
        troubles: &troubles,
        memory: memory.usage(),
        shares,
    };
    if args.json {
        say.line(&shown.json().to_string());
    } else {
        say.line(shown.text().trim_end());
    }
    let mut complaints = shown.complaints();
    complaints.extend([closed, left].into_iter().filter_map(|result| Some(result.err()?.to_string())));
    for complaint in &complaints {
        log::error!("{complaint}");
    }
    Ok(complaints.is_empty())
}

/// Waits a little, takes in what the processes have said, and makes sure that all of them live.
async fn look(cast: &mut Cast, picture: &mut Picture) -> Result<(), DemoError> {
    tokio::time::sleep(LOOK_EVERY).await;
    for line in cast.pair.lines() {
        picture.pair_line(&line);
    }
    for (end, kms) in cast.kms.iter().enumerate() {
        for line in kms.lines() {
            picture.kms_line(end, &line);
        }
    }
    for process in cast.all() {
        process.check_alive()?;
    }
    Ok(())
}

/// Tells the user how far it has come.
fn progress(say: Say, now: Duration, picture: &Picture) {
    let [a, b] = &picture.kms;
    if say.json {
        return say.line(
            &json!({
                "event": "progress", "seconds": now.as_secs(), "bit_per_s": [a.bit_per_s, b.bit_per_s],
                "chunks": picture.chunks(), "qber_percent": picture.qber_percent(), "sampled": picture.sampled,
                "equal": picture.equal, "violations": [a.violations, b.violations],
            })
            .to_string(),
        );
    }
    let [card, _] = &picture.cards;
    say.line(&format!(
        "{:>5} s  link {:>7.3} Mbit/s, QBER {:.2} %  delivered A {:>7.3}, B {:>7.3} Mbit/s  chunks A {:>9}, B {:>9}  \
         equal {}/{} sampled",
        now.as_secs(),
        card.secret_key_rate as f64 / 1e6,
        picture.qber_percent(),
        a.bit_per_s / 1e6,
        b.bit_per_s / 1e6,
        a.chunks,
        b.chunks,
        picture.equal,
        picture.sampled
    ));
}
