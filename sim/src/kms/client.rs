//! A small HTTP/1.1 client: one call, one connection, one deadline. It can send a body with GET.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::secure::{Tls, Wire};

/// Most octets of an answer, head and body.
const LARGEST_ANSWER: usize = 256 << 10;
/// Most header fields of an answer.
const MOST_FIELDS: usize = 64;

/// A call to an HTTP server failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The base URL cannot be used.
    #[error(
        "`{0}` cannot be used as the QKD module's base URL: write http://HOST:PORT, or https://HOST:PORT with --certificate"
    )]
    Url(String),
    /// No connection, or it broke.
    #[error("the connection to {authority} failed: {source}")]
    Io {
        /// Host and port.
        authority: String,
        /// Why.
        source: std::io::Error,
    },
    /// The answer is no HTTP, or too large.
    #[error("{authority} gave an answer that is not HTTP/1.1 as expected: {why}")]
    Answer {
        /// Host and port.
        authority: String,
        /// What is wrong.
        why: &'static str,
    },
    /// No whole answer in time.
    #[error("{authority} gave no whole answer within {} ms", .after.as_millis())]
    Late {
        /// Host and port.
        authority: String,
        /// The deadline.
        after: Duration,
    },
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// HTTP status.
    pub(crate) status: u16,
    /// Body; empty if there is none.
    pub(crate) body: Vec<u8>,
}

/// An HTTP server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    authority: String,
    address: String,
    prefix: String,
    tls: Option<Tls>,
}

impl Server {
    /// Takes a URL such as `http://127.0.0.1:8001`, with or without a path before the interface's own. One of https needs
    /// `tls`.
    ///
    /// # Errors
    /// [`CallError::Url`].
    pub(crate) fn new(url: &str, tls: Option<Tls>) -> Result<Self, CallError> {
        let wrong = || CallError::Url(url.to_owned());
        let (rest, tls, port) = match (url.strip_prefix("https://"), url.strip_prefix("http://"), tls) {
            (Some(rest), _, Some(tls)) => (rest, Some(tls), 443),
            (_, Some(rest), _) => (rest, None, 80),
            _ => return Err(wrong()),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty()
            || url.contains(|c: char| c.is_whitespace() || c.is_control() || "@?#".contains(c))
        {
            return Err(wrong());
        }
        // A bracketed IPv6 address has colons of its own.
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
        let prefix = path.trim_end_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        Ok(Self { authority: authority.to_owned(), address, prefix, tls })
    }

    /// Sends `body` as JSON and waits for the whole answer, at most `deadline` long.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        deadline: Duration,
    ) -> Result<Reply, CallError> {
        let mut request = String::new();
        // Writing to a String does not fail.
        let _ = write!(
            request,
            "{method} {}{path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Accept: application/json\r\nConnection: close\r\n\r\n",
            self.prefix,
            self.authority,
            body.len()
        );
        let mut request = request.into_bytes();
        request.extend_from_slice(body);
        tokio::time::timeout(deadline, self.exchange(&request))
            .await
            .unwrap_or_else(|_| Err(CallError::Late { authority: self.authority.clone(), after: deadline }))
    }

    async fn exchange(&self, request: &[u8]) -> Result<Reply, CallError> {
        let io = |source| CallError::Io { authority: self.authority.clone(), source };
        let stream = TcpStream::connect(&self.address).await.map_err(io)?;
        let mut connection = match &self.tls {
            None => Wire::Plain(stream),
            Some(tls) => {
                let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
                tls.connect(stream, host).await.map_err(io)?
            }
        };
        connection.write_all(request).await.map_err(io)?;
        connection.flush().await.map_err(io)?;
        let mut read = Vec::with_capacity(1024);
        let mut ended = false;
        loop {
            let whole = reply(&read, ended)
                .map_err(|why| CallError::Answer { authority: self.authority.clone(), why })?;
            if let Some(reply) = whole {
                return Ok(reply);
            }
            if read.len() >= LARGEST_ANSWER {
                return Err(CallError::Answer { authority: self.authority.clone(), why: "it is too large" });
            }
            ended = connection.read_buf(&mut read).await.map_err(io)? == 0;
        }
    }
}

