//! Who may come in: one client's connections leave room for others'.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

/// Answer to a connection beyond the limit.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
    Connection: close\r\nContent-Length: 88\r\n\r\n\
    {\"status\":4,\"detail\":\"too many connections from this address; close some and try again\"}";
/// Longest time that a refused client has to read why, and how many have it at once.
const FAREWELL: Duration = Duration::from_secs(1);
const MOST_FAREWELLS: usize = 32;
/// Between two sentences in the log.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Counts connections by address, for all threads that serve them.
#[derive(Clone, Debug)]
pub(super) struct Doors {
    most: u32,
    inside: Arc<Mutex<Inside>>,
    lingering: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Inside {
    by_address: HashMap<IpAddr, u32>,
    refused: u64,
    said: Option<Instant>,
}

/// A place that one connection has as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    address: IpAddr,
    doors: Doors,
}

impl Doors {
    pub(super) fn new(most_per_address: u32) -> Self {
        Self {
            most: most_per_address,
            inside: Arc::default(),
            lingering: Arc::new(Semaphore::new(MOST_FAREWELLS)),
        }
    }

    /// A place for a connection from there; `None` where it has as many as it may.
    pub(super) fn enter(&self, from: SocketAddr) -> Option<Place> {
        let address = client(from.ip());
        let mut inside = self.lock();
        let count = inside.by_address.entry(address).or_default();
        if *count >= self.most {
            inside.say_refused(address, self.most);
            return None;
        }
        *count += 1;
        Some(Place { address, doors: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Every change is a single step.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn say_refused(&mut self, address: IpAddr, most: u32) {
        self.refused += 1;
        if self.said.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            return;
        }
        self.said = Some(Instant::now());
        log::warn!(
            id = "api.too_many"; "API: {address} has {most} connections, as many as may be (api.most_connections_per_address); connections \
             refused so far: {}",
            self.refused
        );
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.doors.lock();
        if let Some(count) = inside.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                inside.by_address.remove(&self.address);
            }
        }
    }
}

/// Tells a client that it has too many connections, and lets it read that.
pub(super) async fn turn_away(mut stream: TcpStream, doors: Doors) {
    // A connection that is closed before its client has been read tears the answer away from it. Only few may linger.
    let Ok(_lingering) = doors.lingering.try_acquire() else { return };
    let farewell = async {
        stream.write_all(TOO_MANY).await?;
        stream.shutdown().await?;
        let mut dropped = [0; 4096];
        while stream.read(&mut dropped).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

/// Whose address it is: the network of 64 bits where it is IPv6, of which a client may have every address.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 40_000)
    }

    #[test]
    fn one_address_at_its_limit_leaves_the_doors_open_for_others() {
        let doors = Doors::new(2);
        let first = doors.enter(from("192.0.2.1")).unwrap();
        let _second = doors.enter(from("::ffff:192.0.2.1")).unwrap();
        assert!(doors.enter(from("192.0.2.1")).is_none());
        assert!(doors.enter(from("192.0.2.2")).is_some());
        drop(first);
        let _third = doors.enter(from("192.0.2.1")).unwrap();
        assert!(doors.enter(from("192.0.2.1")).is_none());
    }

    #[test]
    fn a_client_cannot_multiply_itself_by_the_addresses_of_its_network() {
        let doors = Doors::new(1);
        let _one = doors.enter(from("2001:db8:0:1::1")).unwrap();
        assert!(doors.enter(from("2001:db8:0:1:ffff::2")).is_none());
        assert!(doors.enter(from("2001:db8:0:2::1")).is_some());
    }

    #[test]
    fn addresses_that_are_gone_are_forgotten() {
        let doors = Doors::new(1);
        for last in 0..200 {
            drop(doors.enter(from(&format!("192.0.2.{last}"))));
        }
        assert!(doors.lock().by_address.is_empty());
    }

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}\r\n", body.len()))
                || head.ends_with(&format!("Content-Length: {}", body.len())),
            "{}",
            body.len()
        );
        assert!(body.ends_with('}') && body.contains("\"status\":4"));
    }
}
