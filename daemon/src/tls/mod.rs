//! TLS 1.3 on every link: towards KMSs, from KMSs, and between the two daemons. Both ends always show a certificate.
//!
//! Certificates are read from files at the start and again on SIGHUP; connections that stand go on with what they have, new
//! ones use the new. A set of files that cannot be used leaves the old in place. Sessions are never resumed, so that every
//! connection shows a certificate that is good now.
//!
//! Octets of key pass through rustls's own buffers, which are ordinary memory and are not wiped.

mod either;
mod error;
mod figures;
mod files;
mod keeper;
mod lobby;
mod names;
mod provider;
mod set;
mod socket;
mod wire;

use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::{IpAddr, ServerName};
use rustls::server::Acceptor;
use rustls::{ClientConfig, CommonState, NamedGroup};
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, TlsStream};

pub use self::error::TlsError;
pub(crate) use self::figures::Throttle;
pub use self::figures::{Counter, Figures};
pub use self::files::Expiry;
pub(crate) use self::files::Named;
pub(crate) use self::keeper::{ReloadOrder, keep};
pub use self::names::{Caller, CertificateName};
pub(crate) use self::provider::Providers;
pub(crate) use self::set::Certified;
pub use self::socket::Socket;
pub use self::wire::Wire;

use self::lobby::{Lobby, Place};
use self::names::Roll;
use self::set::{Accepting, PEER, Set};
use crate::config::{self, Config, HostPort};

/// Handshakes of the other daemon that may be under way.
const MOST_PEERS: usize = 8;
/// Names of strangers and of hosts without hybrid exchange that are remembered, so that each is told once.
const MOST_TOLD: usize = 256;
/// An expiry so close is told every day.
const SOON: Duration = Duration::from_secs(30 * 86_400);

/// Certificates and all that is done with them.
#[derive(Debug)]
pub struct Tls {
    config: config::Tls,
    providers: Providers,
    /// Name that the other daemon's certificate must have.
    peer: ServerName<'static>,
    roll: Roll,
    set: RwLock<Arc<Set>>,
    clients: Lobby,
    peers: Lobby,
    figures: Figures,
    refusals: Throttle,
    peer_refusals: Throttle,
    told: Mutex<Vec<String>>,
}

