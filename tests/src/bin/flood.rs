//! What a flood of slow and malformed clients and a hostile KMS cost the push to another KMS: `flood [SECONDS] [PAIRS]`.
//!
//! One pair of daemons pushes a steady stream, well below what this machine can do. Phases without and with the attack take
//! turns in one run, and the median rates of both kinds are held against each other, so that a busy machine disturbs both
//! alike. The clients of the attack share this machine's processors with the daemons, where a network's would have their own:
//! they run with less right to them (nice 10), so that what is measured is what the daemon lets them take from others, and
//! not what they compute. Exit code 0: at least 90 % of the rate is kept.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use qkd_tests::adversaries::client::{deeds, slow_deeds};
use qkd_tests::adversaries::good::{GoodKms, call, open_stream};
use qkd_tests::adversaries::kms::HostileKms;
use qkd_tests::adversaries::{processor_time, resident_kib};
use qkd_tests::module::{Cards, ModuleConfig};
use serde_json::json;

const CHUNK: u32 = 64;
/// 1000 chunks a second.
const BPS: u32 = 512_000;
const KEPT: f64 = 0.9;
/// Clients that say wrong things as fast as they are answered, and clients that hold their connections.
const QUICK: usize = 2;
const SLOW: usize = 60;

#[derive(Clone, Copy, Debug)]
struct Phase {
    chunks_per_s: f64,
    longest_pause: Duration,
    daemon_cpu: f64,
    resident_kib: u64,
}

/// The clients of the attack, as a process of their own.
struct Attack {
    process: Child,
    begun: Instant,
}

impl Attack {
    fn begin(api: SocketAddr, stream: &str) -> Self {
        let own = std::env::current_exe().expect("this program's path");
        let mut command = Command::new("nice");
        command.arg("-n").arg("10").arg(own).arg("--attack").arg(api.to_string()).arg(stream);
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("nice runs");
        Self { process, begun: Instant::now() }
    }

    /// Ends it; deeds a second.
    fn end(mut self) -> f64 {
        drop(self.process.stdin.take());
        let mut said = String::new();
        let mut output = self.process.stdout.take().expect("a pipe");
        output.read_to_string(&mut said).expect("the attack says what it did");
        let _ = self.process.wait();
        said.trim().parse::<f64>().expect("a number of deeds") / self.begun.elapsed().as_secs_f64()
    }
}

