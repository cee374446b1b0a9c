//! A simulated QKD link with a daemon at each end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::DEADLINE;
use crate::process::Process;
use crate::programs::program;

/// Two simulated cards on one link.
pub struct Cards {
    /// `qkd-sim pair`.
    pub process: Process,
    /// Socket of the transmitter's card, at end A.
    pub socket_a: PathBuf,
    /// Socket of the receiver's card, at end B.
    pub socket_b: PathBuf,
    /// Where the sockets and configurations lie; gone with this value.
    pub folder: TempDir,
}

impl Cards {
    /// Starts a pair with further options of `qkd-sim pair` and waits until it serves.
    #[must_use]
    pub fn start(options: &[&str]) -> Self {
        Self::start_in(TempDir::new().expect("a temporary folder"), options)
    }

    /// As [`Cards::start`], in a folder of the caller's choice.
    #[must_use]
    pub fn start_in(folder: TempDir, options: &[&str]) -> Self {
        Self::start_with(folder, options, &[])
    }

    /// As [`Cards::start_in`], with this in their environment.
    #[must_use]
    pub fn start_with(folder: TempDir, options: &[&str], environment: &[(&str, &str)]) -> Self {
        let (socket_a, socket_b) = (folder.path().join("a.sock"), folder.path().join("b.sock"));
        let mut command = Command::new(program("qkd-sim"));
        command.arg("pair").arg("--socket-a").arg(&socket_a).arg("--socket-b").arg(&socket_b).args(options);
        command.envs(environment.iter().copied());
        let process = Process::start("qkd-sim pair", &mut command);
        let _ = process.line("ready", DEADLINE);
        Self { process, socket_a, socket_b, folder }
    }
}

/// One end's configuration, with what differs between tests.
pub struct ModuleConfig<'a> {
    /// Module name, also the configuration's file name.
    pub name: &'a str,
    /// `leader` or `follower`.
    pub role: &'a str,
    /// The card's socket.
    pub socket: &'a Path,
    /// The line under `[peer]` that says `listen = …` or `connect = …`.
    pub peer: String,
    /// URI of the KMS at the other end; several with commas between them.
    pub peer_kms: &'a str,
    /// URI and base URL of the local KMS.
    pub kms: (&'a str, String),
    /// Further TOML, whole sections.
    pub more: &'a str,
}

/// A running daemon.
pub struct Module {
    /// `qkdd`.
    pub process: Process,
    /// Where its API listens.
    pub api: SocketAddr,
    /// Where it listens for the other daemon, when it does.
    pub peer: Option<SocketAddr>,
}

impl ModuleConfig<'_> {
    /// Writes the configuration into `folder`. It also starts for users who may lock little memory.
    #[must_use]
    pub fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join(format!("{}.toml", self.name));
        let ledger = folder.join(format!("ledger-{}", self.name));
        let peer_kms: Vec<&str> = self.peer_kms.split(", ").collect();
        let text = format!(
            "[module]\nname = {:?}\nrole = {:?}\n[card]\nsocket = {:?}\n[api]\nlisten = \"127.0.0.1:0\"\n\
             [peer]\n{}\nkms = {:?}\n[[kms]]\nuri = {:?}\nendpoint = {:?}\n\
             [ledger]\ndirectory = {ledger:?}\n\
             [vault]\nunlocked_memory_lets_keys_reach_swap = true\n{}\n",
            self.name, self.role, self.socket, self.peer, peer_kms, self.kms.0, self.kms.1, self.more
        );
        std::fs::write(&path, text).expect("the configuration can be written");
        path
    }

    /// Starts the daemon and waits until it says that it is ready.
    #[must_use]
    pub fn start(&self, folder: &Path) -> Module {
        let mut command = Command::new(program("qkdd"));
        command.arg("--config").arg(self.write(folder));
        self.start_as(&mut command)
    }

    /// As [`ModuleConfig::start`], by a command that ends in being the daemon.
    #[must_use]
    pub fn start_as(&self, command: &mut Command) -> Module {
        let process = Process::start(&format!("qkdd {}", self.name), command);
        let line = process.line("ready ", DEADLINE);
        let field = |name: &str| {
            line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        };
        let api = field("api").unwrap_or_else(|| panic!("no api address in {line:?}"));
        Module { process, api, peer: field("peer") }
    }
}

/// A leader at end A and a follower at end B, which connects.
pub struct Pair {
    /// Leader, serving `kms://a`.
    pub a: Module,
    /// Follower, serving `kms://b`.
    pub b: Module,
    /// Their cards.
    pub cards: Cards,
}

impl Pair {
    /// Starts everything. `kms_a` and `kms_b` are the base URLs that key is pushed to.
    #[must_use]
    pub fn start(cards: &[&str], kms_a: String, kms_b: String, more: &str) -> Self {
        let cards = Cards::start(cards);
        let a = ModuleConfig {
            name: "A",
            role: "leader",
            socket: &cards.socket_a,
            peer: "listen = \"127.0.0.1:0\"".into(),
            peer_kms: "kms://b",
            kms: ("kms://a", kms_a),
            more,
        }
        .start(cards.folder.path());
        let peer = a.peer.expect("the leader listens");
        let b = ModuleConfig {
            name: "B",
            role: "follower",
            socket: &cards.socket_b,
            peer: format!("connect = \"{peer}\""),
            peer_kms: "kms://a",
            kms: ("kms://b", kms_b),
            more,
        }
        .start(cards.folder.path());
        Self { a, b, cards }
    }
}
