//! Stands between the two daemons, so that the peer link can be cut, slowed and broken off.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Connections at a time; further ones are closed.
const MOST_CONNECTIONS: usize = 16;

/// A proxy on loopback; it ends when it is dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    cut: watch::Sender<bool>,
    task: AbortHandle,
}

impl Proxy {
    /// Listens on a free port for connections to `target`.
    pub(crate) async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (cut, is_cut) = watch::channel(false);
        let task = tokio::spawn(serve(listener, target, is_cut)).abort_handle();
        Ok(Self { address, cut, task })
    }

    /// Cuts every connection and lets no new one through, or lets them through again.
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, is_cut: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                log::warn!("the proxy of the peer link: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        if *is_cut.borrow() || connections.len() >= MOST_CONNECTIONS {
            continue;
        }
        connections.spawn(carry(client, target, is_cut.clone()));
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr, mut is_cut: watch::Receiver<bool>) {
    let both_ways = async {
        let mut server = TcpStream::connect(target).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    };
    tokio::select! {
        result = both_ways => if let Err(error) = result {
            log::debug!("a connection of the peer link ended: {error}");
        },
        // An error means that the proxy is gone.
        _ = is_cut.wait_for(|cut| *cut) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_cut_link_that_still_carries_is_caught_and_a_mended_one_carries_again() {
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
        };
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await })
            .expect("in time");
    }
}
