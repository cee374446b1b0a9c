//! What a push costs: `push_bench [OPTIONS]`, which `./dev bench` builds and starts.
//!
//! Two simulated cards, two daemons and a sink run as processes of their own, with ledgers on a disk and mutual TLS between the
//! daemons. In each round key streams are opened through the API, the time on processors that each process takes is held
//! against the chunks that came, the streams are closed, and wrk sends the same request to the same sink, on as many
//! connections and as many at once. Rates are of this machine; their ratios travel. Exit code 0: nothing was lost, repeated or
//! out of order, and both ends got the same key.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::unistd::Pid;
use qkd_tests::DEADLINE;
use qkd_tests::process::Process;
use qkd_tests::push_bench::figures::{Cpu, Work, median};
use qkd_tests::push_bench::processors::{Processors, measured};
use qkd_tests::push_bench::sample_request;
use qkd_tests::push_bench::sink;
use qkd_tests::push_bench::stage::{Setting, Stage};
use qkd_tests::push_bench::wrk::{self, Load};
use qkd_tests::push_bench::{idle, light, long};

/// The daemon's own bound on octets on their way, `push.most_bytes_in_flight`.
const MOST_BYTES_IN_FLIGHT: usize = 90_112;
/// From the first key to the first measurement: the window has widened, and what was in the vault at first is pushed.
const WARM_UP: Duration = Duration::from_secs(2);

/// Greatest rates of streams in bit/s, with --mixed.
const MIXED: [u64; 7] = [16_000, 1_000_000, 32_000, 256_000, 64_000, 512_000, 128_000];

/// Pushes per CPU-second of both daemons, and of wrk against the same sink.
#[derive(Debug, Parser)]
struct Args {
    /// Push over plain HTTP; API and peer link keep their mutual TLS.
    #[arg(long, conflicts_with = "tls")]
    plain: bool,
    /// Push over mutual TLS, which is the default.
    #[arg(long)]
    tls: bool,
    /// Push through UNIX sockets, as to a KMS on the same machine. wrk, which has none, goes over TCP all the same.
    #[arg(long, conflicts_with = "light")]
    unix: bool,
    /// Octets of a key chunk, for example 32, 256, 4096 or 65536.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    chunk: u32,
    /// Requests of one stream that may be on their way at once: push.most_in_flight.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=256))]
    window: u32,
    /// Key streams, each with a connection of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    streams: u16,
    /// The streams have greatest rates from 16 kb/s to 1 Mb/s, one like none of its neighbours.
    #[arg(long)]
    mixed: bool,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Rounds: one measurement of the daemons and one of wrk.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Secret key rate of the simulated link, as qkd-sim pair takes it.
    #[arg(long, default_value = "146M")]
    rate: String,
    /// Systems on the simulated link's fibre: each gives up to 146.9M.
    #[arg(long, default_value_t = 1)]
    channels: u32,
    /// Greatest octets of a block, as qkd-sim pair takes it; otherwise what it takes by itself.
    #[arg(long, value_name = "BLOCK_BYTES", conflicts_with = "light")]
    block_max: Option<u32>,
    /// Daemons only, without wrk.
    #[arg(long)]
    no_wrk: bool,
    /// The daemon's program; otherwise the one that is built now.
    #[arg(long, value_name = "FILE")]
    qkdd: Option<PathBuf>,
    /// Measures latency instead: one block of 64 octets every 10 ms.
    #[arg(long, conflicts_with_all = ["streams", "rounds", "rate", "chunk"])]
    light: bool,
    /// Measures daemons that have nothing to do instead, and opens and closes so many key streams.
    #[arg(long, value_name = "STREAMS", num_args = 0..=1, default_missing_value = "10000",
        conflicts_with_all = ["light", "streams", "rounds", "rate", "chunk"])]
    idle: Option<usize>,
    /// Goes on until so many chunks have come at each end, without wrk, and looks whether cost and memory stay flat.
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["light", "idle", "rounds", "seconds"])]
    chunks: Option<u64>,
    /// With --chunks: where the course is written to.
    #[arg(long, value_name = "FILE", default_value = "target/long.csv")]
    csv: PathBuf,
    /// Lets the system choose processors. Otherwise both daemons, and wrk in turn with them, have one of them, and cards and sink
    /// another.
    #[arg(long)]
    unpinned: bool,
    /// Prints the daemons' process IDs, for a profiler.
    #[arg(long)]
    pids: bool,
}

/// Who works, in the order of [`Stage::processes`].
const WHO: [&str; 4] = ["leader", "follower", "cards", "sink"];

struct Round {
    /// Of each process. The pushes of cards and sink are those of both ends.
    work: [Work; 4],
    load: Option<Work>,
}

/// What came to the sink in some time, and what the processes took for it.
fn measure<const N: usize>(
    stage: &mut Stage,
    processes: [Pid; N],
    seconds: u64,
) -> ([f64; 3], [Cpu; N], f64) {
    let cpu = || processes.map(Cpu::of);
    let (begun, first, cpu_first) = (Instant::now(), stage.counts(), cpu());
    std::thread::sleep(Duration::from_secs(seconds));
    let (time, last, cpu_last) = (begun.elapsed(), stage.counts(), cpu());
    #[allow(clippy::cast_precision_loss, reason = "chunks of one run")]
    let came = std::array::from_fn(|door| (last.chunks[door] - first.chunks[door]) as f64);
    (came, std::array::from_fn(|who| cpu_last[who].since(cpu_first[who])), time.as_secs_f64())
}

fn daemons(stage: &mut Stage, seconds: u64) -> [Work; 4] {
    let (came, cpu, seconds) = measure(stage, stage.processes(), seconds);
    let both = came[0] + came[1];
    let pushes = [came[0], came[1], both, both];
    std::array::from_fn(|who| Work { pushes: pushes[who], cpu: cpu[who], seconds })
}

