//! All processes of the demonstration, on their stage: a directory and free ports of this machine.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::Command;

use super::configuration::{Daemon, KMS};
use super::memory::PAIR;
use super::process::{Process, ProcessError};
use super::proxy::Proxy;
use super::{Args, DemoError};

/// Longest time until a process is ready. A busy machine takes long.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Longest time until a process that was asked to has ended.
const END_WITHIN: Duration = Duration::from_secs(30);

/// Where things are.
pub(super) struct Places {
    pub(super) directory: PathBuf,
    pub(super) sim: PathBuf,
    pub(super) qkdd: PathBuf,
}

impl Places {
    pub(super) fn history(&self, end: usize) -> PathBuf {
        self.directory.join(["a.history", "b.history"].get(end).copied().unwrap_or("history"))
    }
}

/// The running processes.
pub(super) struct Cast {
    pub(super) pair: Process,
    pub(super) daemons: Vec<Process>,
    pub(super) kms: Vec<Process>,
    pub(super) proxy: Option<Proxy>,
}

impl Cast {
    /// Starts everything, each once what it needs is ready. On an error `self` has what was started until then.
    pub(super) async fn start(args: &Args, places: &Places) -> Result<Self, (Option<Self>, DemoError)> {
        let pair = start_pair(args, places).map_err(|error| (None, error.into()))?;
        let mut cast = Self { pair, daemons: Vec::new(), kms: Vec::new(), proxy: None };
        match cast.enter(args, places).await {
            Ok(()) => Ok(cast),
            Err(error) => Err((Some(cast), error)),
        }
    }

    async fn enter(&mut self, args: &Args, places: &Places) -> Result<(), DemoError> {
        self.pair.wait_line("ready", "get ready", READY_WITHIN).await?;
        let endpoints = free_ports().map_err(DemoError::Ports)?;
        let mut apis = Vec::new();
        for (end, endpoint) in endpoints.into_iter().enumerate() {
            let peer = self.proxy.as_ref().map(|proxy| proxy.address);
            let mut daemon = start_daemon(args, places, end, endpoint, peer)?;
            let ready = daemon.wait_line("ready ", "get ready", READY_WITHIN).await;
            self.daemons.push(daemon);
            let ready = ready?;
            let address = |name: &str| {
                ready.split(' ').find_map(|word| word.strip_prefix(name)?.parse::<SocketAddr>().ok())
            };
            let strange = || DemoError::Strange { line: ready.clone() };
            apis.push(address("api=").ok_or_else(strange)?);
            if end == 0 {
                let target = address("peer=").ok_or_else(strange)?;
                self.proxy = Some(Proxy::start(target).await.map_err(DemoError::Ports)?);
            }
        }
        for (end, (api, endpoint)) in apis.into_iter().zip(endpoints).enumerate() {
            let mut kms = start_kms(args, places, end, api, endpoint)?;
            let ready = kms.wait_line("listening ", "listen", READY_WITHIN).await;
            self.kms.push(kms);
            ready?;
        }
        Ok(())
    }

    /// All processes.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Process> {
        self.kms.iter_mut().chain(&mut self.daemons).chain(std::iter::once(&mut self.pair))
    }

    /// Lets the KMSs close their streams and end.
    pub(super) async fn close_streams(&mut self) -> Result<(), ProcessError> {
        self.kms.iter().for_each(Process::terminate);
        for kms in &mut self.kms {
            kms.finish(END_WITHIN).await?;
        }
        Ok(())
    }

    /// Ends the daemons and the pair in order.
    pub(super) async fn leave(&mut self) -> Result<(), ProcessError> {
        self.daemons.iter().for_each(Process::terminate);
        for daemon in &mut self.daemons {
            daemon.finish(END_WITHIN).await?;
        }
        self.pair.terminate();
        self.pair.finish(END_WITHIN).await
    }

    /// Ends whatever still runs.
    pub(super) async fn end(&mut self) {
        for process in self.all() {
            process.end().await;
        }
    }
}

