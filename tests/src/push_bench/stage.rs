//! What is measured: cards, both daemons and the sink, and the key streams between them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::processors::{Processors, measured, serving};
use super::sink::{self, Counts};
use crate::DEADLINE;
use crate::module::Cards;
use crate::process::Process;
use crate::programs::workspace;
use crate::secure::{Choice, Client, KMS, Secured, hybrid};

/// A machine that others use as well may let card, sink or client wait for seconds. None has failed then, and nothing is given up.
const PATIENT: [&str; 3] =
    ["grace_ms = 30000", "handshake_deadline_ms = 60000", "answer_deadline_ms = 60000"];

/// Calls that are made at once.
const CLIENTS: usize = 16;

/// What differs between runs.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Pushes go over mutual TLS; API and peer link always do.
    pub tls: bool,
    /// Octets of a chunk.
    pub chunk: u32,
    /// Requests of one stream that may be on their way at once.
    pub window: u32,
    /// Secret key rate of the link, as the pair takes it.
    pub rate: String,
    /// Where it all runs.
    pub processors: Option<Processors>,
    /// Greatest rates of the streams in bit/s, one after the other and again from the first; none where there are none.
    pub bounds: &'static [u64],
    /// Systems on the fibre, as the pair takes it.
    pub channels: u32,
    /// Greatest octets of a block, as the pair takes it.
    pub block_max: Option<u32>,
    /// Pushes go through UNIX sockets.
    pub unix: bool,
    /// Cards and daemons trace what happens when.
    pub light: bool,
    /// Another program than the `qkdd` that was built.
    pub qkdd: Option<PathBuf>,
}

/// Everything that runs.
pub struct Stage {
    /// Daemons and cards.
    pub secured: Secured,
    sink: Process,
    /// The load generator's door at the sink.
    pub load: SocketAddr,
    clients: [Client; 2],
    asked: usize,
    chunk: u32,
    bounds: &'static [u64],
}

impl Stage {
    /// Starts everything. The ledgers are in the build's folder, which is on a disk.
    #[must_use]
    pub fn start(setting: &Setting) -> Self {
        let folder = TempDir::with_prefix_in("bench-", target()).expect("a folder");
        // This thread, and with it cards and sink, go to their processor.
        serving(setting.processors);
        let channels = setting.channels.to_string();
        let mut options = vec!["--weather", "calm", "--rate", &setting.rate, "--channels", &channels];
        let block_max = setting.block_max.map(|octets| octets.to_string());
        if let Some(octets) = &block_max {
            options.extend(["--block-max", octets]);
        }
        let environment: &[_] = if setting.light { &[("RUST_LOG", "info,timing=trace")] } else { &[] };
        let mut secured = Secured::prepare_with(Cards::start_with(folder, &options, environment));
        let sockets = ["kms-a.sock", "kms-b.sock"].map(|name| secured.cards.folder.path().join(name));
        let lab = setting.tls.then_some(secured.lab.as_path());
        let mut command = Command::new(std::env::current_exe().expect("this program's path"));
        command.arg("--sink").args(sink::tell(setting.chunk, lab, setting.unix.then_some(&sockets)));
        let sink = Process::start("sink", &mut command);
        let said = sink.line("listening ", DEADLINE);
        let doors: Vec<SocketAddr> = said.split(' ').skip(1).filter_map(|door| door.parse().ok()).collect();
        let [a, b, load] = doors[..] else { panic!("three doors: {said:?}") };
        secured.endpoints = [a, b];
        let [card, tls, push] = PATIENT;
        let log = if setting.light { "[log]\nlevel = \"trace\"\n" } else { "" };
        let more = format!(
            "[push]\nmost_in_flight = {}\n{push}\n[streams]\nmost_streams = 2048\nmost_per_kms = 2048\n{log}",
            setting.window
        );
        let choice = Choice {
            tls,
            card,
            more: &more,
            plain_push: !setting.tls,
            qkdd: setting.qkdd.as_deref(),
            ..Choice::default()
        };
        let through = sockets.map(|socket| match setting.unix {
            true => format!("through = \"{}\"", socket.display()),
            false => String::new(),
        });
        measured(setting.processors, || {
            for (end, kms) in through.iter().enumerate() {
                secured.start_module(end, Choice { kms, ..choice });
            }
        });
        let _ = secured.module(1).process.line("takes over epoch", DEADLINE);
        let clients = ["kms-a", "kms-b"].map(|name| secured.client(name, hybrid()));
        Self { secured, sink, load, clients, asked: 0, chunk: setting.chunk, bounds: setting.bounds }
    }

