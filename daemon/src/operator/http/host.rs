//! Whose name a request was sent to.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::is_loopback;

/// Whether a Host header names this host's loopback: `localhost`, an address of 127.0.0.0/8 or `[::1]`, with a port or without.
pub(super) fn is_own(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            return is_port(port) && address.parse::<Ipv6Addr>().is_ok_and(|ip| is_loopback(IpAddr::V6(ip)));
        }
        None => match host.split_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(is_loopback)
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::is_own;

    #[test]
    fn a_name_that_somebody_else_can_have_point_here_is_not_ours() {
        for own in ["localhost", "LocalHost:8101", "127.0.0.1:8101", "127.9.8.7", "[::1]", "[::1]:8101"] {
            assert!(is_own(own), "{own}");
        }
        for foreign in [
            "",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "127.0.0.1:80:80",
            "[::1].example.com",
            "[::1",
            "::1",
            "192.0.2.1",
            "0.0.0.0",
            "2130706433",
            "0x7f000001",
            "localhost:x",
            "user@localhost",
            "[2001:db8::1]",
        ] {
            assert!(!is_own(foreign), "{foreign}");
        }
    }
}
