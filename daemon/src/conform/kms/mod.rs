//! Probes the key-material endpoint of a KMS: the probe is a QKD module.
//!
//! What it sends as key is test data that anybody can compute.

mod clauses;
mod played;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use self::played::{Opened, Played};
use super::book::Book;
use super::http::{Client, Reply};
use super::server::Server;
use super::tell;
use super::wire::Secure;
use crate::config::KEY_MATERIAL_PATH;

pub(crate) use self::clauses::CLAUSES;

/// Octets that no body of this interface has.
const TOO_LARGE: usize = 64 << 20;
/// Octets of them that are sent before the answer is read.
const BEGUN: usize = 16 << 10;

/// What is probed, and how.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) client: Client,
    /// Path of key-material behind the client's prefix.
    pub(super) path: String,
    pub(super) secure: Option<Secure>,
    /// Where the probe plays the module that the KMS calls.
    pub(super) listen: Option<SocketAddr>,
    /// A stream that the KMS knows already, and the octets of its chunks.
    pub(super) stream: Option<(Uuid, u32)>,
    /// Longest wait for the KMS to open a stream.
    pub(super) patience: Duration,
}

impl Subject {
    /// For a URL with or without the path of key-material.
    pub(super) fn new(client: Client) -> Self {
        let (client, path) = if client.prefix.is_empty() {
            (client, KEY_MATERIAL_PATH.to_owned())
        } else {
            let path = client.prefix.clone();
            (Client { prefix: String::new(), ..client }, path)
        };
        Self { client, path, secure: None, listen: None, stream: None, patience: Duration::from_secs(60) }
    }
}

/// The probe at work.
#[derive(Debug)]
pub(super) struct Probe<'a> {
    subject: &'a Subject,
    book: &'a mut Book,
}

/// Probes everything that can be. `say` tells where the probe listens.
pub(super) fn probe(subject: &Subject, book: &mut Book, say: impl FnOnce(SocketAddr)) {
    let mut probe = Probe { subject, book };
    // The KMS may not listen before it has opened.
    let server = probe.play(say);
    let opened = probe.opened(server.as_ref().map(|(_, played)| played.as_ref()));
    if probe.reach() {
        probe.client_certificate();
        probe.refusals();
        match opened {
            Ok(opened) => probe.stream(opened),
            Err(why) => probe.book.skip(clauses::STREAM, &why),
        }
    }
    if let Some((_, played)) = &server {
        for (clause, kept) in played.found() {
            probe.book.judge(clause, kept);
        }
    }
}