/// The attack's process: until its input ends.
fn attack(api: SocketAddr, stream: String) -> ! {
    static DEEDS: AtomicU64 = AtomicU64::new(0);
    let again = |act: Box<dyn Fn(usize) + Send>, first: usize| {
        std::thread::spawn(move || {
            for number in first.. {
                act(number);
                DEEDS.fetch_add(1, Ordering::Relaxed);
            }
        });
    };
    for number in 0..QUICK {
        let deeds = deeds();
        again(Box::new(move |at| drop(deeds[at % deeds.len()].act(api))), number * 17);
    }
    for number in 0..SLOW {
        let slow = slow_deeds();
        again(Box::new(move |at| drop(slow[at % slow.len()].act(api))), number);
    }
    std::thread::spawn(move || {
        loop {
            // The hostile KMS lets its suspended stream go on, so that more is pushed to it.
            let _ = call(api, "POST", "get-key", &json!({"key_stream_id": stream}));
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    println!("{}", DEEDS.load(Ordering::Relaxed));
    std::process::exit(0);
}

fn measure(seconds: f64, kms: &GoodKms, daemon: nix::unistd::Pid) -> Phase {
    let (begun, first, cpu) = (Instant::now(), kms.accepted(), processor_time(daemon));
    let (mut seen, mut since, mut longest) = (first, begun, Duration::ZERO);
    while begun.elapsed().as_secs_f64() < seconds {
        std::thread::sleep(Duration::from_millis(1));
        let now = kms.accepted();
        if now != seen {
            longest = longest.max(since.elapsed());
            (seen, since) = (now, Instant::now());
        }
    }
    let time = begun.elapsed().as_secs_f64();
    Phase {
        chunks_per_s: (kms.accepted() - first) as f64 / time,
        longest_pause: longest.max(since.elapsed()),
        daemon_cpu: (processor_time(daemon) - cpu) as f64 / 100.0 / time,
        resident_kib: resident_kib(daemon),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    }
}

fn main() -> ExitCode {
    if let [_, flag, api, stream] = std::env::args().collect::<Vec<_>>().as_slice()
        && flag == "--attack"
    {
        attack(api.parse().expect("an address"), stream.clone());
    }
    let mut numbers =
        std::env::args().skip(1).map(|word| word.parse::<u32>().expect("flood [SECONDS] [PAIRS]"));
    let seconds = f64::from(numbers.next().unwrap_or(10));
    let pairs = numbers.next().unwrap_or(5);
    let (kms_a, kms_b, evil) = (GoodKms::start(), GoodKms::start(), HostileKms::start());
    let cards = Cards::start(&["--weather", "calm", "--rate", "4M"]);
    let more = format!(
        "[[kms]]\nuri = \"kms://evil\"\nendpoint = \"http://{}\"\n[push]\nanswer_deadline_ms = 500\nbackoff_first_ms = 10\n\
         backoff_greatest_ms = 50\nretry_after_greatest_s = 1\n",
        evil.address
    );
    let url = |kms: &GoodKms| format!("http://{}", kms.address);
    let a = ModuleConfig {
        name: "A",
        role: "leader",
        socket: &cards.socket_a,
        peer: "listen = \"127.0.0.1:0\"".into(),
        peer_kms: "kms://b",
        kms: ("kms://a", url(&kms_a)),
        more: &more,
    }
    .start(cards.folder.path());
    let b = ModuleConfig {
        name: "B",
        role: "follower",
        socket: &cards.socket_b,
        peer: format!("connect = \"{}\"", a.peer.expect("the leader listens")),
        peer_kms: "kms://a, kms://evil",
        kms: ("kms://b", url(&kms_b)),
        more: "",
    }
    .start(cards.folder.path());
    let apis = [a.api, b.api];
    let good = open_stream(apis, ["kms://a", "kms://b"], CHUNK, BPS);
    kms_a.await_more(100);

    let own = open_stream(apis, ["kms://evil", "kms://b"], CHUNK, BPS);

    let mut phases = [Vec::new(), Vec::new()];
    println!("phase    chunks/s  longest pause  daemon CPU  wrong deeds/s  resident MiB");
    for number in 0..2 * pairs {
        let on = number % 2 == 1;
        evil.calm_down(!on);
        let clients = on.then(|| Attack::begin(a.api, &own));
        // A suspended stream goes on when its KMS asks for key, so that more is pushed to it.
        let _ = call(a.api, "POST", "get-key", &json!({"key_stream_id": own}));
        // What the phase before began is over before this one is measured.
        let _ = measure(1.0, &kms_a, a.process.pid());
        let phase = measure(seconds, &kms_a, a.process.pid());
        let deeds_per_s = clients.map_or(0.0, Attack::end);
        println!(
            "{:7} {:9.1} {:11} ms {:11.2} {:14.1} {:13.1}",
            if on { "attack" } else { "quiet" },
            phase.chunks_per_s,
            phase.longest_pause.as_millis(),
            phase.daemon_cpu,
            deeds_per_s,
            phase.resident_kib as f64 / 1024.0
        );
        phases[usize::from(on)].push(phase);
    }
    let [quiet, attacked] =
        phases.map(|phases| median(phases.iter().map(|phase| phase.chunks_per_s).collect()));
    let kept = attacked / quiet;
    println!(
        "kept {:.1} % of the rate under attack (median {attacked:.1} of {quiet:.1} chunks/s)",
        kept * 100.0
    );
    println!("the hostile KMS did {} deeds", evil.deeds_done());
    let leaked = evil.has_seen(&good);
    let panicked = a.process.output().contains("panicked");
    if leaked || panicked {
        println!("key of another stream at the hostile KMS: {leaked}; panicked: {panicked}");
    }
    if kept >= KEPT && !leaked && !panicked { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
