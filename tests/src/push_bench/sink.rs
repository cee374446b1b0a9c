//! The sink: both KMSs and the target of the load generator, in one thread of a process of its own. It reads every octet that
//! means something and answers as cheaply as can be.
//!
//! It listens at three doors: 0 and 1 for the daemons at both ends, with client certificates where there is TLS, and 2 for the
//! load generator, which has none. The first two can be UNIX sockets. On its standard input it is asked for its counts: a line
//! `counts` is answered with one of JSON.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use serde::{Deserialize, Serialize};

use super::ANSWER;
use super::checker::{Checker, Taken};
use super::request::Framing;
use super::wire::{READ, Wire};
use crate::secure::{classical, hybrid, identity, issued, provider, roots};

/// Answers that are written at once.
const ANSWERS: usize = 1024;
/// The load generator's door.
const LOAD: usize = 2;

/// What came so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Chunks at each end, in order and whole; and of the load generator, whole.
    pub chunks: [u64; 3],
    /// Requests that were refused: repeated, skipped, malformed, or with other key than at the other end.
    pub refused: u64,
    /// Why the first one was.
    pub fault: String,
    /// Messages without key.
    pub notices: u64,
    /// Connections, at each door.
    pub connections: [u64; 3],
    /// Chunks that were held against the other end's.
    pub agreed: u64,
    /// Streams that key came for at both ends.
    pub flowing: usize,
}

/// What a sink's process is told.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Told {
    /// Octets of a chunk.
    chunk: usize,
    /// Directory of certificates, where there is TLS.
    #[arg(long)]
    lab: Option<PathBuf>,
    /// The UNIX sockets of the first two doors, where they are no ports.
    #[arg(long, num_args = 2)]
    sockets: Vec<PathBuf>,
}

/// What tells a sink's process, for [`run`].
#[must_use]
pub fn tell(chunk: u32, lab: Option<&Path>, sockets: Option<&[PathBuf; 2]>) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![chunk.to_string().into()];
    words.extend(lab.into_iter().flat_map(|lab| ["--lab".into(), lab.into()]));
    words.extend(sockets.into_iter().flat_map(|[a, b]| ["--sockets".into(), a.into(), b.into()]));
    words
}

/// A sink's process, told so, works until its standard input ends.
///
/// # Panics
/// When it cannot work at all.
#[must_use]
pub fn run(arguments: &[String]) -> ExitCode {
    let told = Told::parse_from(arguments);
    let tls = match &told.lab {
        Some(lab) => doors(lab).map(Some),
        None => [const { None }; 3],
    };
    // Ports of all three in any case, as an endpoint has one also where it is reached in another way.
    let ports = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let [a, b, load] = ports.each_ref().map(|door| door.local_addr().expect("its address"));
    let mut listeners = ports.map(Listener::Tcp);
    for (listener, path) in listeners.iter_mut().zip(&told.sockets) {
        *listener = Listener::Unix(UnixListener::bind(path).expect("a socket's place"));
    }
    println!("listening {a} {b} {load}");
    let state = Arc::new(Mutex::new(State { checker: Checker::new(told.chunk), counts: Counts::default() }));
    let shared = Arc::clone(&state);
    std::thread::spawn(move || {
        let sink = Sink { tls, listeners, state, connections: Vec::new(), answers: ANSWER.repeat(ANSWERS) };
        sink.work().expect("epoll works");
    });
    for line in io::stdin().lock().lines() {
        if line.is_ok_and(|line| line == "counts") {
            let State { checker, counts } = &mut *shared.lock().unwrap_or_else(PoisonError::into_inner);
            (counts.agreed, counts.flowing) = (checker.agreed(), checker.flowing());
            println!("{}", serde_json::to_string(counts).expect("JSON"));
        }
    }
    ExitCode::SUCCESS
}

