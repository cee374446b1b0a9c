//! Key that stays behind: after a KMS has acknowledged a chunk, nothing of it may be left in the daemon's memory, in its state,
//! in its log or in a core file, raw, in hexadecimal, in base64 or in decimal.
//!
//! The criterion is causal. At most [`IN_FLIGHT`] chunks of a stream are on their way, so a module that has sent chunk n has
//! taken in the answers to all chunks up to n less [`IN_FLIGHT`]. They must be gone, and they must be gone at once: the
//! daemon is stopped (SIGSTOP) while its memory is searched.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;
use qkd_driver::BlockName;
use qkd_tests::DEADLINE;
use qkd_tests::holding_kms::HoldingKms;
use qkd_tests::http::call;
use qkd_tests::memory_scan::{CELL, Cell, Dress, Scan, cells_of};
use qkd_tests::module::{Cards, Module, ModuleConfig};
use qkd_tests::programs::{program, program_that_does_not_wipe};
use qkd_tests::test_key::test_key;

/// Requests of a stream on their way at once, in these tests' configuration.
const IN_FLIGHT: u32 = 256;
/// Chunks that must have been acknowledged at each end.
const CHUNKS: u64 = 10_000;
/// Octets of a daemon that a search must have seen at least: its program, its heap, its vault or its card's slots.
const LEAST_SEARCHED: u64 = 16 << 20;

/// Two daemons, and a KMS at each that this test is.
struct Ends {
    cards: Cards,
    modules: [Module; 2],
    kms: [HoldingKms; 2],
    stream: String,
    canaries: [Cell; 2],
}

