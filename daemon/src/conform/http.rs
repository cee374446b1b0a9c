//! A small HTTP/1.1 client that can also send what no proper client would, and looks closely at what it gets.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use serde_json::Value;

use super::wire::{Wire, left};
use crate::config::{HostPort, KmsEndpoint, excerpt};

/// Longest head, in octets.
const LONGEST_HEAD: usize = 32 << 10;
/// Longest body of an answer, in octets.
const LONGEST_BODY: usize = 1 << 20;
const MOST_FIELDS: usize = 64;
/// Between two looks whether a server has come up.
const AGAIN: Duration = Duration::from_millis(100);

/// Where a server is.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) server: HostPort,
    /// Path of the URL, without a slash at its end.
    pub(super) prefix: String,
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Longest time of an exchange.
    pub(super) deadline: Duration,
    /// How long the server may take until it takes connections at all.
    pub(super) start: Duration,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    wire: Wire,
    read: Vec<u8>,
}

impl Client {
    /// For a URL of http, or of https where there are certificates.
    pub(super) fn new(url: &str, tls: Option<Arc<ClientConfig>>, deadline: Duration) -> Result<Self, String> {
        let at =
            KmsEndpoint::parse(url).map_err(|why| format!("`{}` is no URL to probe: {why}", excerpt(url)))?;
        if at.secure && tls.is_none() {
            return Err(format!("{url} needs --certificate, --certificate-key and --authorities"));
        }
        let has_path = url
            .split_once("://")
            .is_some_and(|(_, rest)| rest.split_once('/').is_some_and(|(_, path)| !path.is_empty()));
        let prefix = if has_path { at.path.trim_end_matches('/').to_owned() } else { String::new() };
        let tls = tls.filter(|_| at.secure);
        Ok(Self { server: at.server, prefix, tls, deadline, start: Duration::ZERO })
    }

    /// Waits until the server takes connections, no longer than [`Client::start`]. What else may be wrong with it, or that it never
    /// came, the next exchange tells. `say` is called once, when there is something to wait for.
    pub(super) fn come_up(&self, say: impl FnOnce(&str)) {
        let until = Instant::now() + self.start;
        let mut say = Some(say);
        while let Ok(rest) = left(until) {
            let Err(why) = Wire::connect(&self.server, None, until) else { return };
            if let Some(say) = say.take() {
                say(&format!("waiting until {} takes connections: {why}", self.server));
            }
            std::thread::sleep(rest.min(AGAIN));
        }
    }

    /// A request with a JSON body, as the interface wants it.
    pub(super) fn request(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        self.request_as(method, path, Some("application/json"), body)
    }

    /// As [`Client::request`], with another media type or none.
    pub(super) fn request_as(&self, method: &str, path: &str, media: Option<&str>, body: &[u8]) -> Vec<u8> {
        let media = media.map(|media| format!("Content-Type: {media}\r\n")).unwrap_or_default();
        let mut request = format!(
            "{method} {}{path} HTTP/1.1\r\nHost: {}\r\n{media}Accept: application/json\r\nContent-Length: {}\r\n\r\n",
            self.prefix,
            self.server,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        request
    }

    /// Opens a connection.
    pub(super) fn connect(&self) -> io::Result<Connection> {
        let wire = Wire::connect(&self.server, self.tls.as_ref(), Instant::now() + self.deadline)?;
        Ok(Connection { wire, read: Vec::new() })
    }

    /// One exchange over a connection of its own.
    pub(super) fn exchange(&self, request: &[u8]) -> io::Result<Reply> {
        self.exchange_on(&mut self.connect()?, request)
    }

    /// One exchange over a connection that stands.
    pub(super) fn exchange_on(&self, connection: &mut Connection, request: &[u8]) -> io::Result<Reply> {
        let until = Instant::now() + self.deadline;
        // A server may answer, and close, before it has read everything.
        let sent = connection.send(request, until);
        connection.reply(until).map_err(|error| sent.err().unwrap_or(error))
    }
}

impl Connection {
    /// Sends octets.
    pub(super) fn send(&mut self, octets: &[u8], until: Instant) -> io::Result<()> {
        self.wire.send(octets, until)
    }

    /// Ends it, whatever is under way.
    pub(super) fn cut(self) {
        self.wire.cut();
    }

    /// Whether the other side keeps it open for so long, and says nothing.
    pub(super) fn stays(&mut self, time: Duration) -> bool {
        let mut octet = [0];
        self.read.is_empty()
            && self.wire.patience(time).is_ok()
            && matches!(self.wire.read(&mut octet), Err(error) if error.kind() == ErrorKind::TimedOut)
    }

    fn fill(&mut self, until: Instant) -> io::Result<bool> {
        let mut piece = [0; 4096];
        self.wire.patience(left(until)?)?;
        let got = self.wire.read(&mut piece)?;
        self.read.extend_from_slice(piece.get(..got).unwrap_or_default());
        Ok(got > 0)
    }