/// TLS of each door.
fn doors(lab: &Path) -> [Arc<ServerConfig>; 3] {
    let authority = Arc::new(roots(&issued(lab, "authority")));
    [("kms-a", true), ("kms-b", true), ("kms-a", false)].map(|(name, asks)| {
        let provider = provider([hybrid(), classical()].concat());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3");
        let builder = if asks {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&authority), provider);
            builder.with_client_cert_verifier(verifier.build().expect("an authority"))
        } else {
            builder.with_no_client_auth()
        };
        let (chain, key) = identity(&issued(lab, name));
        Arc::new(builder.with_single_cert(chain, key).expect("a certificate"))
    })
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Does not wait afterwards.
    fn begin(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    fn accept(&self, tls: Option<&Arc<ServerConfig>>) -> io::Result<Wire> {
        match self {
            Self::Tcp(listener) => Wire::tcp(listener.accept()?.0, tls),
            Self::Unix(listener) => Wire::unix(listener.accept()?.0, tls),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

struct State {
    checker: Checker,
    counts: Counts,
}

struct Connection {
    wire: Wire,
    door: usize,
    framing: Framing,
    hint: usize,
}

struct Sink {
    tls: [Option<Arc<ServerConfig>>; 3],
    listeners: [Listener; 3],
    state: Arc<Mutex<State>>,
    /// By their descriptors.
    connections: Vec<Option<Connection>>,
    answers: Vec<u8>,
}

impl Sink {
    fn work(mut self) -> nix::Result<()> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (door, listener) in self.listeners.iter().enumerate() {
            listener.begin().expect("a socket");
            epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, u64::MAX - door as u64))?;
        }
        let mut events = vec![EpollEvent::empty(); 64];
        let mut scratch = vec![0; READ];
        loop {
            let ready = epoll.wait(&mut events, EpollTimeout::NONE);
            let ready = match ready {
                Err(nix::errno::Errno::EINTR) => continue,
                ready => ready?,
            };
            for event in &events[..ready] {
                if let Ok(door @ 0..=LOAD) = usize::try_from(u64::MAX - event.data()) {
                    self.accept(door, &epoll)?;
                    continue;
                }
                let at = usize::try_from(event.data()).expect("a descriptor");
                let Some(mut connection) = self.connections[at].take() else { continue };
                let full = event.events().contains(EpollFlags::EPOLLOUT);
                match self.serve(&mut connection, full, &mut scratch) {
                    // Without its socket it is out of epoll as well.
                    None => continue,
                    Some(flushed) if flushed == full => {
                        let wanted = if flushed { EpollFlags::EPOLLIN } else { EpollFlags::EPOLLOUT };
                        let mut event = EpollEvent::new(wanted, event.data());
                        epoll.modify(&connection.wire.socket, &mut event)?;
                    }
                    Some(_) => {}
                }
                self.connections[at] = Some(connection);
            }
        }
    }

    fn accept(&mut self, door: usize, epoll: &Epoll) -> nix::Result<()> {
        let Ok(wire) = self.listeners[door].accept(self.tls[door].as_ref()) else { return Ok(()) };
        let at = usize::try_from(wire.socket.as_raw_fd()).expect("a descriptor");
        epoll.add(&wire.socket, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
        if self.connections.len() <= at {
            self.connections.resize_with(at + 1, || None);
        }
        self.connections[at] = Some(Connection { wire, door, framing: Framing::default(), hint: 0 });
        self.state.lock().unwrap_or_else(PoisonError::into_inner).counts.connections[door] += 1;
        Ok(())
    }

    /// Takes what has come and answers it. Whether everything was written; `None`: the connection has ended.
    fn serve(&mut self, connection: &mut Connection, full: bool, scratch: &mut [u8]) -> Option<bool> {
        if full && !connection.wire.flush().ok()? {
            return Some(false);
        }
        if !connection.wire.read(scratch).ok()? {
            return None;
        }
        let taken = take(connection, &self.state)?;
        let mut left = taken * ANSWER.len();
        let mut flushed = true;
        while left > 0 {
            let now = left.min(self.answers.len());
            flushed = connection.wire.write(&self.answers[..now]).ok()?;
            left -= now;
        }
        Some(flushed)
    }
}

/// Reads every whole request; how many. `None`: one was refused.
fn take(connection: &mut Connection, state: &Mutex<State>) -> Option<usize> {
    let Connection { wire, door, framing, hint } = connection;
    let State { checker, counts } = &mut *state.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut at, mut requests) = (0, 0);
    let came = wire.unread();
    let refused = loop {
        let body = match framing.next(&came[at..]) {
            Ok(Some((body, octets))) => {
                at += octets;
                body
            }
            Ok(None) => break None,
            Err(fault) => break Some(fault.to_string()),
        };
        let taken = if *door == LOAD {
            checker.take_repeated(body).map(|()| Taken::Chunk)
        } else {
            checker.take(*door, hint, body)
        };
        match taken {
            Ok(Taken::Chunk) => counts.chunks[*door] += 1,
            Ok(Taken::Notice) => counts.notices += 1,
            Err(fault) => break Some(fault.to_string()),
        }
        requests += 1;
    };
    wire.done(at);
    if let Some(fault) = refused {
        counts.refused += 1;
        if counts.fault.is_empty() {
            counts.fault = fault;
        }
        return None;
    }
    Some(requests)
}
