//! A KMS of one key stream that keeps every chunk and can hold its answers back.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::DEADLINE;

/// How soon a KMS that holds answers back sees that it may give them.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const ACCEPTED: &[u8] = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";

/// The KMS.
pub struct HoldingKms {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Key by index.
    chunks: Mutex<BTreeMap<u32, Vec<u8>>>,
    held_back: Mutex<bool>,
    answered: AtomicU64,
    received: AtomicU64,
    connections: AtomicU64,
}

impl HoldingKms {
    /// Serves on loopback until the test ends.
    #[must_use]
    pub fn start() -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// As [`HoldingKms::start`], at this address.
    ///
    /// # Panics
    /// When somebody else is there.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, shared }
    }

    /// Its base URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on answers are held back, or given.
    pub fn hold_back(&self, held_back: bool) {
        *self.shared.held_back.lock().unwrap_or_else(PoisonError::into_inner) = held_back;
    }

    /// Chunks received and those of them answered.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        // In this order, so that no more are answered than were received.
        let answered = self.shared.answered.load(Ordering::SeqCst);
        (self.shared.received.load(Ordering::SeqCst), answered)
    }

    /// Connections that the module has made.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Every chunk received, by index.
    #[must_use]
    pub fn chunks(&self) -> BTreeMap<u32, Vec<u8>> {
        self.shared.chunks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `is_so` holds for the numbers of chunks received and answered.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_until(&self, what: &str, is_so: impl Fn(u64, u64) -> bool) {
        let until = Instant::now() + DEADLINE;
        loop {
            let (received, answered) = self.counts();
            if is_so(received, answered) {
                return;
            }
            assert!(Instant::now() < until, "no {what} in time: {received} received, {answered} answered");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) {
    stream.set_read_timeout(Some(LOOK_EVERY)).expect("a socket has deadlines");
    // Answers that are owed, and those of them that are to chunks.
    let (mut buffer, mut owed, mut chunks) = (Vec::new(), 0, 0);
    let mut piece = vec![0; 1 << 16];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return,
            Ok(octets) => buffer.extend_from_slice(&piece[..octets]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
        let mut done = 0;
        while let Some((length, body)) = request(&buffer[done..]) {
            chunks += u64::from(take(body, shared));
            done += length;
            owed += 1;
        }
        buffer.drain(..done);
        // Until the answers are counted nobody begins to hold back.
        let held_back = shared.held_back.lock().unwrap_or_else(PoisonError::into_inner);
        if owed > 0 && !*held_back {
            if stream.write_all(&ACCEPTED.repeat(owed)).is_err() {
                return;
            }
            shared.answered.fetch_add(chunks, Ordering::SeqCst);
            (owed, chunks) = (0, 0);
        }
    }
}

/// The first request's length and body, once all of it is there.
fn request(octets: &[u8]) -> Option<(usize, &[u8])> {
    let head = octets.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&octets[..head]).expect("a head is text");
    let length =
        text.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("it has a length");
    let end = head + length.parse::<usize>().expect("a number");
    Some((end, octets.get(head..end)?))
}

/// Whether it is a chunk, and not a notice.
fn take(body: &[u8], shared: &Shared) -> bool {
    let message: serde_json::Value = serde_json::from_slice(body).expect("key-material is JSON");
    let is_chunk = message["status"] == 0;
    if is_chunk {
        let index = message["index"].as_u64().and_then(|index| u32::try_from(index).ok()).expect("an index");
        let text = message["key_buffer"].as_str().expect("key");
        let key = base64_turbo::STANDARD.decode(text).expect("base64");
        let mut chunks = shared.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        let before = chunks.insert(index, key);
        assert!(before.is_none(), "chunk {index} came twice, with nothing that would have it sent again");
        shared.received.fetch_add(1, Ordering::SeqCst);
    }
    is_chunk
}
