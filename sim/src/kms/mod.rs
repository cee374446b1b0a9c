//! The reference KMS: opens or joins key streams at a QKD module, receives their key, checks and records it.

mod body;
mod client;
mod driver;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handover;
mod journal;
mod module;
mod place;
mod receiver;
mod report;
mod samples;
mod stream;
mod trouble;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

pub use handover::Ids;
pub use module::{Form, QosArgs, QosText};
pub use stream::KeyKind;
pub use trouble::{Kind, Trouble, duration};

use crate::history::now;
use crate::history::record::{Header, Line, VERSION};
use crate::history::write::Recorder;
use crate::secure::{BadFile, Tls, TlsArgs};
use driver::{Driver, Seats};
use journal::Journal;
use place::Place;
use receiver::Receiver;
use report::{Report, Totals};

/// Most streams of one KMS process.
const MOST_STREAMS: u32 = 10_000;
/// Shortest time between two reports.
const LEAST_REPORT_EVERY: Duration = Duration::from_millis(10);
/// Longest time for stopping the server.
const STOP_WITHIN: Duration = Duration::from_secs(3);

const EXIT_CODES: &str = "\
Exit codes: 0 every stream received key, was closed, and every check was good, 1 not so, 2 the KMS could not work at all.";

/// Arguments of the subcommand.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("role").required(true), after_help = EXIT_CODES)]
#[command(group = clap::ArgGroup::new("reopens").args(["open", "join_from"]))]
pub struct Args {
    /// Where to receive key-material: an address, of which port 0 takes a free one, or the absolute path of a UNIX socket.
    /// Printed as `listening ADDRESS`.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: Place,
    /// Base URL of the QKD module, such as http://127.0.0.1:8001, or https with --certificate.
    #[arg(long, value_name = "URL")]
    module: String,
    /// URI of the source KMS.
    #[arg(long, value_name = "URI")]
    source: String,
    /// URI of the destination KMS.
    #[arg(long, value_name = "URI")]
    destination: String,
    /// Open streams: this KMS is the source, the module chooses the IDs.
    #[arg(long, group = "role")]
    open: bool,
    /// Open the stream with this ID, agreed beforehand (repeatable).
    #[arg(long = "stream", group = "role", value_name = "UUID")]
    predefined: Vec<Uuid>,
    /// Join the stream with this ID: this KMS is the destination (repeatable).
    #[arg(long, group = "role", value_name = "UUID")]
    join: Vec<Uuid>,
    /// Join the streams whose IDs come in this file, one a line, or on standard input (-).
    #[arg(long, visible_alias = "ids-in", group = "role", value_name = "FILE")]
    join_from: Option<Ids>,
    /// How many streams to open, or to join from the file.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_STREAMS)))]
    streams: u32,
    /// Write the IDs of opened streams to this file, one a line, for the other KMS.
    #[arg(long, value_name = "FILE")]
    ids_out: Option<PathBuf>,
    /// Open a new stream for each that the modules have ended, or join the next one whose ID comes in the file.
    #[arg(long, requires = "reopens")]
    reopen: bool,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    qos: QosArgs,
    /// Ask again where the quality of service cannot be met, until patience ends: the module may not know the link's rate
    /// yet.
    #[arg(long)]
    insist: bool,
    /// What the stream of this number asks for beyond that, counted from the first --also (repeatable): "chunk-size=64
    /// priority=2 ttl=5". Names as of the options.
    #[arg(long, value_name = "QOS")]
    also: Vec<QosText>,
    /// Method of get-key and close: as the interface says, or the POST extension.
    #[arg(long, value_enum, default_value_t = Form::Get)]
    form: Form,
    /// First index wanted, in get-key.
    #[arg(long)]
    index: Option<u32>,
    /// Close the streams after so many seconds; without it at SIGTERM or Ctrl-C.
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// Longest time until every stream must be receiving.
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "DURATION")]
    patience: Duration,
    /// Longest time for one call at the module.
    #[arg(long, default_value = "70s", value_parser = duration, value_name = "DURATION")]
    call_deadline: Duration,
    /// Time that late key-material is waited for after closing.
    #[arg(long, default_value = "500ms", value_parser = duration, value_name = "DURATION")]
    linger: Duration,
    /// Record the history in this file, which must not exist.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Write the KEYS THEMSELVES into the history. Whoever can read it has them; for experiments only.
    #[arg(long, requires = "history")]
    record_keys: bool,
    /// Chunks per second of one stream above which its chunks are recorded in runs.
    #[arg(long, default_value_t = 2000, value_name = "CHUNKS/S")]
    sample_above: u64,
    /// Chunks of each stream whose digest is remembered: one that comes again later than that cannot be compared.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 24), value_name = "CHUNKS")]
    remember: u32,
    /// What the keys should be: `positional` is the simulator's test key, of which every octet is checked.
    #[arg(long, value_enum, default_value_t = KeyKind::Auto)]
    key: KeyKind,
    /// Make trouble, counted from the first chunk: "at=5s kind=503 for=2s" (repeatable). Kinds: 503, 429, 400, hang,
    /// close-mid-answer, garbage-201, slow, late, accepted-then-500.
    #[arg(long, value_name = "TROUBLE")]
    trouble: Vec<Trouble>,
    /// Troubles while the KMS runs: reads one on each line from a file, a FIFO, or standard input for "-". `at` counts
    /// from the line on. One that cannot be is logged.
    #[arg(long, value_name = "FILE")]
    troubles_from: Option<PathBuf>,
    /// Time between two reports.
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "DURATION")]
    report_every: Duration,
    /// Say everything as lines of JSON.
    #[arg(long)]
    json: bool,
}

