//! Settings that are text of a certain form: what the form is, and what it is read into.

use std::net::SocketAddr;
use std::path::PathBuf;

use qkd_driver::backing::PciIdentity;
use qkd_driver::backing::vfio::{BadPciAddress, PciAddress};

use super::address::{HostPort, KmsEndpoint, parse_dns, parse_listen, parse_uri};
use super::rule::Text;
use crate::tls::CertificateName;

pub(super) const URI: Text<String> = Text { parse: parse_uri, what: "an absolute URI such as \"kms://a\"" };
pub(super) const LISTEN: Text<SocketAddr> =
    Text { parse: parse_listen, what: "an IP address with a port such as \"127.0.0.1:8001\"" };
pub(super) const SERVER: Text<HostPort> =
    Text { parse: HostPort::parse, what: "a host with a port such as \"127.0.0.1:7001\"" };
pub(super) const ENDPOINT: Text<KmsEndpoint> =
    Text { parse: KmsEndpoint::parse, what: "a URL such as \"http://127.0.0.1:9001\"" };
pub(super) const PATH: Text<PathBuf> = Text { parse: parse_path, what: "the absolute path of a file" };
pub(super) const DNS: Text<String> =
    Text { parse: parse_dns, what: "a DNS name such as \"module-b.example\"" };
pub(super) const CERTIFICATE_NAME: Text<CertificateName> = Text {
    parse: CertificateName::parse,
    what: "a name in a certificate such as \"DNS:kms-a.example\" or \"URI:kms://a\"",
};
pub(super) const NAME: Text<String> =
    Text { parse: parse_name, what: "1 to 64 letters, digits, dots, hyphens or underscores" };
pub(super) const FILE: Text<PathBuf> = Text { parse: parse_socket, what: "the absolute path of a file" };
pub(super) const DIRECTORY: Text<PathBuf> =
    Text { parse: parse_path, what: "the absolute path of a directory" };
pub(super) const PCI: Text<PciAddress> =
    Text { parse: parse_pci, what: "a PCI address such as \"0000:01:00.0\"" };
pub(super) const PCI_ID: Text<PciIdentity> = Text {
    parse: parse_pci_id,
    what: "vendor and device identifier in hexadecimal, as lspci -n shows them, such as \"5144:0001\"",
};

fn parse_name(text: &str) -> Result<String, String> {
    let right = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if right { Ok(text.to_owned()) } else { Err("it is too long, empty, or has other characters".to_owned()) }
}

fn parse_socket(text: &str) -> Result<PathBuf, String> {
    // sun_path holds 107 octets and the closing zero.
    if text.contains('\0') || text.len() > 107 {
        Err("it has a zero octet or is longer than the 107 octets that a socket's path may have".to_owned())
    } else {
        parse_path(text)
    }
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if text.contains('\0') {
        Err("it has a zero octet".to_owned())
    } else if path.is_absolute() {
        Ok(path)
    } else {
        Err("it does not begin with /".to_owned())
    }
}

fn parse_pci(text: &str) -> Result<PciAddress, String> {
    text.parse().map_err(|error: BadPciAddress| error.to_string())
}

fn parse_pci_id(text: &str) -> Result<PciIdentity, String> {
    let four_digits = |text: &str| {
        let right = text.len() == 4 && text.bytes().all(|b| b.is_ascii_hexdigit());
        right.then(|| u16::from_str_radix(text, 16).ok()).flatten()
    };
    let parts =
        text.split_once(':').and_then(|(vendor, device)| Some((four_digits(vendor)?, four_digits(device)?)));
    let (vendor, device) =
        parts.ok_or_else(|| "it is not four digits, a colon and four digits".to_owned())?;
    Ok(PciIdentity { vendor, device })
}
