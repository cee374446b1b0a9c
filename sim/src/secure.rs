//! TLS 1.3 for the reference KMS, with certificates of both ends.

use std::io::{self, Error, IoSlice};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, NamedGroup, RootCertStore, ServerConfig};
use rustls_graviola::kx::X25519MLKEM768;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Files for TLS; all or none.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct TlsArgs {
    /// This KMS's certificate in PEM form: it is served over TLS, and shown to the module.
    #[arg(long, value_name = "FILE", requires_all = ["certificate_key", "authorities"])]
    certificate: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    certificate_key: Option<PathBuf>,
    /// Certificates of the authorities whose word is taken.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    authorities: Option<PathBuf>,
}

/// Certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", file.display())]
pub(crate) struct BadFile {
    file: PathBuf,
    why: String,
}

/// Both sides of TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// ring, with the hybrid exchange first where the processor can do it: graviola panics where it cannot.
fn provider() -> Arc<CryptoProvider> {
    #[cfg(target_arch = "x86_64")]
    let hybrid = {
        use std::arch::is_x86_feature_detected as has;
        has!("adx") && has!("aes") && has!("avx2") && has!("bmi1") && has!("bmi2") && has!("pclmulqdq")
    };
    #[cfg(target_arch = "aarch64")]
    let hybrid = {
        use std::arch::is_aarch64_feature_detected as has;
        has!("neon") && has!("aes") && has!("pmull") && has!("sha2")
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let hybrid = false;
    let mut provider = ring::default_provider();
    if hybrid {
        provider.kx_groups.insert(0, X25519MLKEM768);
    }
    Arc::new(provider)
}

impl Tls {
    /// Reads the files, if there are any.
    pub(crate) fn read(args: &TlsArgs) -> Result<Option<Self>, BadFile> {
        let (Some(certificate), Some(key), Some(authorities)) =
            (&args.certificate, &args.certificate_key, &args.authorities)
        else {
            return Ok(None);
        };
        let bad = |file: &PathBuf, why: String| BadFile { file: file.clone(), why };
        let certificates = |file: &PathBuf| {
            CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| bad(file, error.to_string()))
        };
        let chain = certificates(certificate)?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(authorities)? {
            roots.add(authority).map_err(|error| bad(authorities, error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, error.to_string()))?;
        let unusable = |error: rustls::Error| bad(certificate, error.to_string());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(|error| bad(authorities, error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unusable)?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() }))
    }

    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<Wire<S>> {
        let done = tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await;
        let stream = done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(Wire::Secure(Box::new(stream.into())))
    }

    /// Callers have a deadline.
    pub(crate) async fn connect(&self, stream: TcpStream, host: &str) -> io::Result<Wire> {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(Error::other)?;
        let stream = self.connector.connect(name, stream).await?;
        Ok(Wire::Secure(Box::new(stream.into())))
    }
}

/// A connection, over TCP or a UNIX socket, encrypted or not.
#[derive(Debug)]
pub(crate) enum Wire<S = TcpStream> {
    Plain(S),
    Secure(Box<TlsStream<S>>),
}

impl<S> Wire<S> {
    /// Key exchange that was agreed on; `None`: without TLS.
    pub(crate) fn key_exchange(&self) -> Option<NamedGroup> {
        match self {
            Self::Plain(_) => None,
            Self::Secure(stream) => {
                stream.get_ref().1.negotiated_key_exchange_group().map(|group| group.name())
            }
        }
    }
}

macro_rules! either {
    ($wire:expr, $stream:ident => $done:expr) => {
        match $wire.get_mut() {
            Wire::Plain($stream) => $done,
            Wire::Secure($stream) => $done,
        }
    };
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, into))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<Result<usize, Error>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, octets))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(cx, octets))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Secure(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
