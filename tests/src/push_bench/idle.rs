//! What daemons cost that have nothing to do: without key streams, with 1 000 of them that wait for key, and after many were
//! opened and closed.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::figures::Cpu;
use super::stage::{Setting, Stage, memory};

/// Secret key rate: next to none.
pub const RATE: &str = "1k";
/// Octets of a chunk: no key of that size comes meanwhile.
const CHUNK: u32 = 65_536;
/// Key streams that wait.
const WAITING: usize = 1_000;
/// Streams that are open at once while many are opened and closed.
const AT_ONCE: usize = 500;
/// Until all is in step and nothing of the start is left to do.
const WARM_UP: Duration = Duration::from_secs(3);
/// Until each KMS was told, once, that no key comes: beyond the default timeout of a key stream.
const TOLD: Duration = Duration::from_secs(15);
/// Most that a daemon without streams may take: of a processor, and of memory in MB.
const MOST: (f64, f64) = (0.005, 30.0);
/// Most that a key stream that waits may take: of a processor, and of memory in octets.
const MOST_WAITING: (f64, f64) = (0.000_01, 65_536.0);
/// A daemon's memory may grow by so many octets for each stream that was, which it remembers by its ID.
const REMEMBERED: f64 = 512.0;

/// A daemon at one moment.
#[derive(Clone, Copy, Debug)]
struct Look {
    cpu: Cpu,
    /// Resident memory, in octets.
    memory: f64,
    files: usize,
}

impl Look {
    fn at(process: Pid) -> Self {
        let files = std::fs::read_dir(format!("/proc/{process}/fd")).expect("the process's files").count();
        Self { cpu: Cpu::of(process), memory: memory(process), files }
    }
}

/// What both daemons take of a processor in so many seconds.
fn share(daemons: [Pid; 2], seconds: u64) -> [f64; 2] {
    let (begun, before) = (Instant::now(), daemons.map(Cpu::of));
    sleep(Duration::from_secs(seconds));
    let took = begun.elapsed().as_secs_f64();
    std::array::from_fn(|end| Cpu::of(daemons[end]).since(before[end]).total() / took)
}

fn percent(shares: [f64; 2]) -> String {
    format!("{:.2} % and {:.2} % of a processor", shares[0] * 100.0, shares[1] * 100.0)
}

/// Looks for so many seconds each time, and opens and closes so many streams. Says whether the promises hold.
///
/// # Panics
/// When something does not work in time.
#[must_use]
pub fn run(setting: &Setting, seconds: u64, opened: usize) -> ExitCode {
    let setting = Setting { chunk: CHUNK, rate: RATE.into(), processors: None, ..setting.clone() };
    let stage = Stage::start(&setting);
    let [leader, follower, ..] = stage.processes();
    let daemons = [leader, follower];
    sleep(WARM_UP);
    let alone = share(daemons, seconds);
    let resident = daemons.map(|daemon| memory(daemon) / 1e6);
    println!(
        "leader and follower, no key stream: {}; {:.1} and {:.1} MB resident",
        percent(alone),
        resident[0],
        resident[1]
    );
    let ids = stage.register(WAITING);
    sleep(TOLD);
    let waiting = share(daemons, seconds);
    let more = daemons.map(|daemon| memory(daemon) / 1e6);
    #[allow(clippy::cast_precision_loss, reason = "streams of one run")]
    let number = WAITING as f64;
    let each: [(f64, f64); 2] = std::array::from_fn(|end| {
        ((waiting[end] - alone[end]) / number, (more[end] - resident[end]) * 1e6 / number)
    });
    println!(
        "with {WAITING} that wait for key: {}; {:.1} and {:.1} MB, {:.0} and {:.0} octets for each",
        percent(waiting),
        more[0],
        more[1],
        each[0].1,
        each[1].1
    );
    stage.close(&ids);
    sleep(WARM_UP);
    let first = daemons.map(Look::at);
    let begun = Instant::now();
    for at in (0..opened).step_by(AT_ONCE) {
        let ids = stage.register(AT_ONCE.min(opened - at));
        stage.close(&ids);
    }
    let took = begun.elapsed().as_secs_f64();
    sleep(WARM_UP);
    let last = daemons.map(Look::at);
    let mut kept = (0..2).all(|end| {
        alone[end] < MOST.0
            && resident[end] < MOST.1
            && each[end].0 < MOST_WAITING.0
            && each[end].1 < MOST_WAITING.1
    });
    #[allow(clippy::cast_precision_loss, reason = "streams of one run")]
    let number = opened as f64;
    for (name, (first, last)) in ["leader", "follower"].iter().zip(first.iter().zip(&last)) {
        let grown = (last.memory - first.memory) / number;
        kept &= last.files == first.files && grown < REMEMBERED;
        println!(
            "{name}, {opened} opened, asked for and closed in {took:.0} s: {:.2} ms of a processor each, handshakes of its calls \
             included; memory from {:.1} to {:.1} MB, {grown:.0} octets each; open files from {} to {}",
            last.cpu.since(first.cpu).total() * 1e3 / number,
            first.memory / 1e6,
            last.memory / 1e6,
            first.files,
            last.files,
        );
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
