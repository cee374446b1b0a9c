//! A KMS that does everything wrong with the key that is pushed to it.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::good::read_request;
use crate::DEADLINE;

/// What is done on a connection.
#[derive(Clone, Copy)]
enum Deed {
    /// Closed before anything is read.
    Refuse,
    /// Reads, never answers, and holds the connection.
    Silent,
    /// Never even reads.
    Deaf,
    /// Says this before it has read anything, and holds.
    Early(&'static [u8]),
    /// Reads a request, says this, and goes on.
    Say(&'static [u8]),
    /// Reads a request, says this, and closes.
    SayAndClose(&'static [u8]),
    /// Reads a part of a request and closes.
    CloseWithin,
    /// Says the first, and then the second over and over.
    Endless(&'static [u8], &'static [u8]),
    /// Accepts everything for as long as the KMS is calm.
    Good,
    /// Answers drop by drop.
    Drip(&'static [u8]),
}

const DEEDS: &[(&str, Deed)] = &[
    ("closes at once", Deed::Refuse),
    ("closes within the request", Deed::CloseWithin),
    ("closes without an answer", Deed::SayAndClose(b"")),
    ("closes within the head", Deed::SayAndClose(b"HTTP/1.1 20")),
    ("closes within the body", Deed::SayAndClose(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{")),
    ("never answers", Deed::Silent),
    ("never reads", Deed::Deaf),
    ("answers before it was asked", Deed::Early(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")),
    ("answers too often", Deed::Say(b"HTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\nHTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\nHTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\n")),
    ("no HTTP", Deed::SayAndClose(b"220 smtp.example ESMTP\r\n")),
    ("another version", Deed::SayAndClose(b"HTTP/2 201\r\n\r\n")),
    ("status 000", Deed::SayAndClose(b"HTTP/1.1 000 Nothing\r\nContent-Length: 0\r\n\r\n")),
    ("status 999", Deed::SayAndClose(b"HTTP/1.1 999 All\r\nContent-Length: 0\r\n\r\n")),
    ("status 20", Deed::SayAndClose(b"HTTP/1.1 20 OK\r\n\r\n")),
    ("switches protocols", Deed::SayAndClose(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil\r\n\r\n")),
    ("interim answers without end", Deed::Endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n")),
    ("a head without end", Deed::Endless(b"HTTP/1.1 201 Created\r\n", b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")),
    ("a body without end", Deed::Endless(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n")),
    ("contradictory lengths", Deed::SayAndClose(b"HTTP/1.1 201 C\r\nContent-Length: 0\r\nContent-Length: 7\r\n\r\n")),
    ("a length that is none", Deed::SayAndClose(b"HTTP/1.1 503 B\r\nContent-Length: -5\r\n\r\n")),
    ("a huge length", Deed::SayAndClose(b"HTTP/1.1 503 B\r\nContent-Length: 18446744073709551616\r\n\r\nx")),
    ("a chunk that is none", Deed::SayAndClose(b"HTTP/1.1 503 B\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")),
    ("drop by drop", Deed::Drip(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")),
    ("an hour's pause", Deed::SayAndClose(b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")),
    ("an absurd pause", Deed::SayAndClose(b"HTTP/1.1 503 Busy\r\nRetry-After: 99999999999999999999\r\nContent-Length: 0\r\n\r\n")),
];

/// What has been seen of the key that came.
#[derive(Default)]
struct Seen {
    bodies: Mutex<Vec<u8>>,
    connections: AtomicUsize,
    calm: AtomicBool,
}

/// The KMS. It does one deed on each connection, in turn, for as long as the process lives.
pub struct HostileKms {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

impl HostileKms {
    /// Listens on a free port.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn start() -> Self {
        Self::doing(|number| DEEDS[number % DEEDS.len()].1)
    }

    fn doing(deed: impl Fn(usize) -> Deed + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let seen = Arc::new(Seen::default());
        let theirs = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let deed = if theirs.calm.load(Ordering::SeqCst) {
                    Deed::Good
                } else {
                    deed(theirs.connections.fetch_add(1, Ordering::SeqCst))
                };
                let seen = Arc::clone(&theirs);
                std::thread::spawn(move || drop(act(&stream, deed, &seen)));
            }
        });
        Self { address, seen }
    }

    /// A KMS that sends everybody there.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn redirecting(to: &str) -> Self {
        let words = format!("HTTP/1.1 308 Permanent Redirect\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        // Lives as long as the process, like the KMS.
        let deed = Deed::SayAndClose(words.into_bytes().leak());
        Self::doing(move |_| deed)
    }

    /// Does right from the next connection on, or wrong again at once.
    pub fn calm_down(&self, calm: bool) {
        self.seen.calm.store(calm, Ordering::SeqCst);
    }

    /// Whether every deed has been done once.
    #[must_use]
    pub fn is_through(&self) -> bool {
        self.seen.connections.load(Ordering::SeqCst) > DEEDS.len()
    }

    /// Deeds done so far, one on each connection.
    #[must_use]
    pub fn deeds_done(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Which deed it is at, in words.
    #[must_use]
    pub fn progress(&self) -> String {
        let done = self.seen.connections.load(Ordering::SeqCst);
        let now = DEEDS[done.saturating_sub(1) % DEEDS.len()].0;
        format!("{done} of {} deeds; the module does not come back from: {now}", DEEDS.len())
    }

    /// Waits until so many connections have come since it began.
    ///
    /// # Panics
    /// When they do not come in time.
    pub fn await_connections(&self, count: usize) {
        let end = Instant::now() + DEADLINE;
        while self.seen.connections.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < end, "fewer than {count} connections");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether `text` stands in anything that was pushed here.
    #[must_use]
    pub fn has_seen(&self, text: &str) -> bool {
        let bodies = self.seen.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

fn act(mut stream: &TcpStream, deed: Deed, seen: &Seen) -> std::io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut reader = BufReader::new(stream);
    let mut read = || -> std::io::Result<()> {
        let body = read_request(&mut reader).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let mut bodies = seen.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        if bodies.len() < 4 << 20 {
            bodies.extend_from_slice(&body);
        }
        Ok(())
    };
    match deed {
        Deed::Refuse => Ok(()),
        Deed::CloseWithin => stream.read_exact(&mut [0; 20]),
        Deed::Silent => loop {
            read()?;
        },
        Deed::Deaf => {
            // Until the module has had enough, which shows in a reset or an end behind what was not read.
            let mut octet = [0];
            loop {
                std::thread::sleep(Duration::from_millis(100));
                stream.set_nonblocking(true)?;
                let peeked = stream.peek(&mut octet);
                stream.write_all(b"")?;
                stream.take_error()?.map_or(Ok(()), Err)?;
                if matches!(peeked, Ok(0)) {
                    return Ok(());
                }
            }
        }
        Deed::Good => {
            while seen.calm.load(Ordering::SeqCst) {
                read()?;
                stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")?;
            }
            Ok(())
        }
        Deed::Early(words) => {
            stream.write_all(words)?;
            loop {
                read()?;
            }
        }
        Deed::Say(words) => loop {
            read()?;
            stream.write_all(words)?;
        },
        Deed::SayAndClose(words) => {
            read()?;
            stream.write_all(words)
        }
        Deed::Endless(first, again) => {
            read()?;
            stream.write_all(first)?;
            loop {
                stream.write_all(again)?;
            }
        }
        Deed::Drip(words) => {
            read()?;
            for octet in words {
                stream.write_all(&[*octet])?;
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        }
    }
}
