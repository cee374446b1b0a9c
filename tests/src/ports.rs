//! Ports for what is started later: the system gives them to nobody else meanwhile.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range out of which Linux gives a port to whoever asks for any (`ip_local_port_range`).
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Where this process begins, so that two do not try the same ones in turn.
static BEGIN: LazyLock<u16> =
    LazyLock::new(|| u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0));
static TRIED: AtomicU16 = AtomicU16::new(0);

/// Addresses on this host where nobody listens. No test of this process is given one of them again.
///
/// # Panics
/// When there are none left.
#[must_use]
pub fn free_ports<const N: usize>() -> [SocketAddr; N] {
    std::array::from_fn(|_| {
        loop {
            let tried = TRIED.fetch_add(1, Ordering::Relaxed);
            assert!(tried < COUNT, "no port is free");
            let port = FIRST + (*BEGIN + tried) % COUNT;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            // It goes back at once; whoever is given it says so if it is taken all the same.
            if TcpListener::bind(address).is_ok() {
                return address;
            }
        }
    })
}

/// `text` with these ports in place of those that are `written` there behind `before`. In two steps: a port may be written
/// like one that is still to be replaced.
#[must_use]
pub fn with_ports(text: &str, before: &str, written: &[&str], ports: &[SocketAddr]) -> String {
    let mark = |number: usize| format!("\0{number}\0");
    let mut text = text.to_owned();
    for (number, port) in written.iter().enumerate() {
        text = text.replace(&format!("{before}{port}"), &format!("{before}{}", mark(number)));
    }
    for (number, address) in ports.iter().enumerate() {
        text = text.replace(&mark(number), &address.port().to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_given_a_port_twice_or_one_of_the_systems() {
        let mut all: Vec<SocketAddr> = [free_ports::<8>(), free_ports()].concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 16);
        assert!(all.iter().all(|address| (FIRST..FIRST + COUNT).contains(&address.port())), "{all:?}");
    }

    #[test]
    fn a_port_that_looks_like_one_to_replace_stays() {
        let ports = [27_001, 28_001].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        assert_eq!(with_ports("a:8001 b:7001 8001", ":", &["8001", "7001"], &ports), "a:27001 b:28001 8001");
    }
}
