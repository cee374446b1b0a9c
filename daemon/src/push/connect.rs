//! Finds and connects to the KMS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::report::Failure;
use crate::config::{HostPort, KmsEndpoint, is_loopback};
use crate::tls::{Socket, Tls, Wire};

/// Most addresses of a name that are tried.
const MOST_ADDRESSES: usize = 8;

/// Where plain text may go, and what makes it more than that.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    /// Connections without TLS may leave this machine.
    pub(super) beyond_loopback: bool,
    /// Certificates.
    pub(super) tls: Option<Arc<Tls>>,
}

/// Connects within `deadline`: over TLS to whoever the endpoint names, otherwise to loopback only unless it may be beyond. Where
/// the endpoint is reached through a UNIX socket, who is behind that decides where it leads; TLS then still tells who it is.
pub(super) async fn connect(
    endpoint: KmsEndpoint,
    transport: Transport,
    deadline: Duration,
) -> Result<Wire, Failure> {
    let KmsEndpoint { secure, server, through, .. } = endpoint;
    let connect = async {
        let stream = match &through {
            Some(socket) => Socket::Unix(through_socket(socket).await?),
            None => Socket::Tcp(try_addresses(&server, secure || transport.beyond_loopback, deadline).await?),
        };
        match (secure, transport.tls) {
            (false, _) => Ok(Wire::Plain(stream)),
            (true, None) => Err(Failure::Untrusted("there are no certificates, see [tls]".to_owned())),
            (true, Some(tls)) => {
                tls.connect_kms(stream, &server).await.map_err(|error| Failure::Untrusted(error.to_string()))
            }
        }
    };
    timeout(deadline, connect).await.unwrap_or(Err(Failure::ConnectDeadline))
}

async fn through_socket(socket: &Path) -> Result<UnixStream, Failure> {
    UnixStream::connect(socket)
        .await
        .map_err(|error| Failure::Unconnected(format!("{}: {error}", socket.display())))
}

async fn try_addresses(
    server: &HostPort,
    beyond_loopback: bool,
    deadline: Duration,
) -> Result<TcpStream, Failure> {
    let mut addresses: Vec<SocketAddr> = match server.host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, server.port)],
        Err(_) => tokio::net::lookup_host((server.host.as_str(), server.port))
            .await
            .map_err(|error| Failure::Unresolved(error.to_string()))?
            .take(MOST_ADDRESSES)
            .collect(),
    };
    if addresses.is_empty() {
        return Err(Failure::Unresolved("the name has no address".to_owned()));
    }
    // The configuration checks what is written there; what a name leads to is known only now.
    addresses.retain(|address| beyond_loopback || is_loopback(address.ip()));
    let mut failure = Failure::BeyondLoopback;
    let share = deadline / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    for address in addresses {
        failure = match timeout(share, one(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => Failure::Unconnected(format!("{address}: {error}")),
            Err(_) => Failure::ConnectDeadline,
        };
    }
    Err(failure)
}

async fn one(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // A connection to a free port of this machine can meet itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::{Transport, connect};
    use crate::config::{HostPort, KmsEndpoint};
    use crate::push::report::Failure;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn endpoint(through: std::path::PathBuf, secure: bool) -> KmsEndpoint {
        let server = HostPort { host: "kms.invalid".to_owned(), port: 1 };
        KmsEndpoint { secure, server, path: "/k".to_owned(), through: Some(through) }
    }

    fn transport() -> Transport {
        Transport { beyond_loopback: false, tls: None }
    }

    #[tokio::test]
    async fn a_kms_behind_a_unix_socket_is_reached_without_looking_for_its_host() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("kms.sock");
        let proxy = UnixListener::bind(&socket).unwrap();
        let mut wire = connect(endpoint(socket, false), transport(), DEADLINE).await.unwrap();
        wire.write_all(b"key").await.unwrap();
        wire.drop_unsent();
        drop(wire);
        let mut got = Vec::new();
        proxy.accept().await.unwrap().0.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"key");
    }

    #[tokio::test]
    async fn without_its_proxy_a_kms_is_not_looked_for_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("none.sock");
        let refused = connect(endpoint(socket, false), transport(), DEADLINE).await.unwrap_err();
        assert!(matches!(&refused, Failure::Unconnected(why) if why.contains("none.sock")), "{refused:?}");
    }

    #[tokio::test]
    async fn a_unix_socket_does_not_do_away_with_tls() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("kms.sock");
        let _proxy = UnixListener::bind(&socket).unwrap();
        let refused = connect(endpoint(socket, true), transport(), DEADLINE).await.unwrap_err();
        assert!(matches!(refused, Failure::Untrusted(_)), "{refused:?}");
    }
}
