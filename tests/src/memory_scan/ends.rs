//! Two ends of a link whose daemons are searched for the key that their KMSs have got.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;
use qkd_driver::BlockName;

use super::{CELL, Cell, Dress, Scan, cells_of};
use crate::DEADLINE;
use crate::holding_kms::HoldingKms;
use crate::http::call;
use crate::module::{Cards, Module, ModuleConfig};
use crate::test_key::test_key;

/// Requests of a stream on their way at once, in these ends' configuration.
pub const IN_FLIGHT: u32 = 256;
/// Octets of a daemon that a search must have seen at least: its program, its heap, its vault or its card's slots.
const LEAST_SEARCHED: u64 = 16 << 20;

/// Two daemons, and a KMS at each that this process is.
pub struct Ends {
    /// Their cards.
    pub cards: Cards,
    /// The daemons: the leader, at end A, and the follower.
    pub modules: [Module; 2],
    /// The KMSs.
    pub kms: [HoldingKms; 2],
    /// Test key that stands in each daemon's environment.
    pub canaries: [Cell; 2],
    stream: String,
}

/// What was found of the chunks that a KMS has acknowledged, and of those that it has not.
pub struct Seen {
    /// Places of acknowledged key.
    pub left_behind: BTreeSet<(Dress, String)>,
    /// Chunks that were acknowledged.
    pub acknowledged: usize,
    /// Cells of chunks that were received and not answered: those that were found raw, and all.
    pub awaiting: (usize, usize),
    /// Cells of such chunks that were found in base64: they have been sent, so that nobody needs them so any more.
    pub sent_and_kept: usize,
    /// Octets of secret memory.
    pub secret: u64,
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Whole cells in a chunk.
#[must_use]
pub fn cells_in(chunk: &[u8]) -> Vec<Cell> {
    let mut cells = Vec::new();
    cells_of(chunk, |_, dress, cell| {
        if dress == Dress::Raw {
            cells.push(cell);
        }
    });
    cells
}

impl Ends {
    /// Starts all of it: two programs `daemon` with `vault.memory` as in `memory`, on cards that distil at `rate`, and a key
    /// stream that flows at both ends.
    ///
    /// # Panics
    /// When it does not flow in time.
    #[must_use]
    pub fn start(daemon: &Path, memory: &str, rate: &str, chunk_size: u32) -> Self {
        let cards = Cards::start(&["--weather", "calm", "--rate", rate, "--key", "positional"]);
        let kms = [HoldingKms::start(), HoldingKms::start()];
        // They stand in each daemon's environment, which is a part of its memory: a search that misses them is blind.
        let canaries: [Cell; 2] = [77, 78].map(|sequence| {
            let key = test_key(BlockName { session: 0xCA11_AB1E, sequence }, CELL);
            key.try_into().expect("one cell")
        });
        let more = format!(
            "[push]\nanswer_deadline_ms = 600000\nmost_in_flight = {IN_FLIGHT}\n[streams]\nwindow_chunks = 4096\n"
        );
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
        Self { cards, modules: [a, b], kms, canaries, stream }
    }

    /// Searches the memory of the daemon at `end`, stopped, for all that its KMS has got. With `all`, every chunk counts as
    /// acknowledged.
    ///
    /// # Panics
    /// When the search was blind.
    #[must_use]
    pub fn look(&self, end: usize, all: bool) -> Seen {
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
    ///
    /// # Panics
    /// When one does.
    pub fn nothing_in_files_and_logs(&self) {
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
    ///
    /// # Panics
    /// When that is refused.
    pub fn close(&self) {
        for module in &self.modules {
            let body = format!("{{\"key_stream_id\":{:?}}}", self.stream);
            let (code, said) = call(module.api, "PUT", "close", &body);
            assert!((200..300).contains(&code), "{code} {said}");
        }
    }

    /// Kills both daemons in a way that leaves a core file where one may be left.
    ///
    /// # Panics
    /// When one is left, or one of the files holds test key.
    pub fn no_core(mut self) {
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
