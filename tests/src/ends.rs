//! Both ends of a link with their KMSs, whose daemons end and start again where they were.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::DEADLINE;
use crate::module::{Cards, Module, ModuleConfig};
use crate::ports::free_ports;
use crate::process::Process;
use crate::programs::program;

/// Between two looks at what the KMSs have got.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A steady link with test key that tells where it comes from.
const POSITIONAL: [&str; 6] = ["--weather", "calm", "--rate", "4M", "--key", "positional"];
const NAMES: [&str; 2] = ["A", "B"];
const KMS: [&str; 2] = ["kms://a", "kms://b"];

/// Two cards, two daemons, two KMSs.
pub struct Ends {
    /// The cards.
    pub cards: Cards,
    /// The daemons: the leader, at end A, and the follower.
    pub modules: [Option<Module>; 2],
    kms: [Option<Process>; 2],
    api: [SocketAddr; 2],
    peer: SocketAddr,
    /// What the daemons are told of the KMSs, who listen there unless they have sockets.
    pub endpoints: [SocketAddr; 2],
    /// UNIX sockets on which the KMSs listen instead.
    sockets: Option<[PathBuf; 2]>,
    /// Further TOML for both daemons.
    more: String,
    /// Pairs of KMSs that were started.
    rounds: u32,
}

impl Ends {
    /// Starts cards with these options, and both daemons.
    #[must_use]
    pub fn start(cards: &[&str]) -> Self {
        Self::start_with(cards, "")
    }

    /// As [`Ends::start`], with further TOML for both daemons: lines of `[vault]`, then whole sections.
    #[must_use]
    pub fn start_with(cards: &[&str], more: &str) -> Self {
        Self::prepare(cards, more).in_step()
    }

    /// As [`Ends::start`], with test key that tells where it comes from, which the daemons then must accept.
    #[must_use]
    pub fn start_positional() -> Self {
        Self::start(&POSITIONAL)
    }

    /// As [`Ends::start_positional`], with KMSs that listen on UNIX sockets.
    #[must_use]
    pub fn start_with_sockets() -> Self {
        let mut ends = Self::prepare(&POSITIONAL, "");
        ends.sockets = Some(NAMES.map(|name| ends.folder().join(format!("kms-{name}.sock"))));
        ends.in_step()
    }

    fn prepare(cards: &[&str], more: &str) -> Self {
        let [api_a, api_b, peer, endpoint_a, endpoint_b] = free_ports();
        Self {
            cards: Cards::start(cards),
            modules: [None, None],
            kms: [None, None],
            api: [api_a, api_b],
            peer,
            endpoints: [endpoint_a, endpoint_b],
            sockets: None,
            more: more.to_owned(),
            rounds: 0,
        }
    }

    fn in_step(mut self) -> Self {
        self.start_module(0);
        self.start_module(1);
        let _ = self.module(1).process.line("takes over epoch", DEADLINE);
        self
    }

    fn folder(&self) -> &Path {
        self.cards.folder.path()
    }

    /// The ledger of the daemon at `end`.
    #[must_use]
    pub fn ledger(&self, end: usize) -> PathBuf {
        self.folder().join(format!("ledger-{}", NAMES[end])).join("ledger.redb")
    }

    /// The daemon at `end`, which runs.
    #[must_use]
    pub fn module(&self, end: usize) -> &Module {
        self.modules[end].as_ref().expect("it runs")
    }

    /// Starts the daemon at `end`.
    pub fn start_module(&mut self, end: usize) {
        self.start_module_by(end, &[]);
    }

    /// As [`Ends::start_module`], by a program that becomes the daemon, with its arguments.
    pub fn start_module_by(&mut self, end: usize, by: &[&str]) {
        let socket = if end == 0 { &self.cards.socket_a } else { &self.cards.socket_b };
        let peer = if end == 0 { "listen" } else { "connect" };
        let config = ModuleConfig {
            name: NAMES[end],
            role: if end == 0 { "leader" } else { "follower" },
            socket,
            peer: format!("{peer} = \"{}\"", self.peer),
            peer_kms: KMS[1 - end],
            kms: (KMS[end], format!("http://{}", self.endpoints[end])),
            more: &self.more,
        };
        let path = config.write(self.folder());
        let text = std::fs::read_to_string(&path).expect("the configuration was written");
        let text = text.replacen("127.0.0.1:0", &self.api[end].to_string(), 1);
        let text = text.replacen("[api]", "accept_test_key = true\n[api]", 1);
        let through = self.sockets.as_ref().map_or_else(String::new, |s| format!("through = {:?}\n", s[end]));
        let text = text.replacen("[ledger]", &format!("{through}[ledger]"), 1);
        std::fs::write(&path, text).expect("and can be written again");
        let words: Vec<_> = by.iter().map(Into::into).chain([program("qkdd").into_os_string()]).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("--config").arg(path);
        self.modules[end] = Some(config.start_as(&mut command));
    }

