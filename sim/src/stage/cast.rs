//! All processes, on their stage: a directory and free ports of this machine.

use std::fs::DirBuilder;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;

use super::configuration::{Daemon, KMS, Peer};
use super::process::{Process, ProcessError};
use super::proxy::Proxy;
use super::{Places, StageError};
use crate::lab::Lab;

/// Name of the process that simulates the cards.
pub(crate) const PAIR: &str = "pair";
/// Days that a run's certificates are good, which is longer than any run.
const CERTIFICATE_DAYS: u32 = 30;
/// Longest time until a process is ready. A busy machine takes long.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Longest time until a process that was asked to has ended.
pub(crate) const END_WITHIN: Duration = Duration::from_secs(30);

/// What the processes are to be like.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Secret key rate of the link, as the pair takes it.
    pub(crate) rate: String,
    /// Repeats the link's behaviour.
    pub(crate) seed: Option<u64>,
    /// Streams at once.
    pub(crate) streams: u32,
    /// Octets of the largest chunk.
    pub(crate) largest_chunk: u32,
    /// Memory for key at each daemon.
    pub(crate) vault_bytes: u64,
    /// What else the pair is told.
    pub(crate) pair: Vec<String>,
    /// What else both KMSs are told, and what each is.
    pub(crate) kms: [Vec<String>; 3],
    /// Every link has TLS, with certificates that are made for this run.
    pub(crate) tls: bool,
    /// More of both daemons' configurations.
    pub(crate) more: &'static str,
}

/// Where a daemon is found.
#[derive(Clone, Copy, Debug)]
struct Address {
    api: SocketAddr,
    peer: Option<SocketAddr>,
    /// Its KMS.
    endpoint: SocketAddr,
}

/// The running processes.
pub(crate) struct Cast {
    pub(crate) pair: Process,
    pub(crate) daemons: Vec<Process>,
    pub(crate) kms: Vec<Process>,
    pub(crate) proxy: Option<Proxy>,
    addresses: Vec<Address>,
}

impl Cast {
    /// Starts everything, each once what it needs is ready. On an error `self` has what was started until then.
    pub(crate) async fn start(script: &Script, places: &Places) -> Result<Self, (Option<Self>, StageError)> {
        let pair = start_pair(script, places).map_err(|error| (None, error.into()))?;
        let mut cast =
            Self { pair, daemons: Vec::new(), kms: Vec::new(), proxy: None, addresses: Vec::new() };
        match cast.enter(script, places).await {
            Ok(()) => Ok(cast),
            Err(error) => Err((Some(cast), error)),
        }
    }

    async fn enter(&mut self, script: &Script, places: &Places) -> Result<(), StageError> {
        if script.tls {
            let lab = Lab { hosts: [vec![], vec![]], kms: KMS.map(str::to_owned), days: CERTIFICATE_DAYS };
            lab.write(&certificates(places))?;
        }
        self.pair.wait_line("ready", "get ready", READY_WITHIN).await?;
        let endpoints = free_ports().map_err(StageError::Ports)?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        for (end, endpoint) in endpoints.into_iter().enumerate() {
            self.addresses.push(Address { api: any, peer: (end == 0).then_some(any), endpoint });
            let daemon = self.start_daemon(script, places, end)?;
            self.daemons.push(daemon);
            let Some(daemon) = self.daemons.last_mut() else { continue };
            let ready = daemon.wait_line("ready ", "get ready", READY_WITHIN).await?;
            let said = |name: &str| {
                ready.split(' ').find_map(|word| word.strip_prefix(name)?.parse::<SocketAddr>().ok())
            };
            let strange = || StageError::Strange { line: ready.clone() };
            let address = self.addresses.get_mut(end).ok_or_else(strange)?;
            address.api = said("api=").ok_or_else(strange)?;
            if end == 0 {
                let target = said("peer=").ok_or_else(strange)?;
                address.peer = Some(target);
                self.proxy = Some(Proxy::start(target).await.map_err(StageError::Ports)?);
            }
        }
        for (end, address) in self.addresses.iter().enumerate() {
            let mut kms = start_kms(script, places, end, *address)?;
            let ready = kms.wait_line("listening ", "listen", READY_WITHIN).await;
            self.kms.push(kms);
            ready?;
        }
        Ok(())
    }

