//! An HTTP client that sends octets as they are given, right or wrong.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for anything in these tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const OPEN: &str = "/api/v1/kms/etsi004/open-connect";
pub(crate) const GET_KEY: &str = "/api/v1/kms/etsi004/get-key";
pub(crate) const CLOSE: &str = "/api/v1/kms/etsi004/close";

pub(crate) struct Client {
    stream: TcpStream,
    /// What has been read and belongs to answers that were not asked for yet.
    read: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) http: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} stands twice in {self:?}");
        value
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }

    /// `status` of the body.
    pub(crate) fn status(&self) -> u64 {
        self.json()["status"].as_u64().unwrap_or_else(|| panic!("no status in {self:?}"))
    }

    pub(crate) fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap_or_else(|| panic!("no detail in {self:?}")).to_owned()
    }
}

/// A request with a JSON body.
pub(crate) fn request(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: module\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect_timeout(&address, DEADLINE).unwrap())
    }

    /// Connects from another address of this machine.
    pub(crate) fn connect_from(from: &str, to: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
            socket.connect(to).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        Self::over(stream)
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.stream.write_all(octets.as_ref()).unwrap();
    }

    /// Sends as much as the other side takes before it closes.
    pub(crate) fn send_what_is_taken(&mut self, octets: impl AsRef<[u8]>) {
        if let Err(why) = self.stream.write_all(octets.as_ref()) {
            assert!(matches!(why.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{why}");
        }
    }

    pub(crate) fn end_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Sends a request with a JSON body and reads its answer.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &str) -> Answer {
        self.send(request(method, path, body));
        self.answer()
    }

    /// Reads the answer to a request that was not HEAD.
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_with_body(true)
    }

    /// Reads one answer. One to HEAD has no body, whatever its headers say.
    pub(crate) fn answer_with_body(&mut self, has_body: bool) -> Answer {
        let (head, mut answer) = loop {
            if let Some(found) = parse_head(&self.read) {
                break found;
            }
            assert!(self.read_more(), "closed after {:?}", String::from_utf8_lossy(&self.read));
        };
        self.read.drain(..head);
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        assert_eq!(answer.header("transfer-encoding"), None, "{answer:?}");
        if has_body && answer.http >= 200 && answer.http != 204 {
            while self.read.len() < length {
                assert!(self.read_more(), "body cut short after {answer:?}");
            }
            answer.body = self.read.drain(..length).collect();
        }
        answer
    }

    /// Whether the other side closes, with or without an answer before it, within the deadline.
    pub(crate) fn is_closed(&mut self) -> bool {
        while self.read_more() {}
        true
    }

    /// Everything that was read and not yet taken as an answer.
    pub(crate) fn left_over(&self) -> &[u8] {
        &self.read
    }

    fn read_more(&mut self) -> bool {
        let mut part = [0; 4096];
        match self.stream.read(&mut part) {
            Ok(0) => false,
            Ok(n) => {
                self.read.extend_from_slice(&part[..n]);
                true
            }
            Err(why) if why.kind() == ErrorKind::ConnectionReset => false,
            Err(why) => panic!("no answer and no end within {DEADLINE:?}: {why}"),
        }
    }
}

fn parse_head(octets: &[u8]) -> Option<(usize, Answer)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(octets).unwrap_or_else(|e| panic!("{e} in {:?}", String::from_utf8_lossy(octets))) {
        httparse::Status::Partial => None,
        httparse::Status::Complete(length) => {
            let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
            let headers =
                response.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect::<Vec<_>>();
            Some((length, Answer { http: response.code.unwrap(), headers, body: Vec::new() }))
        }
    }
}