    /// Processes: leader, follower, cards, sink.
    #[must_use]
    pub fn processes(&self) -> [Pid; 4] {
        let module = |end| self.secured.module(end).process.pid();
        [module(0), module(1), self.secured.cards.process.pid(), self.sink.pid()]
    }

    /// What leader, follower and cards have printed so far.
    #[must_use]
    pub fn traces(&self) -> [String; 3] {
        [&self.secured.module(0).process, &self.secured.module(1).process, &self.secured.cards.process]
            .map(Process::output)
    }

    /// Where everything lies.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.secured.cards.folder.path().to_owned()
    }

    /// What came to the sink.
    #[must_use]
    pub fn counts(&mut self) -> Counts {
        self.sink.tell("counts");
        let line = self.sink.nth_line("{\"chunks\"", self.asked, DEADLINE);
        self.asked += 1;
        serde_json::from_str(&line).expect("counts")
    }

    /// Opens so many key streams at both ends through the API, and waits until key flows on each.
    ///
    /// # Panics
    /// When it does not in time.
    #[must_use]
    pub fn open(&mut self, streams: usize) -> Vec<Value> {
        let wanted = self.counts().flowing + streams;
        let ids = self.register(streams);
        let until = Instant::now() + DEADLINE;
        loop {
            let counts = self.counts();
            if counts.flowing >= wanted {
                return ids;
            }
            assert!(Instant::now() < until, "no key on every stream in time: {counts:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Opens so many key streams at both ends through the API, and asks for their key.
    ///
    /// # Panics
    /// When that does not go in time.
    #[must_use]
    pub fn register(&self, streams: usize) -> Vec<Value> {
        let numbers: Vec<usize> = (0..streams).collect();
        at_once(&numbers, |number| {
            let mut request = json!({
                "source": KMS[0], "destination": KMS[1], "key_stream_id": null, "qos": {"key_chunk_size": self.chunk},
            });
            if let Some(bound) = self.bounds.get(number % self.bounds.len().max(1)) {
                request["qos"]["max_bps"] = json!(bound);
            }
            let id = self.call(0, "POST", "open-connect", &request)["key_stream_id"].clone();
            request["key_stream_id"] = id.clone();
            let _ = self.call(1, "POST", "open-connect", &request);
            for end in 0..2 {
                let _ = self.call(end, "POST", "get-key", &json!({"key_stream_id": id}));
            }
            id
        })
    }

    /// Closes them at both ends.
    pub fn close(&self, ids: &[Value]) {
        let _ = at_once(ids, |id| {
            for end in 0..2 {
                let _ = self.call(end, "PUT", "close", &json!({"key_stream_id": id}));
            }
        });
    }

    fn call(&self, end: usize, method: &str, path: &str, request: &Value) -> Value {
        let until = Instant::now() + DEADLINE;
        loop {
            let reply = self.clients[end].call(self.secured.module(end).api, method, path, request);
            if (200..300).contains(&reply.http) {
                return reply.body;
            }
            assert!(Instant::now() < until, "{path} at end {end}: {reply:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Does the same with each of `items`, some of them at once.
fn at_once<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let part = items.len().div_ceil(CLIENTS).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = items
            .chunks(part)
            .map(|part| scope.spawn(|| part.iter().map(&work).collect::<Vec<T>>()))
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("the client's thread")).collect()
    })
}

/// Resident memory of a process, in octets.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn memory(process: Pid) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process lives");
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse().ok());
    kilobytes.map_or(f64::NAN, |kilobytes: f64| kilobytes * 1024.0)
}

fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    target.map_or_else(|| workspace().join("target"), |folder| workspace().join(folder))
}
