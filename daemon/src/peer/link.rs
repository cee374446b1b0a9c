//! The link over the life of the daemon: accepting or connecting, again and again.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, timeout};

use super::connection::{Ended, Frames, Order, carry, first_frame, framed};
use super::{PeerEvent as Event, Times};
use crate::tls::{Socket, Throttle, Tls, Wire};

/// Where the other daemon is.
#[derive(Debug)]
pub enum Endpoint {
    /// This end waits for the other at this address.
    Listen(SocketAddr),
    /// This end waits for the other at a socket that was passed to it.
    Passed(std::net::TcpListener),
    /// This end connects to `host:port`.
    Connect(String),
    /// This end connects to a UNIX socket, behind which somebody connects on to the other daemon.
    Through(PathBuf),
}

/// What the link tells the engine.
#[derive(Debug)]
pub enum PeerEvent {
    /// A connection stands; frames may be sent.
    Connected,
    /// A frame has come; never empty.
    Frame(Vec<u8>),
    /// The connection has ended, for the reason given. Another follows by itself.
    Disconnected(String),
}

/// The link could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The listening address cannot be had.
    #[error(
        "peer link: cannot listen on {address}: {source}; set peer.listen to a free address of this host"
    )]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The socket that was passed cannot be used.
    #[error("peer link: the socket that systemd has passed cannot be used: {0}")]
    Passed(io::Error),
}

/// The engine's handle. Dropping it ends the link.
#[derive(Debug)]
pub struct Link {
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
    local: Option<SocketAddr>,
}

/// Orders that may wait for a slow peer. The key agreement resends, so that what is refused beyond is no loss.
const QUEUE: usize = 1024;

impl Link {
    /// Starts the link; what happens on it comes out of `events`. With `tls`, nobody but the other daemon gets in.
    ///
    /// # Errors
    /// [`LinkError::Listen`] when the address is taken or not this host's.
    pub async fn start(
        endpoint: Endpoint,
        times: Times,
        tls: Option<Arc<Tls>>,
        events: mpsc::Sender<PeerEvent>,
    ) -> Result<Self, LinkError> {
        let (orders, mut receiver) = mpsc::channel(QUEUE);
        let listener = match endpoint {
            Endpoint::Listen(address) => {
                let wrap = |source| LinkError::Listen { address, source };
                let listener = TcpListener::bind(address).await.map_err(wrap)?;
                let local = listener.local_addr().map_err(wrap)?;
                Ok((listener, local))
            }
            Endpoint::Passed(listener) => {
                listener.set_nonblocking(true).map_err(LinkError::Passed)?;
                let local = listener.local_addr().map_err(LinkError::Passed)?;
                Ok((TcpListener::from_std(listener).map_err(LinkError::Passed)?, local))
            }
            Endpoint::Connect(name) => Err(Way::Tcp(name)),
            Endpoint::Through(path) => Err(Way::Unix(path)),
        };
        let (task, local) = match listener {
            Ok((listener, local)) => {
                let task = async move { listen(listener, &times, tls, &mut receiver, &events).await };
                (tokio::spawn(task), Some(local))
            }
            Err(way) => {
                let task = async move { connect(&way, &times, tls.as_deref(), &mut receiver, &events).await };
                (tokio::spawn(task), None)
            }
        };
        Ok(Self { orders, task, local })
    }

    /// The address that this end listens on, when it listens.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Queues a frame. `false`: the queue is full, the frame is dropped, and the connection should be too.
    #[must_use]
    pub fn send(&self, frame: Vec<u8>) -> bool {
        self.orders.try_send(Order::Send(frame)).is_ok()
    }

