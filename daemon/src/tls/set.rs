//! One set of certificates, key and authorities, ready for use on every link.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, NamedGroup, RootCertStore, ServerConfig};

use super::TlsError;
use super::files::{Expiry, Named};
use super::names::CertificateName;
use super::provider::Providers;
use crate::config;

/// What is spoken on the API and towards KMSs.
const HTTP: &[u8] = b"http/1.1";
/// What is spoken between daemons. It keeps a connection for one from being led to the other.
pub(super) const PEER: &[u8] = b"qkd-peer";

/// For one place that accepts connections.
#[derive(Debug)]
pub(super) struct Accepting {
    allowed: Arc<ServerConfig>,
    hybrid: Option<Arc<ServerConfig>>,
}

impl Accepting {
    /// For a client that offers these groups: the hybrid one wherever it offers it, in whatever place.
    pub(super) fn for_client(&self, offered: Option<&[NamedGroup]>) -> Arc<ServerConfig> {
        let can = offered.is_some_and(|groups| groups.contains(&NamedGroup::X25519MLKEM768));
        Arc::clone(self.hybrid.as_ref().filter(|_| can).unwrap_or(&self.allowed))
    }
}

/// Everything that was read at one time.
#[derive(Debug)]
pub(super) struct Set {
    /// Where KMSs call.
    pub(super) api: Accepting,
    /// Where the other daemon connects.
    pub(super) peer: Accepting,
    /// Towards the other daemon.
    pub(super) to_peer: Arc<ClientConfig>,
    /// Towards KMSs.
    pub(super) to_kms: Arc<ClientConfig>,
    /// Whether the own certificate is good by the word of the peer's authorities.
    pub(super) own: Certified,
    pub(super) expiries: Vec<Expiry>,
}

/// What somebody thinks of a certificate who takes certain authorities' word.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Certified {
    /// It is good now, for its first name.
    Good,
    /// It has no DNS name that it could be known by.
    Nameless,
    /// It is not.
    Bad(CertificateError),
}

/// What this daemon shows of itself.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    providers: Providers,
}

impl Set {
    /// Reads all files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub(super) fn read(config: &config::Tls, providers: &Providers) -> Result<Self, TlsError> {
        let mut expiries = Vec::new();
        let named = |setting, file| Named { setting, file };
        let identity = Identity {
            chain: named("certificate", &config.certificate).certificates(&mut expiries)?,
            key: named("key", &config.key).key()?,
            revoked: match &config.revocation_lists {
                None => Vec::new(),
                Some(file) => named("revocation_lists", file).revocation_lists(&mut expiries)?,
            },
            providers: providers.clone(),
        };
        let mut roots = |setting, file| {
            let mut found = Vec::new();
            let store = named(setting, file).authorities(&mut found)?;
            expiries.extend(found.into_iter().filter(|new| !expiries.contains(new)).collect::<Vec<_>>());
            Ok(Arc::new(store))
        };
        let clients = roots("client_authorities", &config.client_authorities)?;
        let kms = roots("kms_authorities", &config.kms_authorities)?;
        let peer = roots("peer_authorities", &config.peer_authorities)?;
        Ok(Self {
            api: identity.accepting(&clients, HTTP)?,
            peer: identity.accepting(&peer, PEER)?,
            to_peer: identity.connecting(&peer, PEER)?,
            to_kms: identity.connecting(&kms, HTTP)?,
            own: identity.certified(&peer)?,
            expiries,
        })
    }
}

fn unusable(why: impl ToString) -> TlsError {
    TlsError::Unusable(why.to_string())
}

impl Identity {
    /// Judges the own certificate as the other end would with the same authorities.
    fn certified(&self, roots: &Arc<RootCertStore>) -> Result<Certified, TlsError> {
        let provider = Arc::clone(&self.providers.allowed);
        let judge = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider)
            .build()
            .map_err(unusable)?;
        let Some((own, between)) = self.chain.split_first() else { return Ok(Certified::Nameless) };
        let name = CertificateName::in_certificate(own).into_iter().find_map(|name| match name {
            CertificateName::Dns(name) => ServerName::try_from(name).ok(),
            CertificateName::Uri(_) => None,
        });
        let Some(name) = name else { return Ok(Certified::Nameless) };
        Ok(match judge.verify_server_cert(own, between, &name, &[], UnixTime::now()) {
            Ok(_) => Certified::Good,
            Err(rustls::Error::InvalidCertificate(why)) => Certified::Bad(why),
            Err(_) => Certified::Bad(CertificateError::BadEncoding),
        })
    }

    fn accepting(&self, roots: &Arc<RootCertStore>, speaks: &[u8]) -> Result<Accepting, TlsError> {
        let config = |provider: &Arc<_>| {
            let mut clients =
                WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider));
            if !self.revoked.is_empty() {
                // Who is on no list that still holds is refused.
                clients = clients
                    .with_crls(self.revoked.iter().cloned())
                    .only_check_end_entity_revocation()
                    .enforce_revocation_expiration();
            }
            let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
                .with_protocol_versions(&[&TLS13])
                .map_err(unusable)?
                .with_client_cert_verifier(clients.build().map_err(unusable)?)
                .with_single_cert(self.chain.clone(), self.key.clone_key())
                .map_err(unusable)?;
            // A resumed session would not show its certificate again: one that has expired would go on.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config.alpn_protocols = vec![speaks.to_vec()];
            Ok(Arc::new(config))
        };
        Ok(Accepting {
            allowed: config(&self.providers.allowed)?,
            hybrid: self.providers.hybrid.as_ref().map(config).transpose()?,
        })
    }

    fn connecting(&self, roots: &Arc<RootCertStore>, speaks: &[u8]) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = &self.providers.allowed;
        let mut servers =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider));
        if !self.revoked.is_empty() {
            servers = servers
                .with_crls(self.revoked.iter().cloned())
                .only_check_end_entity_revocation()
                .enforce_revocation_expiration();
        }
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_webpki_verifier(servers.build().map_err(unusable)?)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(unusable)?;
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![speaks.to_vec()];
        Ok(Arc::new(config))
    }
}
