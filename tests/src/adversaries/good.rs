//! A client and a KMS that do right, to see whether they are served while others do wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::DEADLINE;

/// One call of the API, on a connection of its own: HTTP status and body.
///
/// # Panics
/// When there is no answer in time.
#[must_use]
pub fn call(api: SocketAddr, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let mut stream = TcpStream::connect_timeout(&api, DEADLINE).expect("the API takes connections");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    write!(
        stream,
        "{method} /api/v1/kms/etsi004/{path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("the API reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no HTTP in {answer:?}"));
    let json = answer.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
    (status, json.unwrap_or(Value::Null))
}

/// Opens a stream at the module of `source`, joins it at that of `destination`, and asks for its key at both. Tries until the
/// link is up.
///
/// # Panics
/// When it is refused for longer than a test waits.
#[must_use]
pub fn open_stream(apis: [SocketAddr; 2], kms: [&str; 2], chunk: u32, max_bps: u32) -> String {
    let qos = json!({"key_chunk_size": chunk, "max_bps": max_bps});
    let open = |id: Value| json!({"source": kms[0], "destination": kms[1], "key_stream_id": id, "qos": qos});
    let opened = until(apis[0], "POST", "open-connect", &open(Value::Null), 201);
    let id = opened["key_stream_id"].clone();
    let _ = until(apis[1], "POST", "open-connect", &open(id.clone()), 201);
    for api in apis {
        let _ = until(api, "POST", "get-key", &json!({"key_stream_id": id}), 205);
    }
    id.as_str().expect("an ID").to_owned()
}

fn until(api: SocketAddr, method: &str, path: &str, body: &Value, wanted: u16) -> Value {
    let end = Instant::now() + DEADLINE;
    loop {
        let (status, answer) = call(api, method, path, body);
        if status == wanted {
            return answer;
        }
        assert!(Instant::now() < end, "{path} is still answered with {status}: {answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A KMS that accepts everything at once and counts it.
pub struct GoodKms {
    /// Where it listens.
    pub address: SocketAddr,
    accepted: Arc<AtomicU64>,
    streams: Arc<Mutex<Vec<String>>>,
}

impl GoodKms {
    /// Listens on a free port. It lives as long as the process.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let kms = Self { address, accepted: Arc::default(), streams: Arc::default() };
        let (accepted, streams) = (Arc::clone(&kms.accepted), Arc::clone(&kms.streams));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (accepted, streams) = (Arc::clone(&accepted), Arc::clone(&streams));
                std::thread::spawn(move || serve(stream, &accepted, &streams));
            }
        });
        kms
    }

    /// Key chunks accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Key streams that key came for.
    #[must_use]
    pub fn streams(&self) -> Vec<String> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many more chunks have come.
    ///
    /// # Panics
    /// When they do not come in time.
    pub fn await_more(&self, chunks: u64) {
        let (end, wanted) = (Instant::now() + DEADLINE, self.accepted() + chunks);
        while self.accepted() < wanted {
            assert!(Instant::now() < end, "{} of {wanted} chunks came", self.accepted());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn serve(stream: TcpStream, accepted: &AtomicU64, streams: &Mutex<Vec<String>>) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(&stream);
    while let Some(body) = read_request(&mut reader) {
        let Ok(material) = serde_json::from_slice::<Value>(&body) else { return };
        if material["status"] == 0 {
            accepted.fetch_add(1, Ordering::Relaxed);
            if let Some(id) = material["metadata"]["buffer"]["key_stream_id"].as_str() {
                let mut streams = streams.lock().unwrap_or_else(PoisonError::into_inner);
                if !streams.iter().any(|known| known == id) {
                    streams.push(id.to_owned());
                }
            }
        }
        if (&stream).write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

/// The body of the next request; `None` at the end of the connection.
pub(super) fn read_request(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let (mut length, mut line) = (0, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}
