//! A daemon at the other end that says everything wrong: as octets, as frames, as messages in every state.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::DEADLINE;

const ID: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";

/// A connection to a daemon that listens for its peer.
pub struct HostilePeer {
    stream: TcpStream,
}

/// A frame of `octets`.
#[must_use]
pub fn frame(octets: &[u8]) -> Vec<u8> {
    let length = u32::try_from(octets.len()).expect("a length");
    [&length.to_be_bytes()[..], octets].concat()
}

impl HostilePeer {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    #[must_use]
    pub fn connect(peer: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&peer, DEADLINE).expect("the daemon listens for its peer");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        stream.set_write_timeout(Some(DEADLINE)).expect("a socket");
        Self { stream }
    }

    /// Says `octets`, as far as they are taken.
    pub fn say(&mut self, octets: &[u8]) {
        let _ = self.stream.write_all(octets);
    }

    /// The next message that is no sign of life; `None` when the daemon closes.
    ///
    /// # Panics
    /// When it says something that is no message.
    pub fn hear(&mut self) -> Option<Value> {
        loop {
            let mut length = [0; 4];
            self.stream.read_exact(&mut length).ok()?;
            let mut octets = vec![0; u32::from_be_bytes(length) as usize];
            self.stream.read_exact(&mut octets).ok()?;
            if !octets.is_empty() {
                return Some(serde_json::from_slice(&octets).expect("the daemon speaks JSON"));
            }
        }
    }

    /// The daemon's greeting. It comes once this end has said something.
    #[must_use]
    pub fn greeting(&mut self) -> Option<Value> {
        let end = Instant::now() + DEADLINE;
        loop {
            let heard = self.hear()?;
            if heard["type"] == "hello" {
                return Some(heard);
            }
            assert!(Instant::now() < end, "no greeting");
        }
    }

    /// Whether the daemon ends the connection, within `deadline`.
    #[must_use]
    pub fn is_left(&mut self, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        let mut part = [0; 4096];
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(50)));
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return true,
            }
            if Instant::now() > end {
                return false;
            }
        }
    }
}

/// A follower's greeting that a leader which has said `hello` believes.
#[must_use]
pub fn answer_to(hello: &Value) -> Value {
    let mut answer = hello.clone();
    answer["role"] = json!(if hello["role"] == "leader" { "follower" } else { "leader" });
    answer["card"] = hello["peer_card"].clone();
    answer["peer_card"] = hello["card"].clone();
    answer["module"] = json!("evil");
    answer["kms"] = json!(["kms://b"]);
    answer["heard"] = json!(true);
    answer
}

/// Octets that are no frame of a message, said first or after a greeting.
#[must_use]
pub fn octets() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a length beyond the limit", vec![0xFF; 4]),
        ("just beyond the limit", (0x10_0001_u32).to_be_bytes().to_vec()),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: m\r\n\r\n".to_vec()),
        ("no JSON", frame(b"hello")),
        ("no text", frame(&[0xFF; 64])),
        ("JSON without a bottom", frame("[".repeat(500_000).as_bytes())),
        ("a list", frame(b"[]")),
        ("no kind", frame(b"{}")),
        ("another kind", frame(b"{\"type\":\"give_me_key\"}")),
        ("a megabyte of spaces", frame(&vec![b' '; 1 << 20])),
    ]
}

/// Messages that are wrong after a greeting, from the epoch and card numbers of `hello`.
#[must_use]
pub fn messages(hello: &Value) -> Vec<(&'static str, Value)> {
    let (epoch, zeros) = (&hello["epoch"], "0".repeat(64));
    let report = json!({"type": "report", "epoch": epoch, "serial": 1, "urgent": true, "applied": hello["last"],
        "hash": hello["hash"], "have": [], "complete": [1, 0], "streams": [], "link": 3, "secret_key_rate_bps": 1000,
        "capacity": {"bytes": 1 << 26, "blocks": 1 << 16}, "pinned": {"bytes": 0, "blocks": 0}});
    let with = |member: &str, value: Value| {
        let mut changed = report.clone();
        changed[member] = value;
        changed
    };
    let line = |position: u64, wish: u64| {
        json!([{"stream": ID, "opened": true, "wanted": true, "closed": false,
        "position": position, "wish": wish}])
    };
    let open = json!({"type": "open_request", "call": 1, "stream": ID, "chosen": false, "kms": "kms://b",
        "source": "kms://a", "destination": "kms://b", "qos": {"key_chunk_size": 32}});
    let open_with = |member: &str, value: Value| {
        let mut changed = open.clone();
        changed[member] = value;
        changed
    };
    vec![
        ("a greeting again", answer_to(hello)),
        ("another epoch", with("epoch", json!(7))),
        ("an epoch beyond all", with("epoch", json!(u64::MAX))),
        ("entries that were never written", with("applied", json!(5))),
        ("another hash", with("hash", json!(zeros))),
        ("a hash that is none", with("hash", json!("x"))),
        ("every block there can be", with("have", json!([[1, 0, u64::MAX - 1]]))),
        ("ranges out of order", with("have", json!([[2, 0, 1], [1, 0, 1]]))),
        ("ranges that run backwards", with("have", json!([[1, 5, 4]]))),
        (
            "thousands of ranges",
            with("have", json!((0..3_000_u64).map(|n| [1, 2 * n, 2 * n]).collect::<Vec<_>>())),
        ),
        ("complete beyond all", with("complete", json!([u64::MAX, u64::MAX]))),
        ("a stream that nobody has", with("streams", line(0, 0))),
        ("positions beyond all", with("streams", line(u64::MAX, u64::MAX))),
        ("a link state that is none", with("link", json!(u32::MAX))),
        ("no room", with("capacity", json!({"bytes": 0, "blocks": 0}))),
        ("a serial from the end of time", with("serial", json!(u64::MAX))),
        (
            "a log, which is the leader's to send",
            json!({"type": "log", "epoch": epoch, "heard": 0, "entries": [], "streams": []}),
        ),
        (
            "an answer that nobody asked for",
            json!({"type": "open_reply", "call": 1, "stream": ID, "status": 0, "detail": "",
            "counter_proposal": null}),
        ),
        ("a KMS of nobody", open_with("kms", json!("kms://evil"))),
        ("the leader's own KMS", open_with("kms", json!("kms://a"))),
        ("a URI without end", open_with("source", json!("x".repeat(3_000)))),
        ("a chunk of 4 GiB", open_with("qos", json!({"key_chunk_size": u32::MAX}))),
        ("an open", open),
        ("a refusal", json!({"type": "refuse", "reason": "go away"})),
        ("a refusal without end", json!({"type": "refuse", "reason": "x".repeat(3_000)})),
    ]
}
