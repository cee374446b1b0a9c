//! Light load: one block of 64 octets every 10 ms, which is two chunks of 32. How long key takes from the card to the KMS's socket,
//! beside the synced writes and the round trip that it has to wait for.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use super::moments::{Latencies, Latency};
use super::stage::{Setting, Stage};
use super::{ANSWER, sample_request};
use crate::secure::hybrid;

/// Blocks of 64 octets, 100 of them a second.
pub const RATE: &str = "51.2k";
const CHUNK: u32 = 32;
/// Between two round trips.
const EVERY: Duration = Duration::from_millis(10);
/// Until windows have widened and clocks have slowed down.
const WARM_UP: Duration = Duration::from_secs(2);
/// From the card to being committed, key may take so many times as long as the synced writes and the round trip that it waits for.
const FACTOR: f64 = 1.5;
/// Longest median from committed to written, in microseconds.
const WRITTEN_US: f64 = 150.0;

/// Measures for so many seconds, and says whether the promises hold.
///
/// # Panics
/// When something does not work in time.
#[must_use]
pub fn run(setting: &Setting, seconds: u64) -> ExitCode {
    let setting =
        Setting { chunk: CHUNK, rate: RATE.into(), light: true, processors: None, ..setting.clone() };
    let mut stage = Stage::start(&setting);
    let ids = stage.open(1);
    sleep(WARM_UP);
    let begun = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    let begun = u64::try_from(begun.as_nanos()).expect("nanoseconds since the start");
    let round_trips = round_trips(&stage, setting.tls, Duration::from_secs(seconds));
    let traces = stage.traces();
    stage.close(&ids);
    println!(
        "one block of 64 octets every 10 ms, {seconds} s; microseconds: median (99th percentile)\n\
         round trip between two processes{}: {}",
        if setting.tls { " over TLS" } else { "" },
        text(&round_trips)
    );
    let [leader, follower] = [0, 1].map(|end| {
        let serial = serial(&traces[end]);
        Latencies::of(&traces[2], &serial, &traces[end], begun)
    });
    // Before the follower may push, the leader's grant is durable there and then at the follower; before the leader may, it has been
    // told of that. What is known of a block travels to the leader at first, and the rest once more to and fro.
    let step = |at: &Latencies| at.writes.median() + at.cells.median();
    let [leads, follows] = [step(&leader), step(&follower)];
    let round_trip = round_trips.median();
    let ends = [
        ("leader", &leader, leads + follows + 1.5 * round_trip),
        ("follower", &follower, leads + follows + round_trip),
    ];
    let mut kept = true;
    for (name, latencies, parts) in ends {
        let ratio = latencies.committed.median() / parts;
        kept &= ratio <= FACTOR && latencies.written.median() < WRITTEN_US;
        kept &= latencies.committed.count() > 0 && latencies.written.count() > 0;
        println!(
            "{name}: card to seen {}; card to committed {}, {ratio:.2} of the writes and round trips that it waits for \
             ({parts:.0}); committed to written {}; a synced write {}, its number in the card's cell {}; {} deliveries",
            text(&latencies.seen),
            text(&latencies.committed),
            text(&latencies.written),
            text(&latencies.writes),
            text(&latencies.cells),
            latencies.committed.count(),
        );
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn text(latency: &Latency) -> String {
    format!("{:.0} ({:.0})", latency.median(), latency.percentile(99))
}

/// The card's serial number, as the daemon's log tells it.
fn serial(log: &str) -> String {
    let rest = log.split_once("serial number ").expect("the daemon has opened its card").1;
    rest.split(',').next().unwrap_or_default().to_owned()
}

/// A request and its answer, again and again as rarely as key comes.
fn round_trips(stage: &Stage, tls: bool, time: Duration) -> Latency {
    let request = sample_request("localhost", "00000000-0000-4000-8000-000000000000", 1, CHUNK as usize);
    let until = Instant::now() + time;
    if tls {
        exchange(&mut stage.secured.client("kms-a", hybrid()).connect(stage.load), &request, until)
    } else {
        exchange(&mut std::net::TcpStream::connect(stage.load).expect("the sink's door"), &request, until)
    }
}

fn exchange(stream: &mut (impl Read + Write), request: &[u8], until: Instant) -> Latency {
    let mut answer = [0; ANSWER.len()];
    let mut values = Vec::new();
    while Instant::now() < until {
        let asked = Instant::now();
        stream.write_all(request).and_then(|()| stream.flush()).expect("the sink takes it");
        stream.read_exact(&mut answer).expect("and answers");
        values.push(asked.elapsed().as_secs_f64() * 1e6);
        sleep(EVERY);
    }
    Latency::of(values)
}
