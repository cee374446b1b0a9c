//! Names in certificates: subject alternative names, and which KMS they stand for.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::{Kms, check_uri};

/// Longest DNS name in octets.
const LONGEST_DNS: usize = 253;

/// A subject alternative name that a certificate can be known by. DNS names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateName {
    /// A DNS name, never a wildcard.
    Dns(String),
    /// A URI, compared octet by octet.
    Uri(String),
}

impl CertificateName {
    /// Reads `DNS:name` or `URI:uri`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(uri) = text.strip_prefix("URI:") {
            check_uri(uri)?;
            return Ok(Self::Uri(uri.to_owned()));
        }
        let Some(name) = text.strip_prefix("DNS:") else {
            return Err("it begins neither with DNS: nor with URI:".to_owned());
        };
        let right = (1..=LONGEST_DNS).contains(&name.len())
            && name.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            });
        if right {
            Ok(Self::Dns(name.to_ascii_lowercase()))
        } else {
            Err("what follows DNS: is no host name; a wildcard stands for nobody in particular".to_owned())
        }
    }

    /// The names in a certificate that can stand for somebody. Others, such as IP addresses, are left out.
    pub(super) fn in_certificate(certificate: &CertificateDer<'_>) -> Vec<Self> {
        let Ok(certificate) = Certificate::from_der(certificate.as_ref()) else { return Vec::new() };
        let names = certificate.tbs_certificate().get_extension::<SubjectAltName>();
        let Ok(Some((_, SubjectAltName(names)))) = names else { return Vec::new() };
        names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DnsName(name) => Some(Self::Dns(name.as_str().to_ascii_lowercase())),
                GeneralName::UniformResourceIdentifier(uri) => Some(Self::Uri(uri.as_str().to_owned())),
                _ => None,
            })
            .collect()
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "DNS:{}", name.escape_debug()),
            Self::Uri(uri) => write!(f, "URI:{}", uri.escape_debug()),
        }
    }
}

/// Who is at the other end of a connection to the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody knows: the connection is not encrypted, which is so on loopback only, or where the operator wants it.
    Unknown,
    /// The KMS with this URI.
    Kms(String),
    /// A certificate of the right authority that stands for no KMS, or for several. The text names it.
    Stranger(String),
}

/// Which certificate stands for which KMS.
#[derive(Clone, Debug, Default)]
pub(super) struct Roll(Vec<(CertificateName, String)>);

impl Roll {
    /// As configured.
    pub(super) fn of(kms: &[Kms]) -> Self {
        let names = kms.iter().flat_map(|kms| {
            kms.certificate_names.iter().flatten().map(|name| (name.clone(), kms.uri.clone()))
        });
        Self(names.collect())
    }

    /// Who the owner of the certificate is.
    pub(super) fn caller(&self, certificate: &CertificateDer<'_>) -> Caller {
        let names = CertificateName::in_certificate(certificate);
        let mut found: Vec<&String> =
            self.0.iter().filter(|(name, _)| names.contains(name)).map(|(_, uri)| uri).collect();
        found.sort_unstable();
        found.dedup();
        match found.as_slice() {
            [uri] => Caller::Kms((*uri).clone()),
            _ => Caller::Stranger(listed(&names)),
        }
    }
}

/// The names in a line that has an end.
fn listed(names: &[CertificateName]) -> String {
    const MOST: usize = 4;
    const LONGEST: usize = 200;
    if names.is_empty() {
        return "a certificate without DNS names and URIs".to_owned();
    }
    let shown: Vec<String> = names.iter().take(MOST).map(ToString::to_string).collect();
    let mut text: String = shown.join(", ").chars().take(LONGEST).collect();
    if names.len() > MOST {
        text.push_str(", …");
    }
    text
}