/// The answer in `read`, if it is there in full. `ended`: nothing more will come.
fn reply(read: &[u8], ended: bool) -> Result<Option<Reply>, &'static str> {
    let mut rest = read;
    loop {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let Ok(parsed) = head.parse(rest) else { return Err("its head cannot be read") };
        let (httparse::Status::Complete(length), Some(status)) = (parsed, head.code) else {
            return if ended { Err("it ended within the head") } else { Ok(None) };
        };
        let body = rest.get(length..).unwrap_or_default();
        if (100..200).contains(&status) {
            rest = body;
            continue;
        }
        let field = |name: &str| {
            let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(field.value).ok().map(str::trim)
        };
        let body = if status == 204 || status == 304 {
            Some(Vec::new())
        } else if field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            unchunk(body)?
        } else if let Some(length) = field("content-length") {
            let length: usize = length.parse().map_err(|_| "its Content-Length is no number")?;
            body.get(..length).map(<[u8]>::to_vec)
        } else {
            ended.then(|| body.to_vec())
        };
        return match body {
            Some(body) => Ok(Some(Reply { status, body })),
            None if ended => Err("it ended within the body"),
            None => Ok(None),
        };
    }
}

/// The body behind the chunked transfer coding, if it is there in full.
fn unchunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let mut body = Vec::new();
    loop {
        let Ok(parsed) = httparse::parse_chunk_size(rest) else {
            return Err("its chunked body cannot be read");
        };
        let httparse::Status::Complete((line, length)) = parsed else { return Ok(None) };
        if length == 0 {
            return Ok(Some(body));
        }
        let length = usize::try_from(length).map_err(|_| "a chunk of its body is too large")?;
        let Some(end) = line.checked_add(length).filter(|end| *end < LARGEST_ANSWER) else {
            return Err("a chunk of its body is too large");
        };
        let Some(data) = rest.get(line..end) else { return Ok(None) };
        body.extend_from_slice(data);
        let Some(after) = rest.get(end + 2..) else { return Ok(None) };
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, ended: bool) -> Result<Option<(u16, String)>, &'static str> {
        Ok(reply(text.as_bytes(), ended)?.map(|r| (r.status, String::from_utf8(r.body).expect("text"))))
    }

    #[test]
    fn answers_cut_anywhere_are_never_taken_for_whole() {
        let answers = [
            "HTTP/1.1 205 Reset Content\r\ncontent-length: 12\r\n\r\n{\"status\":0}",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"s\r\n1\r\n}\r\n0\r\n\r\n",
        ];
        let bodies = [(205, "{\"status\":0}".to_owned()), (201, "{\"s}".to_owned())];
        for (answer, body) in answers.into_iter().zip(bodies) {
            assert_eq!(whole(answer, false), Ok(Some(body)));
            // The chunked one is whole once the size 0 is there.
            for cut in 0..answer.len() - 4 {
                assert_eq!(whole(&answer[..cut], false), Ok(None), "{cut}");
                assert!(whole(&answer[..cut], true).is_err(), "{cut}");
            }
        }
    }

    #[test]
    fn answers_without_length_or_body_are_read() {
        assert_eq!(whole("HTTP/1.1 204 No Content\r\n\r\n", false), Ok(Some((204, String::new()))));
        assert_eq!(whole("HTTP/1.1 500 x\r\n\r\nabc", false), Ok(None));
        assert_eq!(whole("HTTP/1.1 500 x\r\n\r\nabc", true), Ok(Some((500, "abc".into()))));
    }

    #[test]
    fn foreign_answers_are_errors() {
        for wrong in [
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 x\r\ncontent-length: many\r\n\r\n",
            "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nabc",
        ] {
            assert!(whole(wrong, false).is_err(), "{wrong}");
        }
    }

    #[test]
    fn urls_that_lead_elsewhere_are_refused() {
        for wrong in [
            "",
            "127.0.0.1:1",
            "https://a",
            "http://",
            "http:///x",
            "http://u@a",
            "http://a b",
            "http://a\r\nX:",
        ] {
            assert!(Server::new(wrong, None).is_err(), "{wrong}");
        }
        let server = Server::new("http://a/base/", None).expect("good");
        assert_eq!((server.address.as_str(), server.prefix.as_str()), ("a:80", "/base"));
        assert_eq!(Server::new("http://[::1]", None).expect("good").address, "[::1]:80");
        assert_eq!(Server::new("http://[::1]:99", None).expect("good").address, "[::1]:99");
    }
}
