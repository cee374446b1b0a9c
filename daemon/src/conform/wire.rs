//! Blocking connections with deadlines, encrypted or not.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use crate::config::{HostPort, KeyExchange};
use crate::tls::{Named, Providers, TlsError, server_name};

/// Most addresses of a name that are tried.
const MOST_ADDRESSES: usize = 8;
const HTTP: &[u8] = b"http/1.1";

/// Files for TLS; all or none.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) authorities: Option<PathBuf>,
}

/// Both sides of TLS 1.3, with a certificate of one's own.
#[derive(Clone, Debug)]
pub(super) struct Secure {
    pub(super) client: Arc<ClientConfig>,
    /// As `client`, without a certificate of one's own.
    pub(super) nameless: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

impl Secure {
    /// Reads the files, if they are given.
    pub(super) fn read(files: &Files) -> Result<Option<Self>, TlsError> {
        let (Some(certificate), Some(key), Some(authorities)) =
            (&files.certificate, &files.key, &files.authorities)
        else {
            return Ok(None);
        };
        let named = |setting, file| Named { setting, file };
        let mut expiries = Vec::new();
        let chain = named("certificate", certificate).certificates(&mut expiries)?;
        let roots = Arc::new(named("authorities", authorities).authorities(&mut expiries)?);
        let key = named("key", key).key()?;
        let provider = Providers::new(KeyExchange::HybridPreferred)?.allowed;
        let unusable = |why: rustls::Error| TlsError::Unusable(why.to_string());
        let client = || {
            ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&TLS13])
                .map(|builder| builder.with_root_certificates(Arc::clone(&roots)))
        };
        let mut shown = client()
            .and_then(|builder| builder.with_client_auth_cert(chain.clone(), key.clone_key()))
            .map_err(unusable)?;
        shown.alpn_protocols = vec![HTTP.to_vec()];
        let mut nameless = client().map_err(unusable)?.with_no_client_auth();
        nameless.alpn_protocols = vec![HTTP.to_vec()];
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|why| TlsError::Unusable(why.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| builder.with_client_cert_verifier(clients).with_single_cert(chain, key))
            .map_err(unusable)?;
        server.alpn_protocols = vec![HTTP.to_vec()];
        Ok(Some(Self { client: Arc::new(shown), nameless: Arc::new(nameless), server: Arc::new(server) }))
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Wire {
    /// As it is.
    Plain(TcpStream),
    /// TLS, connected by this side.
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// TLS, accepted by this side.
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Wire {
    /// Connects, with TLS where `tls` says so, by `until`.
    pub(super) fn connect(
        to: &HostPort,
        tls: Option<&Arc<ClientConfig>>,
        until: Instant,
    ) -> io::Result<Self> {
        let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in (to.host.as_str(), to.port).to_socket_addrs()?.take(MOST_ADDRESSES) {
            let socket = match TcpStream::connect_timeout(&address, left(until)?) {
                Ok(socket) => socket,
                Err(error) => {
                    failure = error;
                    continue;
                }
            };
            socket.set_nodelay(true)?;
            let Some(config) = tls else { return Ok(Self::Plain(socket)) };
            let name = server_name(&to.host).ok_or_else(|| {
                io::Error::new(ErrorKind::InvalidInput, "the host is no name that a certificate can have")
            })?;
            let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
            let mut wire = Self::Client(Box::new(StreamOwned::new(session, socket)));
            wire.shake(until)?;
            return Ok(wire);
        }
        Err(failure)
    }

    /// Takes a connection that was accepted.
    pub(super) fn accepted(socket: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(match tls {
            None => Self::Plain(socket),
            Some(config) => {
                let session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                Self::Server(Box::new(StreamOwned::new(session, socket)))
            }
        })
    }

    /// Finishes the handshake, so that what is wrong with it is not taken for something else. With TLS 1.3 the server judges a
    /// client's certificate only after the client's side is done.
    fn shake(&mut self, until: Instant) -> io::Result<()> {
        let Self::Client(stream) = self else { return Ok(()) };
        while stream.conn.is_handshaking() {
            stream.sock.set_read_timeout(Some(left(until)?))?;
            stream.sock.set_write_timeout(Some(left(until)?))?;
            stream.conn.complete_io(&mut stream.sock).map_err(late)?;
        }
        Ok(())
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Client(stream) => &stream.sock,
            Self::Server(stream) => &stream.sock,
        }
    }

    /// Longest time of the next read, and of the next write.
    pub(super) fn patience(&self, time: Duration) -> io::Result<()> {
        let time = time.max(Duration::from_millis(1));
        self.socket().set_read_timeout(Some(time))?;
        self.socket().set_write_timeout(Some(time))
    }

    /// Ends the connection at once.
    pub(super) fn cut(&self) {
        // It may be gone already.
        let _ = self.socket().shutdown(Shutdown::Both);
    }

    /// Writes everything by `until`.
    pub(super) fn send(&mut self, octets: &[u8], until: Instant) -> io::Result<()> {
        let mut rest = octets;
        while !rest.is_empty() {
            self.patience(left(until)?)?;
            let written = match self {
                Self::Plain(socket) => socket.write(rest),
                Self::Client(stream) => stream.write(rest),
                Self::Server(stream) => stream.write(rest),
            };
            match written.map_err(late)? {
                0 => return Err(ErrorKind::WriteZero.into()),
                written => rest = rest.get(written..).unwrap_or_default(),
            }
        }
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Client(stream) => stream.flush(),
            Self::Server(stream) => stream.flush(),
        }
        .map_err(late)
    }

    /// Reads what is there into `into`; 0: the other side has ended. It waits as long as [`Wire::patience`] says.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            Self::Client(stream) => stream.read(into),
            Self::Server(stream) => stream.read(into),
        }
        .map_err(late)
    }
}

/// Time that is left.
pub(super) fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The system calls a passed deadline by two names.
fn late(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}
