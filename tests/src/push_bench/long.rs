//! A long run: whether a chunk costs the same after many millions of others, and the daemons' memory stays what it was.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::figures::{Cpu, median};
use super::stage::{Stage, memory};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// Longest time without a new chunk.
const STILL: Duration = Duration::from_secs(60);
/// The last fifth of a run may cost so many times what the first fifth did, ...
const DEARER: f64 = 1.1;
/// ... and memory may be so many octets more.
const GROWN: f64 = 4e6;

/// What one end's daemon took between two looks.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// Microseconds on a processor for each chunk.
    micros: f64,
    /// Resident memory at its end, in octets.
    memory: f64,
}

/// Goes on until so many chunks have come at each end, writes what was seen as CSV, and says whether cost and memory stayed flat.
///
/// # Panics
/// When no chunk comes for a minute, or the file cannot be written.
#[must_use]
pub fn run(stage: &mut Stage, streams: usize, chunks: u64, csv: &Path) -> ExitCode {
    let mut file = BufWriter::new(File::create(csv).expect("the file for the figures"));
    let daemons = {
        let [leader, follower, ..] = stage.processes();
        [leader, follower]
    };
    writeln!(file, "seconds,leader_chunks,follower_chunks,leader_us_per_chunk,follower_us_per_chunk,leader_memory_mb,follower_memory_mb")
        .expect("a line");
    let ids = stage.open(streams);
    sleep(Duration::from_secs(2));
    let begun = Instant::now();
    let start = stage.counts().chunks;
    let mut before = (start, daemons.map(Cpu::of));
    let mut stretches: [Vec<Stretch>; 2] = Default::default();
    let mut last_new = Instant::now();
    loop {
        sleep(EVERY);
        let now = (stage.counts().chunks, daemons.map(Cpu::of));
        let came: [u64; 2] = std::array::from_fn(|end| now.0[end] - before.0[end]);
        let all: [u64; 2] = std::array::from_fn(|end| now.0[end] - start[end]);
        if came.iter().all(|came| *came > 0) {
            last_new = Instant::now();
            #[allow(clippy::cast_precision_loss, reason = "chunks of one run")]
            let looks: [Stretch; 2] = std::array::from_fn(|end| Stretch {
                micros: now.1[end].since(before.1[end]).total() * 1e6 / came[end] as f64,
                memory: memory(daemons[end]),
            });
            writeln!(
                file,
                "{:.1},{},{},{:.4},{:.4},{:.2},{:.2}",
                begun.elapsed().as_secs_f64(),
                all[0],
                all[1],
                looks[0].micros,
                looks[1].micros,
                looks[0].memory / 1e6,
                looks[1].memory / 1e6,
            )
            .expect("a line");
            for (stretches, look) in stretches.iter_mut().zip(looks) {
                stretches.push(look);
            }
            before = now;
        }
        assert!(last_new.elapsed() < STILL, "no key comes any more: {now:?}");
        if all.iter().all(|all| *all >= chunks) {
            break;
        }
    }
    file.flush().expect("the figures are written");
    stage.close(&ids);
    let mut flat = true;
    for (name, stretches) in ["leader", "follower"].iter().zip(&stretches) {
        let fifth = stretches.len().div_ceil(5);
        let ends = [&stretches[..fifth], &stretches[stretches.len() - fifth..]];
        let micros = ends.map(|part| median(part.iter().map(|stretch| stretch.micros)));
        let memory = ends.map(|part| median(part.iter().map(|stretch| stretch.memory)));
        flat &= micros[1] <= micros[0] * DEARER && memory[1] <= memory[0] + GROWN;
        println!(
            "{name}: {:.3} us a chunk in the first fifth, {:.3} in the last; memory {:.1} MB, {:.1} MB",
            micros[0],
            micros[1],
            memory[0] / 1e6,
            memory[1] / 1e6
        );
    }
    println!("{} s; figures: {}", begun.elapsed().as_secs(), csv.display());
    if flat { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