/// The KMS cannot work.
#[derive(Debug, thiserror::Error)]
enum KmsError {
    #[error("cannot create the history {path}: {source}{hint}", hint = exists_hint(.source))]
    History { path: PathBuf, source: io::Error },
    #[error("the history {path} is not complete: {source}")]
    HistoryLost { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Module(#[from] client::CallError),
    #[error(transparent)]
    Certificates(#[from] BadFile),
    #[error("cannot listen on {place}: {source}")]
    Listen { place: Place, source: io::Error },
    #[error("cannot learn the key stream IDs: {0}")]
    Ids(io::Error),
    #[error("--troubles-from {path}: {source}")]
    Troubles { path: PathBuf, source: io::Error },
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
}

fn exists_hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AlreadyExists {
        " (a history is never overwritten: move it away or name another file)"
    } else {
        ""
    }
}

/// Runs the subcommand until all streams have ended.
pub fn run(args: Args) -> ExitCode {
    match actix_web::rt::System::new().block_on(serve(args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log::error!("{error}");
            ExitCode::from(2)
        }
    }
}

async fn serve(args: Args) -> Result<bool, KmsError> {
    let mut signals = Signals::new().map_err(KmsError::Signals)?;
    let tls = Tls::read(&args.tls)?;
    let server = client::Server::new(&args.module, tls.clone())?;
    let recorder = match &args.history {
        None => None,
        Some(path) => {
            Some(Recorder::create(path).map_err(|source| KmsError::History { path: path.clone(), source })?)
        }
    };
    if args.record_keys {
        log::warn!("the keys themselves are written to the history; whoever can read it has them");
    }
    let journal = Journal::new(recorder, args.record_keys);
    let joins = args.join_from.is_some() || !args.join.is_empty();
    journal.record(&Line::History(Header {
        version: VERSION,
        recording: Uuid::new_v4(),
        kms: if joins { args.destination.clone() } else { args.source.clone() },
        source: args.source.clone(),
        destination: args.destination.clone(),
        module: args.module.clone(),
        t: now(),
    }));
    let sample_above = if args.record_keys { u64::MAX } else { args.sample_above };
    let receiver = Arc::new(Receiver::new(
        journal,
        trouble::Plan::new(args.trouble.clone()),
        stream::Watch {
            kind: args.key,
            sample_above,
            remembered: usize::try_from(args.remember).unwrap_or(usize::MAX),
        },
    ));
    if let Some(path) = &args.troubles_from {
        follow_troubles(path, Arc::clone(&receiver))
            .map_err(|source| KmsError::Troubles { path: path.clone(), source })?;
    }
    let (http, http_handle, bound) = receiver::serve(Arc::clone(&receiver), &args.listen, tls)
        .map_err(|source| KmsError::Listen { place: args.listen.clone(), source })?;
    let http = actix_web::rt::spawn(http);
    report::say(&format!("listening {bound}"));

    let ids = tokio::select! {
        ids = stream_ids(&args) => ids,
        () = signals.next() => Err(io::Error::new(io::ErrorKind::Interrupted, "stopped by a signal before they came")),
    };
    let result = match ids {
        Ok(ids) => Ok(receive(&args, server, receiver, ids, joins, signals).await),
        Err(error) => Err(KmsError::Ids(error)),
    };
    if tokio::time::timeout(STOP_WITHIN, http_handle.stop(false)).await.is_err() {
        log::warn!("the server did not stop within {} s", STOP_WITHIN.as_secs());
    }
    http.abort();
    let (good, driver) = result?;
    driver
        .receiver
        .journal
        .finish(now())
        .map_err(|source| KmsError::HistoryLost { path: args.history.clone().unwrap_or_default(), source })?;
    Ok(good)
}

/// Plans the troubles that are asked for while the KMS runs.
fn follow_troubles(path: &std::path::Path, receiver: Arc<Receiver>) -> io::Result<()> {
    crate::lines::follow(path, move |line| {
        match line.and_then(|line| line.parse::<Trouble>()) {
            Ok(trouble) if receiver.plan(trouble) => {}
            Ok(_) => log::error!("no trouble before the first chunk"),
            Err(why) => log::error!("trouble refused: {why}"),
        }
        true
    })
}

/// The ID of each stream; `None` where the module is to choose.
async fn stream_ids(args: &Args) -> io::Result<Vec<Option<Uuid>>> {
    let count = usize::try_from(args.streams).map_err(io::Error::other)?;
    Ok(match &args.join_from {
        Some(from) => handover::take(from, count, args.patience).await?.into_iter().map(Some).collect(),
        None if args.open => vec![None; count],
        None => args.join.iter().chain(&args.predefined).copied().map(Some).collect(),
    })
}

/// Receives key until the user or the clock says stop, and closes the streams.
async fn receive(
    args: &Args,
    server: client::Server,
    receiver: Arc<Receiver>,
    ids: Vec<Option<Uuid>>,
    joins: bool,
    mut signals: Signals,
) -> (bool, Arc<Driver>) {
    let (stop, stopped) = watch::channel(false);
    let driver = Arc::new(Driver {
        module: module::Module {
            server,
            source: args.source.clone(),
            destination: args.destination.clone(),
            qos: (0..ids.len())
                .map(|number| {
                    args.also.get(number).map_or_else(|| args.qos.clone(), |also| also.over(&args.qos))
                })
                .collect(),
            insist: args.insist,
            form: args.form,
            deadline: args.call_deadline,
        },
        receiver,
        seats: Seats::new(ids.len()),
        ids_out: args.ids_out.clone(),
        reopen: args.reopen,
        ids_in: args.join_from.clone(),
        taken: ids.len().into(),
        index: args.index,
        patience: args.patience,
        stop: stopped,
    });
    let mut streams = JoinSet::new();
    for (number, id) in ids.into_iter().enumerate() {
        let driver = Arc::clone(&driver);
        streams.spawn(async move { driver.run(number, id, joins).await });
    }
    let mut report = Report::new(args.json);
    let mut ticks = tokio::time::interval(args.report_every.max(LEAST_REPORT_EVERY));
    let mut good = true;
    let mut receiving_since = None;
    loop {
        tokio::select! {
            ended = streams.join_next() => match ended {
                None => break,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => {
                    log::error!("{error}");
                    good = false;
                }
                Some(Err(error)) => {
                    log::error!("a stream ended early: {error}");
                    good = false;
                }
            },
            () = signals.next() => {
                // Nobody listens only when all streams have ended.
                let _ = stop.send(true);
            }
            _ = ticks.tick() => {
                for slot in driver.receiver.slots() {
                    slot.lock().write_duplicates(&driver.receiver.journal);
                }
                report.tick(&driver);
                let totals = Totals::of(&driver);
                if totals.receiving == totals.streams {
                    let since = receiving_since.get_or_insert_with(Instant::now);
                    if args.seconds.is_some_and(|seconds| since.elapsed() >= Duration::from_secs(seconds)) {
                        let _ = stop.send(true);
                    }
                }
            }
        }
    }
    tokio::time::sleep(args.linger).await;
    for slot in driver.receiver.slots() {
        slot.lock().flush(&driver.receiver.journal);
    }
    report.end(&driver);
    let totals = Totals::of(&driver);
    if totals.with_key < totals.streams {
        log::error!("{} of {} streams received no key", totals.streams - totals.with_key, totals.streams);
    }
    (good && totals.violations == 0 && totals.with_key == totals.streams, driver)
}

/// SIGTERM and Ctrl-C.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