impl Tls {
    /// Reads everything that the configuration names; `None`: it has no TLS.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(config: &Config) -> Result<Option<Self>, TlsError> {
        let Some(tls) = config.tls.clone() else { return Ok(None) };
        let providers = Providers::new(tls.key_exchange)?;
        let set = Set::read(&tls, &providers)?;
        let most = usize::try_from(tls.most_handshakes).unwrap_or(usize::MAX);
        let peer =
            server_name(config.peer.certificate_name.as_deref().unwrap_or_default()).ok_or_else(|| {
                TlsError::Unusable("peer.certificate_name is no DNS name and no IP address".into())
            })?;
        Ok(Some(Self {
            config: tls,
            providers,
            peer,
            roll: Roll::of(&config.kms),
            set: RwLock::new(Arc::new(set)),
            clients: Lobby::new(most),
            peers: Lobby::new(MOST_PEERS),
            figures: Figures::default(),
            refusals: Throttle::default(),
            peer_refusals: Throttle::default(),
            told: Mutex::default(),
        }))
    }

    /// Reads everything again. New connections use it; when it cannot be used, nothing changes.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = Set::read(&self.config, &self.providers).and_then(|set| {
            let over =
                set.expiries.iter().find(|expiry| expiry.own && expiry.left(SystemTime::now()).is_none());
            match over {
                None => Ok(set),
                Some(over) => Err(TlsError::Unusable(format!("{} has expired on {}", over.what, over.until))),
            }
        });
        match read {
            Ok(set) => {
                *self.set.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
                self.figures.reloads.add();
                Ok(())
            }
            Err(error) => {
                self.figures.reloads_failed.add();
                Err(error)
            }
        }
    }

    /// What has been counted.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Until when certificates, authorities and revocation lists are good.
    #[must_use]
    pub fn expiries(&self) -> Vec<Expiry> {
        self.set().expiries.clone()
    }

    /// What the other end thinks of this daemon's certificate, if it takes the same authorities' word.
    pub(crate) fn own_certificate(&self) -> Certified {
        self.set().own.clone()
    }

    fn set(&self) -> Arc<Set> {
        Arc::clone(&self.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shakes hands with a client of the API.
    ///
    /// # Errors
    /// When the client fails to, or shows no certificate of the right authority. It has been told why.
    pub(crate) async fn accept_client(&self, stream: Socket) -> io::Result<(Wire, Caller)> {
        let secure = self.accept(stream, self.clients.enter(), |set| &set.api).await?;
        let caller = match secure.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            Some(certificate) => self.roll.caller(certificate),
            None => Caller::Stranger("no certificate".to_owned()),
        };
        Ok((Wire::Secure(Box::new(secure)), caller))
    }

    /// Shakes hands with the other daemon, which has connected.
    ///
    /// # Errors
    /// When it fails to, or is not the other daemon.
    pub(crate) async fn accept_peer(&self, stream: Socket) -> io::Result<Wire> {
        let secure = self.accept(stream, self.peers.enter(), |set| &set.peer).await?;
        let certificate = secure.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let names = certificate.map(CertificateName::in_certificate).unwrap_or_default();
        let is_peer = match &self.peer {
            ServerName::DnsName(wanted) => {
                names.contains(&CertificateName::Dns(wanted.as_ref().to_ascii_lowercase()))
            }
            _ => false,
        };
        if !is_peer {
            self.figures.failed.add();
            let why = format!("its certificate does not have the name {}", self.peer.to_str());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        self.speaks_to_peers(secure)
    }

    /// Shakes hands with the other daemon, to which this one has connected.
    ///
    /// # Errors
    /// When it fails to, or is not the other daemon.
    pub(crate) async fn connect_peer(&self, stream: Socket) -> io::Result<Wire> {
        let config = Arc::clone(&self.set().to_peer);
        let secure = self.connect(stream, self.peer.clone(), config).await?;
        self.speaks_to_peers(secure)
    }

    /// Shakes hands with a KMS.
    ///
    /// # Errors
    /// When it fails to, or its certificate is not good for the host in its configured endpoint.
    pub(crate) async fn connect_kms(&self, stream: Socket, server: &HostPort) -> io::Result<Wire> {
        let name = server_name(&server.host).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "the host is no name that a certificate can have")
        })?;
        let config = Arc::clone(&self.set().to_kms);
        let secure = self.connect(stream, name, config).await?;
        if !is_hybrid(secure.get_ref().1) && self.tell(&format!("hybrid {server}")) {
            log::warn!(
                id = "tls.kms_not_hybrid"; "the KMS at {server} does not know the key exchange X25519MLKEM768: key that goes there can be read later \
                 by who records it today and has a quantum computer then; tls.key_exchange = \"hybrid-required\" refuses it"
            );
        }
        Ok(Wire::Secure(Box::new(secure)))
    }

    async fn accept(
        &self,
        stream: Socket,
        mut place: Place,
        at: fn(&Set) -> &Accepting,
    ) -> io::Result<TlsStream<Socket>> {
        let shake = async {
            let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let offered = begun.client_hello().named_groups().map(<[_]>::to_vec);
            let config = at(&self.set()).for_client(offered.as_deref());
            Ok(TlsStream::from(begun.into_stream(config).await?))
        };
        let deadline = Duration::from_millis(self.config.handshake_deadline_ms.into());
        let done = tokio::select! {
            done = timeout(deadline, shake) => done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = place.lost() => Err(io::Error::other("it took too long, and others came")),
        };
        self.count(done)
    }

    async fn connect(
        &self,
        stream: Socket,
        name: ServerName<'static>,
        config: Arc<ClientConfig>,
    ) -> io::Result<TlsStream<Socket>> {
        // Callers have a deadline for the whole of connecting.
        let done = TlsConnector::from(config).connect(name, stream).await;
        self.count(done.map(TlsStream::from))
    }

    fn count(&self, done: io::Result<TlsStream<Socket>>) -> io::Result<TlsStream<Socket>> {
        match &done {
            Ok(secure) => {
                self.figures.handshakes.add();
                if is_hybrid(secure.get_ref().1) {
                    self.figures.hybrid.add();
                }
            }
            Err(_) => self.figures.failed.add(),
        }
        done
    }

    fn speaks_to_peers(&self, secure: TlsStream<Socket>) -> io::Result<Wire> {
        if secure.get_ref().1.alpn_protocol() != Some(PEER) {
            self.figures.failed.add();
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it does not speak as a qkdd's peer link does",
            ));
        }
        Ok(Wire::Secure(Box::new(secure)))
    }

    /// Says that a client of the API was refused, unless that fills the log.
    pub(crate) fn say_refused(&self, client: &str, why: &io::Error) {
        if let Some(more) = self.refusals.may_say(Instant::now()) {
            log::warn!(id = "tls.client_refused"; "API: a connection of {client} was refused in the TLS handshake: {why}{more}");
        }
    }

    /// Says that somebody was not let on the peer link, unless that fills the log.
    pub(crate) fn say_peer_refused(&self, why: &io::Error) {
        if let Some(more) = self.peer_refusals.may_say(Instant::now()) {
            log::warn!(id = "tls.peer_refused"; "peer link: a connection was refused in the TLS handshake: {why}{more}");
        }
    }

    /// Counts and says that a certificate stands for no KMS, once for each.
    pub(crate) fn say_stranger(&self, names: &str) {
        self.figures.strangers.add();
        if self.tell(names) {
            log::warn!(
                id = "tls.stranger"; "API: a certificate of the right authority was refused, because it stands for no KMS, or for several: \
                 {names}; certificate_names under [[kms]] say which do"
            );
        }
    }

    /// Whether this has not been told yet.
    fn tell(&self, what: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MOST_TOLD || told.iter().any(|before| before == what) {
            return false;
        }
        told.push(what.to_owned());
        true
    }

    /// How long everything is still good, for the log.
    fn say_expiries(&self, now: SystemTime, all: bool) {
        for expiry in self.expiries() {
            let Expiry { what, until, .. } = &expiry;
            match expiry.left(now) {
                None => {
                    log::error!(id = "tls.expired"; "TLS: {what} has expired on {until}: renew it, then reload")
                }
                Some(left) if left < SOON => {
                    log::warn!(id = "tls.expires_soon"; "TLS: {what} expires in {} days, on {until}", left.as_secs() / 86_400);
                }
                Some(_) if all => log::info!(id = "tls.good_until"; "TLS: {what} is good until {until}"),
                Some(_) => {}
            }
        }
    }

    /// What is offered, for the log.
    fn say_start(&self) {
        match (&self.providers.hybrid, self.config.key_exchange) {
            (Some(_), config::KeyExchange::HybridRequired) => {
                log::info!(id = "tls.hybrid_only"; "TLS 1.3 with key exchange X25519MLKEM768 only");
            }
            (Some(_), config::KeyExchange::HybridPreferred) => {
                log::info!(id = "tls.hybrid_first"; "TLS 1.3 with key exchange X25519MLKEM768 first");
            }
            (None, _) => log::warn!(
                id = "tls.no_hybrid"; "TLS 1.3 without the key exchange X25519MLKEM768, for which this processor lacks instructions ({}): what is \
                 recorded today can be read by a later quantum computer",
                provider::NEEDS
            ),
        }
    }
}

fn is_hybrid(state: &CommonState) -> bool {
    state.negotiated_key_exchange_group().is_some_and(|group| group.name() == NamedGroup::X25519MLKEM768)
}

/// A host as a certificate can have it.
pub(crate) fn server_name(host: &str) -> Option<ServerName<'static>> {
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => Some(ServerName::IpAddress(IpAddr::from(address))),
        Err(_) => ServerName::try_from(host.to_owned()).ok(),
    }
}