    /// Ends the present connection after what was queued before; another follows by itself.
    pub fn disconnect(&self, reason: String) {
        // A full queue means that nothing moves: the write deadline ends such a connection anyway.
        let _ = self.orders.try_send(Order::Drop(reason));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How the other daemon is reached.
enum Way {
    Tcp(String),
    Unix(PathBuf),
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(name) => f.write_str(name),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

async fn connect(
    way: &Way,
    times: &Times,
    tls: Option<&Tls>,
    orders: &mut mpsc::Receiver<Order>,
    events: &mpsc::Sender<Event>,
) {
    let (first, greatest) = times.back_off;
    let mut pause = first;
    let refusals = Throttle::default();
    loop {
        match timeout(times.patience, reach(way, tls)).await {
            Ok(Ok(stream)) => {
                if events.send(Event::Connected).await.is_err() {
                    return;
                }
                let begin = Instant::now();
                let ended = carry(framed(stream), times, orders, events).await;
                // One that lasted was cut; one that did not is being refused, and hurry would not help.
                if begin.elapsed() > greatest {
                    pause = first;
                }
                if !report_end(ended, orders, events).await {
                    return;
                }
            }
            Ok(Err(NotReached::Unanswered(e))) => {
                log::debug!("peer link: {way} does not answer: {e}; trying again");
            }
            Ok(Err(NotReached::Untrusted(e))) => {
                if let Some(more) = refusals.may_say(Instant::now().into_std()) {
                    log::warn!(id = "peer.no_tls"; "peer link: no TLS connection with {way}: {e}; trying again{more}");
                }
            }
            Err(_) => log::debug!("peer link: {way} gave no answer in {:?}; trying again", times.patience),
        }
        sleep(pause).await;
        pause = (pause * 2).min(greatest);
    }
}

/// Why there is no connection.
enum NotReached {
    Unanswered(io::Error),
    Untrusted(io::Error),
}

async fn reach(way: &Way, tls: Option<&Tls>) -> Result<Wire, NotReached> {
    let stream = match way {
        Way::Tcp(name) => {
            let stream = TcpStream::connect(name).await.map_err(NotReached::Unanswered)?;
            let _ = stream.set_nodelay(true);
            Socket::Tcp(stream)
        }
        Way::Unix(path) => Socket::Unix(UnixStream::connect(path).await.map_err(NotReached::Unanswered)?),
    };
    let Some(tls) = tls else { return Ok(Wire::Plain(stream)) };
    let wire = tls.connect_peer(stream).await.map_err(NotReached::Untrusted)?;
    say_secure(&wire);
    Ok(wire)
}

fn say_secure(wire: &Wire) {
    if let Some(group) = wire.key_exchange() {
        log::info!(id = "peer.tls"; "peer link: TLS 1.3 with the other module, key exchange {group:?}");
    }
}

/// Tells the engine of an end and forgets what was queued for the old connection. `false`: the daemon is stopping.
async fn report_end(ended: Ended, orders: &mut mpsc::Receiver<Order>, events: &mpsc::Sender<Event>) -> bool {
    if matches!(ended, Ended::Stopping) {
        return false;
    }
    while orders.try_recv().is_ok() {}
    events.send(Event::Disconnected(ended.to_string())).await.is_ok()
}

async fn listen(
    listener: TcpListener,
    times: &Times,
    tls: Option<Arc<Tls>>,
    orders: &mut mpsc::Receiver<Order>,
    events: &mpsc::Sender<Event>,
) {
    let (entered, mut newcomers) = mpsc::channel::<(Frames<Wire>, Vec<u8>)>(1);
    let times = *times;
    let doorkeeper = tokio::spawn(admit(listener, times, tls, entered));
    let mut next = newcomers.recv().await;
    while let Some((frames, first)) = next.take() {
        if events.send(Event::Connected).await.is_err() || events.send(Event::Frame(first)).await.is_err() {
            break;
        }
        let ended = tokio::select! {
            ended = carry(frames, &times, orders, events) => ended,
            newcomer = newcomers.recv() => {
                next = newcomer;
                Ended::Replaced
            }
        };
        if !report_end(ended, orders, events).await {
            break;
        }
        if next.is_none() {
            next = newcomers.recv().await;
        }
    }
    doorkeeper.abort();
}

/// Connections that may wait at the door, each for its first frame. One more takes the place of the oldest: the right peer
/// speaks at once, and silent ones cannot keep it out.
const DOOR: usize = 8;

async fn admit(
    listener: TcpListener,
    times: Times,
    tls: Option<Arc<Tls>>,
    entered: mpsc::Sender<(Frames<Wire>, Vec<u8>)>,
) {
    let mut waiting: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                log::warn!(id = "peer.accept_failed"; "peer link: cannot accept a connection: {e}");
                sleep(times.back_off.1).await;
                continue;
            }
        };
        waiting.retain(|connection| !connection.is_finished());
        if waiting.len() >= DOOR
            && let Some(oldest) = waiting.pop_front()
        {
            log::warn!(id = "peer.crowded"; "peer link: {DOOR} connections have said nothing yet; the oldest is closed");
            oldest.abort();
        }
        let (entered, tls) = (entered.clone(), tls.clone());
        let task = tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let stream = Socket::Tcp(stream);
            let wire = match tls {
                None => Wire::Plain(stream),
                Some(tls) => match tls.accept_peer(stream).await {
                    Ok(wire) => wire,
                    Err(why) => return tls.say_peer_refused(&why),
                },
            };
            say_secure(&wire);
            let mut frames = framed(wire);
            match first_frame(&mut frames, &times).await {
                Ok(first) => {
                    let _ = entered.send((frames, first.to_vec())).await;
                }
                Err(ended) => {
                    log::warn!(id = "peer.refused"; "peer link: a connection was refused at the door: {ended}")
                }
            }
        });
        waiting.push_back(task.abort_handle());
    }
}