/// What was found of the chunks that a KMS has acknowledged, and of those that it has not.
struct Seen {
    /// Places of acknowledged key.
    left_behind: BTreeSet<(Dress, String)>,
    acknowledged: usize,
    /// Cells of chunks that were received and not answered: those that were found raw, and all.
    awaiting: (usize, usize),
    /// Cells of such chunks that were found in base64: they have been sent, so that nobody needs them so any more.
    sent_and_kept: usize,
    secret: u64,
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Whole cells in a chunk.
fn cells_in(chunk: &[u8]) -> Vec<Cell> {
    let mut cells = Vec::new();
    cells_of(chunk, |_, dress, cell| {
        if dress == Dress::Raw {
            cells.push(cell);
        }
    });
    cells
}

impl Ends {
    fn start(daemon: &Path, memory: &str, rate: &str, chunk_size: u32) -> Self {
        let cards = Cards::start(&["--weather", "calm", "--rate", rate, "--key", "positional"]);
        let kms = [HoldingKms::start(), HoldingKms::start()];
        // They stand in each daemon's environment, which is a part of its memory: a search that misses them is blind.
        let canaries: [Cell; 2] = [77, 78].map(|sequence| {
            let key = test_key(BlockName { session: 0xCA11_AB1E, sequence }, CELL);
            key.try_into().expect("one cell")
        });
        let more = format!("[push]\nanswer_deadline_ms = 600000\nmost_in_flight = {IN_FLIGHT}\n");
        let module = |end: usize, peer: String| {
            let (own, other) = [("kms://a", "kms://b"), ("kms://b", "kms://a")][end];
            let config = ModuleConfig {
                name: ["A", "B"][end],
                role: ["leader", "follower"][end],
                socket: [&cards.socket_a, &cards.socket_b][end],
                peer,
                peer_kms: other,
                kms: (own, kms[end].endpoint()),
                more: &more,
            };
            let path = config.write(cards.folder.path());
            let text = std::fs::read_to_string(&path).expect("it was written");
            let text = text.replacen("[api]", "accept_test_key = true\n[api]", 1);
            let text = text.replacen(
                "unlocked_memory_lets_keys_reach_swap = true",
                &format!("memory = {memory:?}"),
                1,
            );
            std::fs::write(&path, text).expect("and can be written again");
            let mut command = Command::new("prlimit");
            // So that nothing but the daemon itself keeps it from leaving a core file.
            command.arg("--core=unlimited:unlimited").arg(daemon).arg("--config").arg(&path);
            command.current_dir(cards.folder.path());
            let run = cards.folder.path().join(["run-a", "run-b"][end]);
            std::fs::create_dir(&run).expect("a folder");
            command.env("RUNTIME_DIRECTORY", run);
            command.env("QKD_CANARY_HEX", hex(&canaries[0]));
            command.env("QKD_CANARY_BASE64", base64_turbo::STANDARD.encode(canaries[1]));
            config.start_as(&mut command)
        };
        let a = module(0, "listen = \"127.0.0.1:0\"".into());
        let peer = a.peer.expect("the leader listens");
        let b = module(1, format!("connect = \"{peer}\""));
        let _ = b.process.line("takes over epoch", DEADLINE);
        let _ = a.process.line("Distilling", DEADLINE);
        let _ = b.process.line("Distilling", DEADLINE);
        let body = |id: &str, qos: &str| {
            format!(r#"{{"source":"kms://a","destination":"kms://b","key_stream_id":{id},"qos":{{{qos}}}}}"#)
        };
        // Until the two modules are in step, and the link's rate is known, there is nothing to open.
        let until = Instant::now() + DEADLINE;
        let said = loop {
            let qos = format!("\"key_chunk_size\":{chunk_size}");
            let (code, said) = call(a.api, "POST", "open-connect", &body("null", &qos));
            if code == 201 {
                break said;
            }
            assert!(Instant::now() < until, "{code} {said}");
        };
        let answer: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        let stream = answer["key_stream_id"].as_str().expect("an ID").to_owned();
        let (code, said) = call(b.api, "POST", "open-connect", &body(&format!("{stream:?}"), ""));
        assert_eq!(code, 201, "{said}");
        for module in [&a, &b] {
            let (code, said) =
                call(module.api, "POST", "get-key", &format!("{{\"key_stream_id\":{stream:?}}}"));
            assert!((200..300).contains(&code), "{code} {said}");
        }
        Self { cards, modules: [a, b], kms, stream, canaries }
    }

    /// Searches the memory of the daemon at `end`, stopped, for all that its KMS has got. With `all`, every chunk counts as
    /// acknowledged.
    fn look(&self, end: usize, all: bool) -> Seen {
        let process = &self.modules[end].process;
        // What was received by now bounds what has been acknowledged; what is received later only adds to it.
        let sent = self.kms[end].chunks().keys().next_back().copied().expect("chunks came");
        process.signal(Signal::SIGSTOP);
        let scan = Scan::of(process.pid());
        // Nothing is answered between the search and this, where answers are held back.
        let (received, answered) = self.kms[end].counts();
        let chunks = self.kms[end].chunks();
        process.signal(Signal::SIGCONT);
        let scan = scan.unwrap_or_else(|blind| panic!("{blind}"));
        assert_eq!(self.kms[end].connections(), 1, "the criterion holds for one connection");
        assert!(scan.searched >= LEAST_SEARCHED, "only {} bytes were searched", scan.searched);
        for (canary, dress) in self.canaries.iter().zip([Dress::Hex, Dress::Base64]) {
            let places = scan.places(canary);
            assert!(
                places.iter().any(|place| place.0 == dress),
                "the search is blind: {dress:?} in {places:?}"
            );
        }
        let settled = if all { u32::MAX } else { sent.saturating_sub(IN_FLIGHT) };
        let mut acknowledged: HashMap<Cell, u32> = HashMap::new();
        let mut seen = Seen {
            left_behind: BTreeSet::new(),
            acknowledged: 0,
            awaiting: (0, 0),
            sent_and_kept: 0,
            secret: scan.secret,
        };
        for (index, chunk) in &chunks {
            if *index < settled {
                seen.acknowledged += 1;
                acknowledged.extend(cells_in(chunk).into_iter().map(|cell| (cell, *index)));
            } else if u64::from(*index) >= answered && received > answered {
                for cell in cells_in(chunk) {
                    seen.awaiting.1 += 1;
                    let places = scan.places(&cell);
                    let raw = places.iter().any(|place| place.0 == Dress::Raw);
                    seen.sent_and_kept += usize::from(places.iter().any(|place| place.0 == Dress::Base64));
                    seen.awaiting.0 += usize::from(raw);
                }
            }
        }
        assert!(acknowledged.len() >= seen.acknowledged, "a chunk without a cell cannot be looked for");
        for (cell, _) in acknowledged {
            let places = scan.places(&cell).into_iter().map(|(dress, name)| (dress, name.to_owned()));
            seen.left_behind.extend(places);
        }
        println!(
            "{}: {} bytes searched, {} secret, {} cells of test key found; {} chunks acknowledged, left behind: {:?}; \
             {} of {} cells before acknowledgement found",
            ["A", "B"][end],
            scan.searched,
            seen.secret,
            scan.cells.len(),
            seen.acknowledged,
            seen.left_behind,
            seen.awaiting.0,
            seen.awaiting.1
        );
        seen
    }

    /// Files of the daemons' state and configuration, and whatever else they leave in their folder.
    fn files(&self) -> Vec<PathBuf> {
        fn below(folder: &Path, files: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).expect("the folder can be read").map_while(Result::ok) {
                let kind = entry.file_type().expect("it has a type");
                match (kind.is_dir(), kind.is_file()) {
                    (true, _) => below(&entry.path(), files),
                    (_, true) => files.push(entry.path()),
                    _ => {}
                }
            }
        }
        let mut files = Vec::new();
        below(self.cards.folder.path(), &mut files);
        files
    }