    /// Starts the daemon at `end`, at the addresses that it had before if it had any.
    pub(crate) fn start_daemon(
        &self,
        script: &Script,
        places: &Places,
        end: usize,
    ) -> Result<Process, StageError> {
        let (name, socket) = if end == 0 { ("qkdd-a", "a.sock") } else { ("qkdd-b", "b.sock") };
        let strange = || StageError::Strange { line: format!("no end {end}") };
        let address = self.addresses.get(end).ok_or_else(strange)?;
        let peer = match (address.peer, &self.proxy) {
            (Some(listen), _) => Peer::Listen(listen),
            (None, Some(proxy)) => Peer::Connect(proxy.address),
            (None, None) => return Err(strange()),
        };
        let socket = places.directory.join(socket);
        let certificates = certificates(places);
        let daemon = Daemon {
            end,
            socket: &socket,
            api: address.api,
            peer,
            kms_endpoint: address.endpoint,
            streams: script.streams,
            largest_chunk: script.largest_chunk,
            vault_bytes: script.vault_bytes,
            certificates: script.tls.then_some(&certificates),
            more: script.more,
        };
        let path = places.directory.join(format!("{name}.toml"));
        std::fs::write(&path, daemon.toml())
            .map_err(|source| StageError::Directory { path: path.clone(), source })?;
        let mut command = Command::new(&places.qkdd);
        let ledger = places.ledger(end);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&ledger)
            .map_err(|source| StageError::Directory { path: ledger.clone(), source })?;
        command.arg("--config").arg(&path).env("STATE_DIRECTORY", ledger);
        Ok(Process::start(name, command, &places.directory)?)
    }

    /// All processes.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut Process> {
        self.kms.iter_mut().chain(&mut self.daemons).chain(std::iter::once(&mut self.pair))
    }

    /// Lets the KMSs close their streams and end.
    pub(crate) async fn close_streams(&mut self) -> Result<(), ProcessError> {
        self.kms.iter().for_each(Process::terminate);
        for kms in &mut self.kms {
            kms.finish(END_WITHIN).await?;
        }
        Ok(())
    }

    /// Ends the daemons and the pair in order.
    pub(crate) async fn leave(&mut self) -> Result<(), ProcessError> {
        self.daemons.iter().for_each(Process::terminate);
        for daemon in &mut self.daemons {
            daemon.finish(END_WITHIN).await?;
        }
        self.pair.terminate();
        self.pair.finish(END_WITHIN).await
    }

    /// Ends whatever still runs.
    pub(crate) async fn end(&mut self) {
        for process in self.all() {
            process.end().await;
        }
    }
}

/// Where the certificates of a run are.
fn certificates(places: &Places) -> PathBuf {
    let directory = places.directory.join("certificates");
    // A configuration has absolute paths only.
    std::path::absolute(&directory).unwrap_or(directory)
}

fn start_pair(script: &Script, places: &Places) -> Result<Process, ProcessError> {
    let mut command = Command::new(&places.sim);
    command
        .args(["pair", "--key", "positional", "--weather", "calm", "--json", "--rate", &script.rate])
        .arg("--socket-a")
        .arg(places.directory.join("a.sock"))
        .arg("--socket-b")
        .arg(places.directory.join("b.sock"))
        .args(&script.pair);
    if let Some(seed) = script.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    Process::start(PAIR, command, &places.directory)
}

fn start_kms(
    script: &Script,
    places: &Places,
    end: usize,
    address: Address,
) -> Result<Process, ProcessError> {
    let mut command = Command::new(&places.sim);
    let ids = places.directory.join("key-stream-ids");
    let [both, a, b] = &script.kms;
    let module = format!("{}://{}", if script.tls { "https" } else { "http" }, address.api);
    command.arg("kms");
    if script.tls {
        let (certificates, name) = (certificates(places), if end == 0 { "kms-a" } else { "kms-b" });
        command
            .arg("--certificate")
            .arg(certificates.join(format!("{name}.pem")))
            .arg("--certificate-key")
            .arg(certificates.join(format!("{name}.key")))
            .arg("--authorities")
            .arg(certificates.join("authority.pem"));
    }
    command
        .args(["--json", "--key", "positional", "--source", KMS[0], "--destination", KMS[1]])
        .args(["--streams", &script.streams.to_string()])
        .args(["--listen", &address.endpoint.to_string(), "--module", &module])
        .arg("--history")
        .arg(places.history(end))
        .args(both);
    if end == 0 {
        command.arg("--open").arg("--ids-out").arg(ids).args(a);
    } else {
        command.arg("--join-from").arg(ids).args(b);
    }
    Process::start(if end == 0 { "kms-a" } else { "kms-b" }, command, &places.directory)
}

/// Two ports that are free now. Another program may take one before the KMS does, which then says so.
fn free_ports() -> io::Result<[SocketAddr; 2]> {
    let (a, b) = (TcpListener::bind(("127.0.0.1", 0))?, TcpListener::bind(("127.0.0.1", 0))?);
    Ok([a.local_addr()?, b.local_addr()?])
}