    /// The next answer.
    pub(super) fn reply(&mut self, until: Instant) -> io::Result<Reply> {
        loop {
            if let Some((reply, done)) = parse(&self.read, false).map_err(io::Error::other)? {
                self.read.drain(..done);
                return Ok(reply);
            }
            if !self.fill(until)? {
                let whole = parse(&self.read, true).map_err(io::Error::other)?;
                return whole.map(|(reply, _)| reply).ok_or_else(|| {
                    io::Error::new(ErrorKind::UnexpectedEof, "the connection ended without a whole answer")
                });
            }
        }
    }
}

impl Reply {
    /// A header field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The status of the interface, in the body.
    pub(super) fn status(&self) -> Option<u64> {
        self.json()?.get("status")?.as_u64()
    }

    /// Whether it says that it was done.
    pub(super) fn succeeded(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// In words, for a person.
    pub(super) fn shown(&self) -> String {
        let status = match (self.body.is_empty(), self.status()) {
            (true, _) => "no body".to_owned(),
            (_, Some(status)) => format!("status {status}"),
            (_, None) => format!("body {}", excerpt(&String::from_utf8_lossy(&self.body))),
        };
        format!("HTTP {}, {status}", self.status)
    }
}

/// The answer at the beginning of `octets`, and its length; `None` while it is not there in full. `ended`: no more will come.
fn parse(octets: &[u8], ended: bool) -> Result<Option<(Reply, usize)>, &'static str> {
    let mut skipped = 0;
    loop {
        let rest = octets.get(skipped..).unwrap_or_default();
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let parsed = head.parse(rest).map_err(|_| "what came is no head of an HTTP/1.1 answer")?;
        let (httparse::Status::Complete(length), Some(status)) = (parsed, head.code) else {
            return if rest.len() > LONGEST_HEAD {
                Err("the head of the answer does not end")
            } else {
                Ok(None)
            };
        };
        if (100..200).contains(&status) {
            skipped += length;
            continue;
        }
        let fields: Vec<(String, String)> = head
            .headers
            .iter()
            .map(|field| (field.name.to_owned(), String::from_utf8_lossy(field.value).trim().to_owned()))
            .collect();
        let mut reply = Reply { status, fields, body: Vec::new() };
        let behind = rest.get(length..).unwrap_or_default();
        let Some((body, framed)) = body(&reply, behind, ended)? else { return Ok(None) };
        reply.body = body;
        return Ok(Some((reply, skipped + length + framed)));
    }
}

/// The body behind a head, and the octets that it takes (RFC 9112, 6.3).
fn body(reply: &Reply, octets: &[u8], ended: bool) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    if matches!(reply.status, 204 | 304) {
        return Ok(Some((Vec::new(), 0)));
    }
    if reply.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return unchunk(octets);
    }
    match reply.field("content-length") {
        Some(length) => {
            let length: usize = length.parse().map_err(|_| "Content-Length is no number")?;
            if length > LONGEST_BODY {
                return Err("the body of the answer is too long");
            }
            match octets.get(..length) {
                Some(body) => Ok(Some((body.to_vec(), length))),
                None if ended => Err("the connection ended within the body"),
                None => Ok(None),
            }
        }
        None if octets.len() > LONGEST_BODY => Err("the body of the answer does not end"),
        None => Ok(ended.then(|| (octets.to_vec(), octets.len()))),
    }
}

fn unchunk(octets: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    const BROKEN: &str = "the chunked body of the answer is broken";
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let rest = octets.get(at..).unwrap_or_default();
        let httparse::Status::Complete((line, length)) =
            httparse::parse_chunk_size(rest).map_err(|_| BROKEN)?
        else {
            return Ok(None);
        };
        let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST_BODY).ok_or(BROKEN)?;
        let Some(data) = rest.get(line..line + length + 2) else { return Ok(None) };
        let Some(data) = data.strip_suffix(b"\r\n") else { return Err(BROKEN) };
        at += line + length + 2;
        if length == 0 {
            return Ok(Some((body, at)));
        }
        if body.len() + data.len() > LONGEST_BODY {
            return Err(BROKEN);
        }
        body.extend_from_slice(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Result<Option<(u16, String, usize)>, &'static str> {
        let parsed = parse(text.as_bytes(), false)?;
        Ok(parsed.map(|(r, done)| (r.status, String::from_utf8_lossy(&r.body).into_owned(), done)))
    }

    #[test]
    fn answers_behind_each_other_are_told_apart_and_cut_ones_are_waited_for() {
        let first = "HTTP/1.1 205 Reset Content\r\nContent-Length: 12\r\n\r\n{\"status\":0}";
        let second = "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        let both = format!("{first}{second}");
        assert_eq!(whole(&both), Ok(Some((205, "{\"status\":0}".into(), first.len()))));
        assert_eq!(whole(second), Ok(Some((201, "{}".into(), second.len()))));
        for cut in 0..first.len() {
            assert_eq!(whole(&first[..cut]), Ok(None));
        }
        for cut in 0..second.len() {
            assert_eq!(whole(&second[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn a_length_that_no_memory_has_is_refused_and_not_reserved() {
        for wrong in [
            "HTTP/1.1 200 x\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "SSH-2.0 nobody\r\n\r\n",
        ] {
            assert!(whole(wrong).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_answers_that_panic_are_caught(
            octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), ended in proptest::prelude::any::<bool>(),
        ) {
            let mut text = b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            text.extend_from_slice(&octets);
            let _ = (parse(&octets, ended), parse(&text, ended));
        }
    }
}
