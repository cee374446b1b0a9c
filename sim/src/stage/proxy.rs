//! Stands between the two daemons, so that the peer link can be cut, slowed and broken off.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Connections at a time; further ones are closed.
const MOST_CONNECTIONS: usize = 16;
/// Octets that are carried at a time.
const PIECE: usize = 16 << 10;

/// What the proxy does to the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Treatment {
    cut: bool,
    /// How long each piece is kept, and its octets at most.
    slow: Option<(Duration, usize)>,
    /// Resets that were asked for.
    resets: u64,
    /// Octets that still pass before the newest reset.
    reset_after: usize,
}

/// A proxy on loopback; it ends when it is dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    treatment: watch::Sender<Treatment>,
    task: AbortHandle,
}

impl Proxy {
    /// Listens on a free port for connections to `target`.
    pub(crate) async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (treatment, treated) = watch::channel(Treatment::default());
        let task = tokio::spawn(serve(listener, target, treated)).abort_handle();
        Ok(Self { address, treatment, task })
    }

    /// Cuts every connection and lets no new one through, or lets them through again.
    pub(crate) fn cut(&self, cut: bool) {
        self.treatment.send_modify(|treatment| treatment.cut = cut);
    }

    /// Keeps each piece of at most so many octets for so long, in both directions, or carries as fast as it can again.
    pub(crate) fn slow(&self, slow: Option<(Duration, usize)>) {
        self.treatment.send_modify(|treatment| treatment.slow = slow);
    }

    /// Resets each connection of now (RST) once `octets` more have passed in one of its directions, wherever in a message
    /// that is.
    pub(crate) fn reset_after(&self, octets: usize) {
        self.treatment.send_modify(|treatment| {
            treatment.resets += 1;
            treatment.reset_after = octets;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, treated: watch::Receiver<Treatment>) {
    let mut connections = JoinSet::new();
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                log::warn!("the proxy of the peer link: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        if treated.borrow().cut || connections.len() >= MOST_CONNECTIONS {
            continue;
        }
        connections.spawn(carry(client, target, treated.clone()));
    }
}

/// How one direction of a connection ended.
enum End {
    Closed,
    Reset,
}

async fn carry(client: TcpStream, target: SocketAddr, treated: watch::Receiver<Treatment>) {
    let mut is_cut = treated.clone();
    let resets = treated.borrow().resets;
    let both_ways = async {
        let server = TcpStream::connect(target).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        let mut out = Direction { from: from_client, to: to_server, treated: treated.clone(), resets };
        let mut back = Direction { from: from_server, to: to_client, treated: treated.clone(), resets };
        let end = tokio::select! {
            end = out.run() => end?,
            end = back.run() => end?,
        };
        if matches!(end, End::Reset) {
            // Without lingering a close is a reset, and what has not been read is gone.
            out.to.as_ref().set_zero_linger()?;
            back.to.as_ref().set_zero_linger()?;
            // Dropped, they would end their direction first.
            out.to.forget();
            back.to.forget();
        }
        io::Result::Ok(())
    };
    tokio::select! {
        result = both_ways => if let Err(error) = result {
            log::debug!("a connection of the peer link ended: {error}");
        },
        // An error means that the proxy is gone.
        _ = is_cut.wait_for(|treatment| treatment.cut) => {}
    }
}

/// One direction of a connection. The end of either is the end of both: the daemons half-close nothing.
struct Direction {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    treated: watch::Receiver<Treatment>,
    /// Resets before this connection.
    resets: u64,
}

impl Direction {
    async fn run(&mut self) -> io::Result<End> {
        let mut piece = vec![0; PIECE];
        // Octets until the reset, once one is asked for.
        let mut left = None;
        loop {
            let length = self.from.read(&mut piece).await?;
            if length == 0 {
                return Ok(End::Closed);
            }
            let mut rest = piece.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                let treatment = *self.treated.borrow();
                let most = treatment.slow.map_or(PIECE, |(_, most)| most.max(1));
                if let Some((kept, _)) = treatment.slow {
                    tokio::time::sleep(kept).await;
                }
                if treatment.resets > self.resets {
                    left.get_or_insert(treatment.reset_after);
                }
                let passes = rest.len().min(most).min(left.unwrap_or(usize::MAX));
                let (now, later) = rest.split_at(passes);
                self.to.write_all(now).await?;
                rest = later;
                if let Some(left) = &mut left {
                    *left -= passes;
                    if *left == 0 {
                        return Ok(End::Reset);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_link_cut_slow_or_reset_is_so_and_a_mended_one_carries_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let test = async {
            let echo = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
            let target = echo.local_addr().expect("address");
            tokio::spawn(async move {
                while let Ok((mut peer, _)) = echo.accept().await {
                    tokio::spawn(async move {
                        let (mut read, mut write) = peer.split();
                        let _ = tokio::io::copy(&mut read, &mut write).await;
                    });
                }
            });
            let proxy = Proxy::start(target).await.expect("starts");
            let mut octet = [0];
            let mut client = TcpStream::connect(proxy.address).await.expect("connects");
            client.write_all(b"x").await.expect("writes");
            client.read_exact(&mut octet).await.expect("carried");
            proxy.cut(true);
            assert!(matches!(client.read(&mut octet).await, Ok(0) | Err(_)), "still there");
            let mut refused = TcpStream::connect(proxy.address).await.expect("connects");
            assert!(matches!(refused.read(&mut octet).await, Ok(0) | Err(_)), "let through");
            proxy.cut(false);
            let mut client = TcpStream::connect(proxy.address).await.expect("connects");
            client.write_all(b"y").await.expect("writes");
            client.read_exact(&mut octet).await.expect("carried again");
            assert_eq!(&octet, b"y");

            proxy.slow(Some((Duration::from_millis(100), 1)));
            let begun = std::time::Instant::now();
            client.write_all(b"slow").await.expect("writes");
            let mut slow = [0; 4];
            client.read_exact(&mut slow).await.expect("carried slowly");
            assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
            proxy.slow(None);

            proxy.reset_after(3);
            client.write_all(b"12345").await.expect("writes");
            let mut came = Vec::new();
            let error = client.read_to_end(&mut came).await.expect_err("a reset, not an end");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert!(came.len() <= 3, "{came:?}");
            let mut client = TcpStream::connect(proxy.address).await.expect("connects");
            client.write_all(b"123456").await.expect("writes");
            let mut all = [0; 6];
            client.read_exact(&mut all).await.expect("a later connection is not reset");
        };
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await })
            .expect("in time");
    }
}