fn load(stage: &mut Stage, args: &Args, processors: Option<Processors>) -> Work {
    let host = format!("localhost:{}", stage.load.port());
    let id = "00000000-0000-4000-8000-000000000000";
    let request = sample_request(&host, id, 1_000_000, args.chunk as usize);
    let depth = (MOST_BYTES_IN_FLIGHT / request.len()).clamp(1, args.window as usize);
    let connections = usize::from(args.streams);
    let load = Load { to: stage.load, tls: !args.plain, connections, depth, request: &request };
    let first = stage.counts();
    // As many as there are daemons: the sink has as much to do, and the machine as many who want its processors.
    let both = [0, 1].map(|_| measured(processors, || wrk::start(load, &stage.folder())));
    // A connection of each is made to see whether the address is good.
    let wanted = both.len() * (connections + 1);
    let begun = |stage: &mut Stage| {
        let counts = stage.counts();
        counts.chunks[2] > first.chunks[2] && counts.connections[2] - first.connections[2] >= wanted as u64
    };
    let until = Instant::now() + DEADLINE;
    while !begun(stage) {
        assert!(Instant::now() < until, "wrk does not begin: {}{}", both[0].output(), both[1].output());
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(WARM_UP);
    let (came, cpu, seconds) = measure(stage, both.each_ref().map(Process::pid), args.seconds);
    let connected = stage.counts().connections[2] - first.connections[2];
    assert!(connected == wanted as u64, "wrk's connections broke: {connected}");
    Work { pushes: came[2], cpu: cpu[0].and(cpu[1]), seconds }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, arguments @ ..] = words.as_slice()
        && flag == "--sink"
    {
        return sink::run(arguments);
    }
    let args = Args::parse();
    let setting = Setting {
        tls: !args.plain,
        chunk: args.chunk,
        window: args.window,
        rate: args.rate.clone(),
        bounds: if args.mixed { &MIXED } else { &[] },
        processors: if args.unpinned { None } else { Processors::choose() },
        channels: args.channels,
        block_max: if args.light { Some(64) } else { args.block_max },
        unix: args.unix,
        light: args.light,
        qkdd: args.qkdd.clone(),
    };
    if let Some(opened) = args.idle {
        return idle::run(&setting, args.seconds, opened);
    }
    if args.light {
        return light::run(&setting, args.seconds);
    }
    let mut stage = Stage::start(&setting);
    if args.pids {
        println!("{WHO:?}: {:?}", stage.processes().map(Pid::as_raw));
    }
    println!(
        "{} B chunks, {} stream(s), window {}, push over {}{}, link {}bit/s",
        args.chunk,
        args.streams,
        args.window,
        if args.plain { "plain HTTP" } else { "mutual TLS" },
        if args.unix { " through UNIX sockets" } else { "" },
        args.rate
    );
    if let Some(chunks) = args.chunks {
        let flat = long::run(&mut stage, usize::from(args.streams), chunks, &args.csv);
        let verdict = verdict(&mut stage);
        return if flat == ExitCode::SUCCESS { verdict } else { flat };
    }
    println!(
        "round   leader: chunks/s   /CPU-s  us/push  sys   follower: chunks/s   /CPU-s  us/push  sys   cards, sink: us   \
         wrk: /s   /CPU-s   leader/wrk  follower/wrk"
    );
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        let ids = stage.open(usize::from(args.streams));
        std::thread::sleep(WARM_UP);
        let work = daemons(&mut stage, args.seconds);
        stage.close(&ids);
        let load = (!args.no_wrk).then(|| load(&mut stage, &args, setting.processors));
        let round = Round { work, load };
        println!("{number:5} {}", line(std::slice::from_ref(&round)));
        rounds.push(round);
    }
    println!("median{}", line(&rounds));
    verdict(&mut stage)
}

/// The medians of some rounds; ratios are medians of ratios.
fn line(rounds: &[Round]) -> String {
    let of = |who: usize, figure: fn(Work) -> f64| median(rounds.iter().map(|round| figure(round.work[who])));
    let daemon = |who: usize| {
        format!(
            "{:19.0} {:8.0} {:8.3} {:3.0}%",
            of(who, Work::rate),
            of(who, Work::per_cpu_second),
            of(who, Work::micros),
            of(who, Work::system_share) * 100.0
        )
    };
    let load = |figure: fn(Work) -> f64| median(rounds.iter().filter_map(|round| round.load.map(figure)));
    let ratio = |who: usize| {
        median(
            rounds
                .iter()
                .filter_map(|round| Some(round.work[who].per_cpu_second() / round.load?.per_cpu_second())),
        )
    };
    format!(
        "{}  {}   {:8.3} {:8.3}   {:7.0} {:8.0}   {:10.3}  {:12.3}",
        daemon(0),
        daemon(1),
        of(2, Work::micros),
        of(3, Work::micros),
        load(Work::rate),
        load(Work::per_cpu_second),
        ratio(0),
        ratio(1)
    )
}

fn verdict(stage: &mut Stage) -> ExitCode {
    let counts = stage.counts();
    println!(
        "chunks at both ends: {} and {}, each stream from 0 on and by one; refused (lost, repeated, malformed): {}{}; the same \
         key at both ends: {} chunks compared; messages without key: {}; connections: {} and {}",
        counts.chunks[0],
        counts.chunks[1],
        counts.refused,
        if counts.fault.is_empty() { String::new() } else { format!(" ({})", counts.fault) },
        counts.agreed,
        counts.notices,
        counts.connections[0],
        counts.connections[1],
    );
    if counts.refused == 0 && counts.agreed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