    /// No file and no log holds test key.
    fn nothing_in_files_and_logs(&self) {
        let dresses = |octets: &[u8]| {
            let mut found = BTreeSet::new();
            cells_of(octets, |_, dress, _| {
                found.insert(dress);
            });
            found
        };
        let (mut searched, mut names) = (0, Vec::new());
        for file in self.files() {
            let octets = std::fs::read(&file).expect("it can be read");
            assert!(dresses(&octets).is_empty(), "{} holds key: {:?}", file.display(), dresses(&octets));
            searched += octets.len();
            names.push(file.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        assert!(names.iter().filter(|name| *name == "ledger.redb").count() == 2, "{names:?}");
        assert!(searched > 100_000, "only {searched} bytes of files");
        for module in &self.modules {
            let log = module.process.output();
            assert!(log.contains("memory for keys"), "this is not the log: {log}");
            assert!(dresses(log.as_bytes()).is_empty(), "the log holds key: {log}");
        }
    }

    /// Closes the stream at both ends.
    fn close(&self) {
        for module in &self.modules {
            let body = format!("{{\"key_stream_id\":{:?}}}", self.stream);
            let (code, said) = call(module.api, "PUT", "close", &body);
            assert!((200..300).contains(&code), "{code} {said}");
        }
    }

    /// Kills both daemons in a way that leaves a core file where one may be left.
    fn no_core(mut self) {
        let mut control = Command::new("prlimit");
        control.args(["--core=unlimited:unlimited", "sh", "-c", "kill -ABRT $$"]);
        let dumps = control.current_dir(self.cards.folder.path()).status().expect("sh").core_dumped();
        println!("core files are made on this machine: {dumps}");
        for file in self.files() {
            if file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core")) {
                std::fs::remove_file(file).expect("the control's core");
            }
        }
        for module in &mut self.modules {
            module.process.signal(Signal::SIGABRT);
            let status = module.process.wait(DEADLINE);
            assert_eq!(status.signal(), Some(6), "{status:?}");
            assert!(!status.core_dumped(), "a core file was made");
        }
        self.nothing_in_files_and_logs();
    }
}

/// Delivers marked key, looks while it flows, while answers are held back, and when all is over.
fn nothing_stays(memory: &str, rate: &str, chunk_size: u32) {
    let ends = Ends::start(&program("qkdd"), memory, rate, chunk_size);
    let kind = if memory == "locked" { "locked memory" } else { "secret memory" };
    for module in &ends.modules {
        let _ = module.process.line(kind, DEADLINE);
    }
    for kms in &ends.kms {
        kms.wait_until("chunks", |_, answered| answered > CHUNKS + u64::from(IN_FLIGHT));
    }
    for end in 0..2 {
        let seen = ends.look(end, false);
        assert!(seen.acknowledged as u64 >= CHUNKS, "{} chunks", seen.acknowledged);
        assert_eq!(seen.left_behind, BTreeSet::new(), "while key flows, at end {end}");
    }
    for end in 0..2 {
        // One at a time: an end that is ahead by all that may be granted gets no more until the other's KMS has accepted some.
        ends.kms[end].hold_back(true);
        ends.kms[end].wait_until("chunks to hold back", |received, answered| received >= answered + 8);
        let until = Instant::now() + DEADLINE;
        // What is sent is wiped as soon as it is written, which may be a moment after it was received.
        let seen = loop {
            let seen = ends.look(end, false);
            assert_eq!(seen.left_behind, BTreeSet::new(), "while answers are held back, at end {end}");
            if seen.sent_and_kept == 0 {
                break seen;
            }
            assert!(
                Instant::now() < until,
                "{} cells stay in the send buffer at end {end}",
                seen.sent_and_kept
            );
        };
        let (found, all) = seen.awaiting;
        assert!(all >= 8, "{all} cells wait for their acknowledgement");
        match memory {
            "locked" => {
                assert_eq!(found, all, "the search is blind: key before its acknowledgement, at end {end}")
            }
            _ => {
                assert!(seen.secret >= 64 << 20, "the vault is not in secret memory");
                assert_eq!(found, 0, "key lies outside of secret memory, at end {end}");
            }
        }
        ends.kms[end].hold_back(false);
    }
    ends.close();
    for end in 0..2 {
        ends.kms[end].wait_until("end", |received, answered| received == answered && answered >= CHUNKS);
        let seen = ends.look(end, true);
        assert_eq!(seen.left_behind, BTreeSet::new(), "when all is over, at end {end}");
    }
    ends.nothing_in_files_and_logs();
    ends.no_core();
}

#[test]
fn nothing_of_an_acknowledged_chunk_stays_at_a_slow_rate_in_locked_memory() {
    nothing_stays("locked", "400k", 32);
}

#[test]
fn nothing_of_an_acknowledged_chunk_stays_at_a_fast_rate_in_locked_memory() {
    nothing_stays("locked", "50M", 32);
}

#[test]
fn nothing_of_an_acknowledged_chunk_stays_with_large_chunks_in_secret_memory() {
    nothing_stays("secret", "115.8M", 1024);
}

#[test]
fn a_daemon_that_does_not_wipe_is_caught_in_the_slots_in_the_vault_and_in_the_send_buffers() {
    let ends = Ends::start(&program_that_does_not_wipe(), "locked", "4M", 32);
    let vault = (Dress::Raw, String::new());
    for end in 0..2 {
        let kms = &ends.kms[end];
        kms.wait_until("chunks", |_, answered| answered >= CHUNKS + u64::from(IN_FLIGHT));
        let until = Instant::now() + DEADLINE;
        let mut left_behind = BTreeSet::new();
        // A KMS that keeps up has each block overwritten by the next. So blocks are made to pile up: of those that lay
        // behind others, the place in the vault is not taken again.
        loop {
            left_behind.extend(ends.look(end, false).left_behind);
            let slots =
                |(dress, name): &(Dress, String)| *dress == Dress::Raw && name.starts_with("/memfd:qkd-dma");
            if left_behind.contains(&vault) && left_behind.iter().any(slots) {
                break;
            }
            assert!(Instant::now() < until, "slots or vault: {left_behind:?}");
            kms.hold_back(true);
            // A window is filled again once half of it is free.
            kms.wait_until("a window", |received, answered| received > answered + u64::from(IN_FLIGHT / 2));
            let (held, _) = kms.counts();
            kms.hold_back(false);
            kms.wait_until("what was held back", |_, answered| answered >= held + 2 * u64::from(IN_FLIGHT));
        }
        kms.hold_back(true);
        kms.wait_until("chunks to hold back", |received, answered| received >= answered + 8);
        let seen = ends.look(end, false);
        assert!(seen.sent_and_kept > 0, "send buffers: {:?}", seen.left_behind);
        // The other end gets no key while this one accepts none.
        kms.hold_back(false);
    }
}

#[test]
fn nothing_of_any_key_stays_when_the_operator_was_told_that_it_is_destroyed() {
    let ends = Ends::start(&program("qkdd"), "locked", "4M", 32);
    {
        let (end, run) = (0, "run-a");
        let kms = &ends.kms[end];
        kms.wait_until("chunks", |_, answered| answered >= 1_000);
        kms.hold_back(true);
        kms.wait_until("chunks to hold back", |received, answered| received >= answered + 8);
        let seen = ends.look(end, false);
        assert!(seen.awaiting.0 > 0, "there is no key that could be destroyed");
        let last = kms
            .chunks()
            .into_values()
            .flat_map(|chunk| cells_in(&chunk))
            .map(session_of)
            .max()
            .expect("cells");
        let socket = ends.cards.folder.path().join(run).join("qkdd.ctl");
        let done = Command::new(program("qkdctl"))
            .arg("--socket")
            .arg(socket)
            .arg("zeroize")
            .output()
            .expect("it runs");
        assert!(done.status.success(), "{done:?}");
        let process = &ends.modules[end].process;
        process.signal(Signal::SIGSTOP);
        let scan = Scan::of(process.pid());
        process.signal(Signal::SIGCONT);
        let scan = scan.unwrap_or_else(|blind| panic!("{blind}"));
        let old: Vec<_> = scan
            .cells
            .keys()
            .filter(|cell| !ends.canaries.contains(cell) && session_of(**cell) <= last)
            .collect();
        let places: BTreeSet<_> = old.iter().flat_map(|cell| scan.places(cell)).collect();
        assert!(old.is_empty(), "{} cells of before are left at end {end}: {places:?}", old.len());
    }
}

/// The session that a cell is of; later sessions have greater numbers.
fn session_of(cell: Cell) -> u32 {
    u32::from_le_bytes(cell[..4].try_into().expect("four octets"))
}