fn start_pair(args: &Args, places: &Places) -> Result<Process, ProcessError> {
    let mut command = Command::new(&places.sim);
    command
        .args(["pair", "--key", "positional", "--weather", "calm", "--json", "--rate", &args.rate])
        .arg("--socket-a")
        .arg(places.directory.join("a.sock"))
        .arg("--socket-b")
        .arg(places.directory.join("b.sock"));
    if let Some(seed) = args.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    if !args.no_trouble {
        let at = args.lost_block_at().as_millis();
        command.args(["--fault", &format!("at={at}ms end=b kind=lose-block count=1")]);
    }
    Process::start(PAIR, command, &places.directory)
}

fn start_daemon(
    args: &Args,
    places: &Places,
    end: usize,
    kms_endpoint: SocketAddr,
    peer: Option<SocketAddr>,
) -> Result<Process, DemoError> {
    let (name, socket) = if end == 0 { ("qkdd-a", "a.sock") } else { ("qkdd-b", "b.sock") };
    let socket = places.directory.join(socket);
    let daemon = Daemon {
        end,
        socket: &socket,
        peer,
        kms_endpoint,
        streams: args.streams,
        chunk_size: args.chunk_size,
    };
    let path = places.directory.join(format!("{name}.toml"));
    std::fs::write(&path, daemon.toml())
        .map_err(|source| DemoError::Directory { path: path.clone(), source })?;
    let mut command = Command::new(&places.qkdd);
    command.arg("--config").arg(&path);
    Ok(Process::start(name, command, &places.directory)?)
}

fn start_kms(
    args: &Args,
    places: &Places,
    end: usize,
    api: SocketAddr,
    endpoint: SocketAddr,
) -> Result<Process, ProcessError> {
    let mut command = Command::new(&places.sim);
    let streams = args.streams.to_string();
    let chunk_size = args.chunk_size.to_string();
    let ids = places.directory.join("key-stream-ids");
    command
        .args(["kms", "--json", "--key", "positional", "--source", KMS[0], "--destination", KMS[1]])
        .args(["--streams", &streams, "--chunk-size", &chunk_size])
        .args(["--listen", &endpoint.to_string(), "--module", &format!("http://{api}")])
        .arg("--history")
        .arg(places.history(end));
    if end == 0 {
        command.arg("--open").arg("--ids-out").arg(ids);
    } else {
        command.arg("--join-from").arg(ids);
        if !args.no_trouble {
            let (at, lasts) = (args.refusal_at().as_millis(), super::TROUBLE_LASTS.as_millis());
            command.args(["--trouble", &format!("at={at}ms kind=503 for={lasts}ms")]);
        }
    }
    Process::start(if end == 0 { "kms-a" } else { "kms-b" }, command, &places.directory)
}

/// Two ports that are free now. Another program may take one before the KMS does, which then says so.
fn free_ports() -> io::Result<[SocketAddr; 2]> {
    let (a, b) = (TcpListener::bind(("127.0.0.1", 0))?, TcpListener::bind(("127.0.0.1", 0))?);
    Ok([a.local_addr()?, b.local_addr()?])
}

/// The program `qkdd`: the one named, or the one beside this program.
pub(super) fn find_qkdd(named: Option<&Path>, sim: &Path) -> Result<PathBuf, DemoError> {
    let path = named.map_or_else(|| sim.with_file_name("qkdd"), Path::to_owned);
    if path.is_file() { Ok(path) } else { Err(DemoError::NoDaemon { path }) }
}

/// Signals that end the demonstration early.
pub(super) struct Interruption(Vec<tokio::signal::unix::Signal>);

impl Interruption {
    pub(super) fn new() -> io::Result<Self> {
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .map(|number| {
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(number as i32))
            })
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// Waits for one of them.
    pub(super) async fn wait(&mut self) {
        let waiting = self.0.iter_mut().map(|signal| Box::pin(signal.recv()));
        let _ = futures_util::future::select_all(waiting).await;
    }
}