    /// Kills the daemon at `end`, as a power cut would.
    pub fn kill(&mut self, end: usize) {
        let mut module = self.modules[end].take().expect("it runs");
        module.process.signal(Signal::SIGKILL);
        let _ = module.process.wait(DEADLINE);
    }

    /// Ends the daemon at `end` in order.
    pub fn terminate(&mut self, end: usize) {
        let mut module = self.modules[end].take().expect("it runs");
        module.process.signal(Signal::SIGTERM);
        let status = module.process.wait(DEADLINE);
        assert!(status.success(), "{}", module.process.output());
    }

    /// Starts both KMSs, which open `streams` key streams.
    pub fn start_kms(&mut self, streams: u32) {
        self.rounds += 1;
        let ids = self.folder().join(format!("ids-{}", self.rounds));
        for (end, name) in NAMES.iter().enumerate() {
            let place = match &self.sockets {
                Some(sockets) => sockets[end].display().to_string(),
                None => self.endpoints[end].to_string(),
            };
            let mut command = Command::new(program("qkd-sim"));
            command
                .args(["kms", "--json", "--key", "positional", "--source", KMS[0], "--destination", KMS[1]])
                .args(["--streams", &streams.to_string(), "--report-every", "50ms"])
                .args(["--listen", &place])
                .args(["--module", &format!("http://{}", self.api[end])])
                .arg("--history")
                .arg(self.history(end));
            match end {
                0 => command.arg("--open").arg("--ids-out").arg(&ids),
                _ => command.arg("--join-from").arg(&ids),
            };
            let process = Process::start(&format!("kms {name}"), &mut command);
            let _ = process.line("listening ", DEADLINE);
            self.kms[end] = Some(process);
        }
    }

    /// The history of the KMS at `end`.
    #[must_use]
    pub fn history(&self, end: usize) -> PathBuf {
        self.folder().join(format!("{}-{}.history", NAMES[end], self.rounds))
    }

    /// A number in the newest line of the KMS at `end`.
    #[must_use]
    pub fn says(&self, end: usize, member: &str) -> u64 {
        let output = self.kms[end].as_ref().expect("it runs").output();
        let name = format!("\"{member}\":");
        let line =
            output.lines().rev().find(|line| line.contains("\"event\":\"status\"")).unwrap_or_default();
        let digits =
            line.split_once(&name).map(|(_, rest)| rest.split([',', '}']).next().unwrap_or_default());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// Whether each card retains more than so many octets, by what cards print that were started with `--json`.
    #[must_use]
    pub fn cards_retain(&self, bytes: u64) -> bool {
        let output = self.cards.process.output();
        let line = output.lines().rev().find(|line| line.starts_with("{\"seconds\"")).unwrap_or_default();
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let cards = line["cards"].as_array().map_or(&[][..], Vec::as_slice);
        cards.len() == 2 && cards.iter().all(|card| card["retained_bytes"].as_u64() > Some(bytes))
    }

    /// Waits until both KMSs have got `more` chunks more than now.
    pub fn wait_for_chunks(&self, more: u64) {
        let wanted = [0, 1].map(|end| self.says(end, "chunks") + more);
        self.wait_until("chunks at both ends", |ends| {
            (0..2).all(|end| ends.says(end, "chunks") >= wanted[end])
        });
    }

    /// Waits until something is so.
    ///
    /// # Panics
    /// When it is not so in time.
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let until = Instant::now() + DEADLINE;
        while !is_so(self) {
            assert!(Instant::now() < until, "no {what} in time");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Lets both KMSs close their streams and end, and answers whether every check of theirs was good.
    pub fn end_kms(&mut self) -> bool {
        for kms in self.kms.iter().flatten() {
            kms.signal(Signal::SIGTERM);
        }
        let mut good = true;
        for kms in &mut self.kms {
            let mut kms = kms.take().expect("it runs");
            let status = kms.wait(DEADLINE);
            good &= status.success();
            if !status.success() {
                println!(
                    "{}",
                    kms.output().lines().filter(|l| !l.contains("\"status\"")).collect::<Vec<_>>().join("\n")
                );
            }
        }
        good
    }

    /// Holds both histories against each other.
    ///
    /// # Panics
    /// When they do not agree.
    #[must_use]
    pub fn check(&self) -> String {
        let mut command = Command::new(program("qkd-sim"));
        command.arg("check").arg(self.history(0)).arg(self.history(1));
        let output = command.output().expect("the checker runs");
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{said}");
        said
    }
}
