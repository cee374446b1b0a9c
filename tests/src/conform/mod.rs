//! What `qkdctl conform` is tried on: a proxy that spoils what passes through it, and a small KMS with planted defects.

pub mod defects;
mod small_kms;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

pub use self::small_kms::{Defect, small_kms};

use crate::DEADLINE;
use crate::process::Process;
use crate::programs::program;

/// Bodies beyond that are not waited for.
const LARGEST: usize = 1 << 20;

/// A request or an answer.
#[derive(Clone, Debug)]
pub struct Message {
    /// First line and header fields, without the blank line.
    pub head: String,
    /// Body.
    pub body: Vec<u8>,
    /// There is more of its body than anybody wants.
    cut: bool,
}

impl Message {
    /// An answer with a body of JSON.
    #[must_use]
    pub fn answer(status: u16, body: impl ToString) -> Self {
        let body = body.to_string().into_bytes();
        Self {
            head: format!(
                "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}",
                body.len()
            ),
            body,
            cut: false,
        }
    }

    /// The body as JSON; null where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Another body of JSON, or text, with its length.
    pub fn set_body(&mut self, body: impl ToString) {
        self.body = body.to_string().into_bytes();
        let lines =
            self.head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"));
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        self.head = format!("{}\r\nContent-Length: {}", lines.join("\r\n"), self.body.len());
    }

    /// HTTP status of an answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// Another HTTP status.
    pub fn set_status(&mut self, status: u16) {
        self.head = self.head.replacen(&self.status().to_string(), &status.to_string(), 1);
    }

    /// Whether it is a request of this call.
    #[must_use]
    pub fn calls(&self, call: &str) -> bool {
        self.head.lines().next().is_some_and(|line| line.contains(call))
    }

    /// A header field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Takes header fields away.
    pub fn remove(&mut self, name: &str) {
        let start = format!("{}:", name.to_ascii_lowercase());
        let lines = self.head.lines().filter(|line| !line.to_ascii_lowercase().starts_with(&start));
        self.head = lines.collect::<Vec<_>>().join("\r\n");
    }

    /// Reads one; `None`: the connection ended. What was read beyond it stays in `read`.
    pub fn read(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<Self> {
        let mut piece = [0; 16 << 10];
        loop {
            if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&read[..end]).into_owned();
                let mut message = Self { head, body: Vec::new(), cut: false };
                let length: usize = message.field("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
                message.cut = length > LARGEST;
                let length = if message.cut { read.len() - end - 4 } else { length };
                if read.len() >= end + 4 + length {
                    message.body = read[end + 4..end + 4 + length].to_vec();
                    read.drain(..end + 4 + length);
                    return Some(message);
                }
            }
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(got) => read.extend_from_slice(&piece[..got]),
            }
        }
    }

    /// As it stands on the wire.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        [self.head.as_bytes(), b"\r\n\r\n", &self.body].concat()
    }
}

/// Spoils a request on its way; with the numbers of times that each index went through.
pub type SpoilRequest = fn(&mut Message, &HashMap<u64, u32>);
/// Spoils an answer on its way back; with the request that it answers.
pub type SpoilAnswer = fn(&Message, &mut Message);

/// What a proxy does to what passes through it.
#[derive(Clone, Copy, Default)]
pub struct Spoil {
    /// To requests.
    pub request: Option<SpoilRequest>,
    /// To answers.
    pub answer: Option<SpoilAnswer>,
}

/// A proxy in front of an HTTP server.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    spoil: Arc<Mutex<Spoil>>,
}

impl Proxy {
    /// Starts one that leads to `to`, and spoils nothing.
    ///
    /// # Panics
    /// Without a free port.
    #[must_use]
    pub fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let spoil = Arc::new(Mutex::new(Spoil::default()));
        let shared = Arc::clone(&spoil);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let spoil = Arc::clone(&shared);
                std::thread::spawn(move || pass(client, to, &spoil));
            }
        });
        Self { address, spoil }
    }

    /// From now on spoils so.
    pub fn set(&self, spoil: Spoil) {
        *self.spoil.lock().expect("not poisoned") = spoil;
    }
}

fn pass(mut client: TcpStream, to: SocketAddr, spoil: &Mutex<Spoil>) -> Option<()> {
    static PASSED: Mutex<Option<HashMap<String, HashMap<u64, u32>>>> = Mutex::new(None);
    let mut server = TcpStream::connect(to).ok()?;
    let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
    loop {
        let mut request = Message::read(&mut client, &mut from_client)?;
        let spoil = *spoil.lock().expect("not poisoned");
        if let Some(spoil) = spoil.request {
            let body = request.json();
            let mut passed = PASSED.lock().expect("not poisoned");
            let stream =
                body.pointer("/metadata/buffer/key_stream_id").map(ToString::to_string).unwrap_or_default();
            let passed = passed.get_or_insert_default().entry(format!("{to} {stream}")).or_default();
            spoil(&mut request, passed);
            if let Some(index) = body["index"].as_u64() {
                *passed.entry(index).or_default() += 1;
            }
        }
        server.write_all(&request.octets()).ok()?;
        let mut answer = Message::read(&mut server, &mut from_server)?;
        if let Some(spoil) = spoil.answer {
            spoil(&request, &mut answer);
        }
        client.write_all(&answer.octets()).ok()?;
        if request.cut {
            return None;
        }
    }
}

/// What `qkdctl conform` has found.
#[derive(Debug)]
pub struct Found {
    /// Its exit code.
    pub code: i32,
    /// Every check with its verdict and detail.
    pub checks: Vec<(String, String, String)>,
    /// The whole report.
    pub report: Value,
}

impl Found {
    /// Checks with this verdict.
    #[must_use]
    pub fn with(&self, verdict: &str) -> Vec<&str> {
        self.checks.iter().filter(|(_, found, _)| found == verdict).map(|(id, ..)| id.as_str()).collect()
    }
}

/// Runs `qkdctl conform -o json` with these arguments.
///
/// # Panics
/// When it gives no report.
#[must_use]
pub fn conform(arguments: &[&str]) -> Found {
    let mut command = Command::new(program("qkdctl"));
    command.args(["conform", "-o", "json"]).args(arguments);
    let mut probe = Process::start("qkdctl conform", &mut command);
    let code = probe.wait(DEADLINE * 3).code().expect("an exit code");
    let output = probe.output();
    let json = output.find('{').map_or("", |begin| &output[begin..]);
    let report: Value = serde_json::from_str(json).unwrap_or_else(|why| panic!("{why}: {output}"));
    let text = |check: &Value, member: &str| check[member].as_str().expect("a text").to_owned();
    let checks = report["checks"].as_array().expect("checks");
    let checks = checks.iter().map(|c| (text(c, "id"), text(c, "verdict"), text(c, "detail"))).collect();
    Found { code, checks, report }
}

/// Follows a redirect, as a careless HTTP client does.
pub fn follow(request: &Message, answer: &mut Message) {
    if answer.status() == 307
        && let Some(location) = answer.field("location")
        && let Some(to) = location.strip_prefix("http://").and_then(|rest| rest.split('/').next())
        && let Ok(mut stream) = TcpStream::connect(to)
    {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
        let _ = stream.write_all(&request.octets());
        let mut read = Vec::new();
        if let Some(followed) = Message::read(&mut stream, &mut read) {
            *answer = followed;
        }
    }
}
