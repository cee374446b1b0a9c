//! The section `[tls]`, and what must hold between it and the rest.

use std::path::PathBuf;

use super::choices::KeyExchange;
use super::read::Reader;
use super::settings::TlsKeys;
use super::{Config, PeerAddress};

/// TLS on every link. Without it, there is none on any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// This QKD module's certificate, and those between it and its authority, in PEM form.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities that KMSs' certificates on the API come from.
    pub client_authorities: PathBuf,
    /// Authorities that KMSs' certificates at their endpoints come from.
    pub kms_authorities: PathBuf,
    /// Authorities that the other daemon's certificate comes from.
    pub peer_authorities: PathBuf,
    /// Lists of revoked certificates.
    pub revocation_lists: Option<PathBuf>,
    /// Which key exchange a link must have.
    pub key_exchange: KeyExchange,
    /// Longest time in ms of a handshake with a client.
    pub handshake_deadline_ms: u32,
    /// Handshakes with clients that may be under way.
    pub most_handshakes: u32,
}

/// TLS, once it is clear that there is to be any.
pub(super) fn tls(reader: &mut Reader<'_>, keys: TlsKeys) -> Option<Tls> {
    let TlsKeys { certificate, key, authorities, .. } = keys;
    let any = |file: &Option<PathBuf>| file.clone().or_else(|| authorities.clone());
    let client = any(&keys.client_authorities);
    let kms = any(&keys.kms_authorities);
    let peer = any(&keys.peer_authorities);
    match (certificate, key, client, kms, peer) {
        (Some(certificate), Some(key), Some(client), Some(kms), Some(peer)) => Some(Tls {
            certificate,
            key,
            client_authorities: client,
            kms_authorities: kms,
            peer_authorities: peer,
            revocation_lists: keys.revocation_lists,
            key_exchange: keys.key_exchange,
            handshake_deadline_ms: keys.handshake_deadline_ms,
            most_handshakes: keys.most_handshakes,
        }),
        (None, None, None, None, None) => {
            if keys.revocation_lists.is_some() || keys.key_exchange == KeyExchange::HybridRequired {
                let message =
                    "must be given: without certificate, key and authorities there is no TLS on any link";
                reader.note_at("tls", 0, "certificate", message);
            }
            None
        }
        (certificate, key, ..) => {
            let lacks = match (certificate, key) {
                (None, _) => "certificate",
                (_, None) => "key",
                _ => "authorities",
            };
            let message = "must be given: TLS needs certificate, key and authorities (or client_authorities, \
                 kms_authorities and peer_authorities)";
            reader.note_at("tls", 0, lacks, message);
            None
        }
    }
}

/// Notes what names and addresses lack for TLS, or have without it.
pub(super) fn together(reader: &mut Reader<'_>, config: &Config) {
    if config.tls.is_none() {
        if config.peer.certificate_name.is_some() && matches!(config.peer.address, PeerAddress::Listen(_)) {
            reader.note_at("peer", 0, "certificate_name", "has no meaning without [tls]");
        }
        for (number, kms) in config.kms.iter().enumerate() {
            if kms.endpoint.secure {
                let message = "begins with https, which needs certificate, key and authorities under [tls]";
                reader.note_at("kms", number, "endpoint", message);
            }
            if kms.certificate_names.is_some() {
                reader.note_at("kms", number, "certificate_names", "has no meaning without [tls]");
            }
        }
        return;
    }
    if config.peer.certificate_name.is_none() {
        let message = "must be given with listen and [tls]: the DNS name in the other module's certificate, without which \
             anybody with a certificate could be the other module";
        reader.note_at("peer", 0, "certificate_name", message);
    }
    for (number, kms) in config.kms.iter().enumerate() {
        let Some(names) = &kms.certificate_names else {
            let message = "must be given with [tls]: the names in this KMS's certificate, by which it is known when it calls";
            reader.note_at("kms", number, "certificate_names", message);
            continue;
        };
        let earlier = config.kms.iter().take(number);
        if let Some(other) = earlier
            .into_iter()
            .find(|other| other.certificate_names.iter().flatten().any(|name| names.contains(name)))
        {
            let message = format!("has a name that stands for {} already: a name is one KMS's", other.uri);
            reader.note_at("kms", number, "certificate_names", &message);
        }
    }
}
