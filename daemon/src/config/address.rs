//! Addresses in the configuration: the KMS's endpoint, the other daemon, and the URIs that name KMSs.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Path of key-material on a KMS, where the configuration names none.
pub const KEY_MATERIAL_PATH: &str = "/api/v1/qkd/etsi004/key-material";

/// Longest URI, host or path that is taken, in octets.
pub const LONGEST_URI: usize = 512;

/// Host and TCP port to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// TCP port, never 0.
    pub port: u16,
}

impl HostPort {
    /// Whether packets to this host stay on this machine: 127.0.0.0/8, `::1` or the name `localhost`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => is_loopback(address),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Reads `host:port`, with an IPv6 address in brackets.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = split_authority(text)?;
        let port = port.ok_or_else(|| "the port is missing".to_owned())?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Whether an address is this machine's own, also when it is an IPv4 address written as IPv6.
#[must_use]
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Where a KMS takes key material: an `http` or `https` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsEndpoint {
    /// Over TLS.
    pub secure: bool,
    /// Host and port.
    pub server: HostPort,
    /// Absolute path, with the query if there is one.
    pub path: String,
    /// UNIX socket to connect to instead of the server, by somebody who connects on.
    pub through: Option<PathBuf>,
}

impl KmsEndpoint {
    /// Reads an `http://host[:port][/path]` URL, or one of `https`. Without a path, [`KEY_MATERIAL_PATH`] is meant.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST_URI {
            return Err(format!("it is longer than {LONGEST_URI} octets"));
        }
        let secure = scheme_is(text, "https");
        let rest = (secure || scheme_is(text, "http"))
            .then(|| text.split_once("://"))
            .flatten()
            .map(|(_, rest)| rest)
            .ok_or_else(|| "it begins neither with https:// nor with http://".to_owned())?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path.contains('#') {
            return Err("a fragment is never sent".to_owned());
        }
        if !path.is_empty() && !path.starts_with('/') {
            return Err("the path must begin with /".to_owned());
        }
        check_characters(path)?;
        let (host, port) = split_authority(authority)?;
        let path = if path.is_empty() || path == "/" { KEY_MATERIAL_PATH } else { path };
        let port = port.unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { secure, server: HostPort { host, port }, path: path.to_owned(), through: None })
    }
}

impl fmt::Display for KmsEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.secure { "https" } else { "http" }, self.server, self.path)
    }
}

fn scheme_is(url: &str, scheme: &str) -> bool {
    url.split_once("://").is_some_and(|(written, _)| written.eq_ignore_ascii_case(scheme))
}

fn split_authority(text: &str) -> Result<(String, Option<u16>), String> {
    if text.contains('@') {
        return Err("a user name or password has no place in it".to_owned());
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| "the ] is missing".to_owned())?;
        host.parse::<Ipv6Addr>().map_err(|_| "no IPv6 address stands in the brackets".to_owned())?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port),
            None if rest.is_empty() => None,
            None => return Err("only a port may follow the ]".to_owned()),
        };
        (host, port)
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("an IPv6 address stands in brackets".to_owned());
            }
            Some((host, port)) => (check_host(host)?, Some(port)),
            None => (check_host(text)?, None),
        }
    };
    let port = port.map(parse_port).transpose()?;
    Ok((host.to_owned(), port))
}

fn check_host(host: &str) -> Result<&str, String> {
    let labels_are_right = host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
    if labels_are_right { Ok(host) } else { Err("the host is no name and no IP address".to_owned()) }
}

fn parse_port(text: &str) -> Result<u16, String> {
    let digits_only = text.bytes().all(|b| b.is_ascii_digit());
    let port = digits_only.then(|| text.parse().ok()).flatten().filter(|port| *port != 0);
    port.ok_or_else(|| "the port is not a number from 1 to 65535".to_owned())
}

/// Reads a DNS name, which is kept in lower case.
pub(crate) fn parse_dns(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() {
        return Err("it is an IP address".to_owned());
    }
    check_host(text).map(str::to_ascii_lowercase)
}

/// Reads an address to listen on. Port 0 lets the operating system choose.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "it is no IP address with a port".to_owned())
}

/// Reads an absolute URI of RFC 3986, which is to be compared octet by octet.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn check_uri(text: &str) -> Result<(), String> {
    if text.len() > LONGEST_URI {
        return Err(format!("it is longer than {LONGEST_URI} octets"));
    }
    let (scheme, rest) = text.split_once(':').ok_or_else(|| "the scheme is missing".to_owned())?;
    let mut letters = scheme.bytes();
    let scheme_is_right = letters.next().is_some_and(|b| b.is_ascii_alphabetic())
        && letters.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    if !scheme_is_right {
        return Err("the scheme is missing".to_owned());
    }
    if rest.is_empty() {
        return Err("nothing follows the scheme".to_owned());
    }
    // Brackets belong around an IP address only (RFC 3986, 3.2.2).
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
        None => ("", rest),
    };
    check_characters(&authority.replace(['[', ']'], ""))?;
    check_characters(&path.replacen('#', "", 1))
}

/// As [`check_uri`], keeping the URI.
pub(crate) fn parse_uri(text: &str) -> Result<String, String> {
    check_uri(text).map(|()| text.to_owned())
}

/// Takes what may stand unescaped in the path and query of a URI, and percent escapes.
fn check_characters(text: &str) -> Result<(), String> {
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let allowed = match octet {
            b'%' => {
                let mut hex = || octets.next().is_some_and(|b| b.is_ascii_hexdigit());
                hex() && hex()
            }
            _ => octet.is_ascii_alphanumeric() || b"-._~:/?@!$&'()*+,;=".contains(&octet),
        };
        if !allowed {
            return Err("a character stands in it that a URI must escape".to_owned());
        }
    }
    Ok(())
}