impl Probe<'_> {
    /// Plays the module, where there is an address for it.
    fn play(&mut self, say: impl FnOnce(SocketAddr)) -> Option<(Server, Arc<Played>)> {
        const CALLS: &[&str] = &["open.request", "get-key.request"];
        let Some(listen) = self.subject.listen else {
            self.book.skip(
                CALLS,
                "needs --listen ADDRESS, where the KMS under test finds the module that the probe plays",
            );
            return None;
        };
        let played = Arc::new(Played::default());
        let tls = self.subject.secure.as_ref().map(|secure| Arc::clone(&secure.server));
        match Server::start(listen, tls, Arc::clone(&played) as _) {
            Ok(server) => {
                say(server.address);
                Some((server, played))
            }
            Err(why) => {
                self.book.skip(CALLS, &format!("the probe cannot listen on {listen}: {why}"));
                None
            }
        }
    }

    /// The stream to send key on.
    fn opened(&self, played: Option<&Played>) -> Result<Opened, String> {
        if let Some((id, chunk_size)) = self.subject.stream {
            return Ok(Opened { id, chunk_size, index: 0 });
        }
        let Some(played) = played else {
            return Err(
                "needs a key stream that the KMS knows: --listen ADDRESS, where it opens one, or --stream ID"
                    .into(),
            );
        };
        played.wait(Instant::now() + self.subject.patience).ok_or_else(|| {
            format!(
                "the KMS has not opened a key stream and sent get-key within {} s",
                self.subject.patience.as_secs()
            )
        })
    }

    fn reach(&mut self) -> bool {
        self.subject.client.come_up(tell);
        let reply = self.send("{}");
        let reached = reply.is_ok();
        self.book.judge("reach", reply.map(drop));
        reached
    }

    fn client_certificate(&mut self) {
        let client = &self.subject.client;
        let Some(secure) = self.subject.secure.as_ref().filter(|_| client.tls.is_some()) else {
            return self.book.skip(&["tls.client"], "the URL is not https");
        };
        let nameless = Client { tls: Some(secure.nameless.clone()), ..client.clone() };
        let kept = match nameless.exchange(&nameless.request("POST", &self.subject.path, b"{}")) {
            Err(_) => Ok(()),
            Ok(reply) => Err(format!("it was answered with {}", reply.shown())),
        };
        self.book.judge("tls.client", kept);
    }

    fn request(&self, body: &str) -> Vec<u8> {
        self.subject.client.request("POST", &self.subject.path, body.as_bytes())
    }

    /// Sends key-material over a connection of its own.
    fn send(&mut self, body: &str) -> Result<Reply, String> {
        let reply = self.subject.client.exchange(&self.request(body)).map_err(|why| why.to_string())?;
        self.inspect(&reply);
        Ok(reply)
    }

    fn inspect(&mut self, reply: &Reply) {
        if reply.body.is_empty() {
            return;
        }
        let kept = match reply.status() {
            Some(0..=8) => Ok(()),
            _ => Err(reply.shown()),
        };
        self.book.judge("answer.status", kept);
    }

    /// Sends what must be refused with a 4xx.
    fn refused(&mut self, clause: &str, what: &str, body: &str) {
        let kept = self.send(body).and_then(|reply| refused(&reply));
        self.book.judge(clause, kept.map_err(|why| format!("{what}: {why}")));
    }

    fn refusals(&mut self) {
        for text in ["", "{", "[]", "\"x\"", "\u{0}"] {
            self.refused("material.json", &format!("{text:?}"), text);
        }
        let good = material(Uuid::new_v4(), 0, 0, &[0; 32]);
        for (clause, member, wrong) in [
            ("material.status", "status", vec![json!(-1), json!("0"), json!(4_294_967_296_u64)]),
            ("material.index", "index", vec![json!(-1), json!("0"), json!(1.5), json!(4_294_967_296_u64)]),
            ("material.key-buffer", "key_buffer", vec![json!(7), json!(null), json!([])]),
            ("material.metadata", "metadata", vec![json!({}), json!({"size": 57, "buffer": {}})]),
        ] {
            let wrong = wrong.into_iter().map(Some).chain([None]);
            for value in wrong {
                let mut body: Value = serde_json::from_str(&good).unwrap_or_default();
                let what = match (value, body.as_object_mut()) {
                    (Some(value), Some(members)) => {
                        let what = format!("{member} {value}");
                        members.insert(member.to_owned(), value);
                        what
                    }
                    (None, Some(members)) => {
                        members.remove(member);
                        format!("no {member}")
                    }
                    _ => continue,
                };
                self.refused(clause, &what, &body.to_string());
            }
        }
        self.refused("material.unknown", "a stream that nobody has opened", &good);
        self.http();
    }

    fn http(&mut self) {
        let client = self.subject.client.clone();
        let said = |why: std::io::Error| why.to_string();
        let get = client.exchange(&client.request("GET", &self.subject.path, b"")).map_err(said);
        let kept = get.and_then(|reply| {
            self.inspect(&reply);
            if reply.status == 405 { Ok(()) } else { Err(reply.shown()) }
        });
        self.book.judge("http.method", kept);
        let elsewhere = client.request("POST", "/api/v1/qkd/etsi004/conform", b"{}");
        let kept = client.exchange(&elsewhere).map_err(said).and_then(|reply| {
            self.inspect(&reply);
            if reply.status == 404 { Ok(()) } else { Err(reply.shown()) }
        });
        self.book.judge("http.unknown-path", kept);
        let mut request = client.request("POST", &self.subject.path, b"");
        request.truncate(request.len() - b"Content-Length: 0\r\n\r\n".len());
        request.extend_from_slice(format!("Content-Length: {TOO_LARGE}\r\n\r\n").as_bytes());
        request.extend(std::iter::repeat_n(b' ', BEGUN));
        let kept = client.exchange(&request).map_err(said).and_then(|reply| {
            self.inspect(&reply);
            refused(&reply)
        });
        self.book.judge("http.too-large", kept);
    }
}

/// That a reply is a 4xx.
fn refused(reply: &Reply) -> Result<(), String> {
    if (400..500).contains(&reply.status) { Ok(()) } else { Err(reply.shown()) }
}

/// key-material as the interface shows it.
fn material(id: Uuid, status: u32, index: u32, key: &[u8]) -> String {
    let key = base64_turbo::STANDARD.encode(key);
    format!(
        "{{\"status\":{status},\"index\":{index},\"key_buffer\":\"{key}\",\"metadata\":{{\"size\":57,\"buffer\":\
         {{\"key_stream_id\": \"{id}\"}}}}}}"
    )
}
