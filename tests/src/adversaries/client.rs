//! A client of the API that does everything wrong: slow, endless, cut short, contradictory, hidden, deep, absurd, aborted.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::DEADLINE;

const OPEN: &str = "/api/v1/kms/etsi004/open-connect";
const GET_KEY: &str = "/api/v1/kms/etsi004/get-key";
/// A request that nothing is wrong with, but that it stands where it must not be read.
const HIDDEN: &str = "POST /api/v1/kms/etsi004/hidden HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n";

/// What a client does after it has said what it had to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Reads what comes until the module closes.
    Read,
    /// Says no more, and keeps the connection for as long as the module does.
    Hold,
    /// Closes its half, and reads.
    Close,
    /// Tears the connection down.
    Abort,
}

/// Something that a client does.
#[derive(Clone, Debug)]
pub struct Deed {
    /// What it is, in words.
    pub name: &'static str,
    /// What is said, with pauses between the parts.
    pub parts: Vec<Vec<u8>>,
    /// And then.
    pub then: Then,
}

impl Deed {
    fn new(name: &'static str, octets: impl Into<Vec<u8>>, then: Then) -> Self {
        Self { name, parts: vec![octets.into()], then }
    }

    /// Does it; gives the HTTP status of each answer that came before the module closed.
    ///
    /// # Panics
    /// When the module neither answers nor closes for longer than a test waits.
    #[must_use]
    pub fn act(&self, api: SocketAddr) -> Vec<u16> {
        let mut stream = TcpStream::connect_timeout(&api, DEADLINE).expect("the API takes connections");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        stream.set_write_timeout(Some(DEADLINE)).expect("a socket");
        for (number, part) in self.parts.iter().enumerate() {
            if number > 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
            if stream.write_all(part).is_err() {
                break;
            }
        }
        match self.then {
            Then::Read | Then::Hold => {}
            Then::Close => drop(stream.shutdown(Shutdown::Write)),
            Then::Abort => {
                // Nothing is lost by a pause of a client; the module reads a part and then a reset.
                let socket = nix::sys::socket::sockopt::Linger;
                let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                let _ = nix::sys::socket::setsockopt(&stream, socket, &at_once);
                return Vec::new();
            }
        }
        let mut said = Vec::new();
        let mut part = [0; 4096];
        loop {
            match stream.read(&mut part) {
                Ok(0) => break,
                Ok(count) => said.extend_from_slice(&part[..count]),
                Err(why) if why.kind() == ErrorKind::ConnectionReset => break,
                Err(why) => panic!("{}: neither an answer nor an end: {why}", self.name),
            }
        }
        let text = String::from_utf8_lossy(&said);
        text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok()).collect()
    }
}

fn post(headers: &str, body: &str) -> String {
    format!("POST {OPEN} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n{headers}\r\n{body}")
}

fn with_length(body: &str) -> String {
    post(&format!("Content-Length: {}\r\n", body.len()), body)
}

/// Everything that can be said at once, and its end.
#[must_use]
pub fn deeds() -> Vec<Deed> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let mut deeds = Vec::new();
    let mut say = |name, octets: String, then| deeds.push(Deed::new(name, octets.into_bytes(), then));
    say("nothing at all", String::new(), Then::Close);
    say(
        "a TLS greeting on a plain port",
        "\u{16}\u{3}\u{1}\0\u{5}\u{1}\0\0\u{1}\u{3}\u{3}".to_owned(),
        Then::Close,
    );
    say("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), Then::Close);
    say("HTTP/0.9", "GET /\r\n".to_owned(), Then::Close);
    say("HTTP/9.9", format!("POST {OPEN} HTTP/9.9\r\nHost: m\r\n\r\n"), Then::Read);
    say("half a head", format!("POST {OPEN} HTTP/1.1\r\nHost: m\r\nX-"), Then::Close);
    say("half a head and an abort", format!("POST {OPEN} HTTP/1.1\r\nHo"), Then::Abort);
    say("a head without end", format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(50_000)), Then::Read);
    say("a value without end", format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(400_000)), Then::Read);
    say("a name without end", format!("GET / HTTP/1.1\r\n{}", "X".repeat(400_000)), Then::Read);
    say("a path without end", format!("GET /{}", "a".repeat(400_000)), Then::Read);
    say("a folded header", format!("POST {OPEN} HTTP/1.1\r\nHost: m\r\nX: a\r\n b\r\n\r\n"), Then::Close);
    say(
        "a zero octet in a header",
        format!("POST {OPEN} HTTP/1.1\r\nHost: m\r\nX: a\0b\r\n\r\n"),
        Then::Close,
    );
    say("a space before the colon", post("Content-Length : 2\r\n", "{}"), Then::Close);
    for method in ["TRACE", "CONNECT", "OPTIONS", "DELETE", "PATCH", "GET", "post", "X-\u{7f}"] {
        say(
            "a method that is not taken",
            format!("{method} {OPEN} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n"),
            Then::Close,
        );
    }
    say(
        "a proxy's request",
        "GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".to_owned(),
        Then::Close,
    );
    say(
        "a length beyond all numbers",
        post("Content-Length: 99999999999999999999999\r\n", "{}"),
        Then::Close,
    );
    say("the largest length", post("Content-Length: 18446744073709551615\r\n", "{}"), Then::Close);
    say("a negative length", post("Content-Length: -1\r\n", "{}"), Then::Close);
    say("a signed length", post("Content-Length: +2\r\n", "{}"), Then::Close);
    say("two lengths", post("Content-Length: 2\r\nContent-Length: 3\r\n", "{}x"), Then::Close);
    say("two lengths in one", post("Content-Length: 2, 3\r\n", "{}x"), Then::Close);
    say("a body cut short", post("Content-Length: 100\r\n", "{"), Then::Close);
    say("a body cut short and an abort", post("Content-Length: 100\r\n", "{"), Then::Abort);
    say(
        "a body that is announced and never sent",
        post("Content-Length: 65536\r\nExpect: 100-continue\r\n", ""),
        Then::Close,
    );
    say(
        "length and chunks",
        post(&format!("Content-Length: 4\r\n{chunked}"), &format!("0\r\n\r\n{HIDDEN}")),
        Then::Close,
    );
    say(
        "chunks and length",
        post(&format!("{chunked}Content-Length: 4\r\n"), &format!("0\r\n\r\n{HIDDEN}")),
        Then::Close,
    );
    for coding in [
        "xchunked",
        "identity, chunked, identity",
        "chunked\r\nTransfer-Encoding: identity",
        "\u{b}chunked",
        "gzip",
    ] {
        say(
            "another coding that hides a request",
            post(
                &format!("Transfer-Encoding: {coding}\r\nContent-Length: 0\r\n"),
                &format!("0\r\n\r\n{HIDDEN}"),
            ),
            Then::Close,
        );
    }
    for chunk in [
        "x\r\n",
        "-1\r\n",
        "ffffffffffffffffffff\r\n",
        "5\r\n{\r\n0\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "\r\n",
    ] {
        say("a chunk that is none", post(chunked, chunk), Then::Close);
    }
    say("a chunk's extension without end", post(chunked, &format!("5;{}", "x".repeat(400_000))), Then::Close);
    say(
        "a trailer without end",
        post(chunked, &format!("2\r\n{{}}\r\n0\r\n{}", "X: y\r\n".repeat(50_000))),
        Then::Close,
    );
    say(
        "a chunked body beyond the limit",
        post(
            chunked,
            &"fff\r\n"
                .to_owned()
                .chars()
                .chain(" ".repeat(0xfff).chars())
                .chain("\r\n".chars())
                .collect::<String>()
                .repeat(64),
        ),
        Then::Close,
    );
    say("JSON without a bottom", with_length(&"[".repeat(60_000)), Then::Close);
    say("objects without a bottom", with_length(&"{\"a\":".repeat(12_000)), Then::Close);
    say(
        "a member a thousand times",
        with_length(&format!("{{{}\"a\":1}}", "\"a\":1,".repeat(1_000))),
        Then::Close,
    );
    say("numbers without end", with_length(&format!("{{\"qos\":{}}}", "9".repeat(60_000))), Then::Close);
    say("half a surrogate", with_length("{\"source\":\"\\ud800\"}"), Then::Close);
    say(
        "another machine",
        with_length(
            r#"{"source":"kms://a","destination":"http://evil.example/","key_stream_id":null,"qos":{}}"#,
        ),
        Then::Close,
    );
    let read_nothing = format!("GET {GET_KEY} HTTP/1.1\r\nHost: m\r\n\r\n").repeat(2_000);
    say("thousands of requests and no look at an answer", read_nothing, Then::Abort);
    deeds.push(Deed::new(
        "octets that are no text",
        [&with_length("xxxxxxxx").into_bytes()[..200.min(with_length("xxxxxxxx").len() - 8)], &[0xFF; 8]]
            .concat(),
        Then::Close,
    ));
    deeds.push(Deed::new(
        "noise",
        (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>(),
        Then::Close,
    ));
    deeds
}

/// What holds a connection for as long as the module lets it.
#[must_use]
pub fn slow_deeds() -> Vec<Deed> {
    let drip = |name, text: &str| Deed {
        name,
        parts: text.bytes().map(|octet| vec![octet]).collect(),
        then: Then::Hold,
    };
    vec![
        Deed::new("silence", "", Then::Hold),
        Deed::new("silence within a head", format!("POST {OPEN} HTTP/1.1\r\nHost: m\r\nX: "), Then::Hold),
        Deed::new("silence before a body", post("Content-Length: 100\r\n", ""), Then::Hold),
        Deed::new("silence within a body", post("Content-Length: 100\r\n", "{"), Then::Hold),
        Deed::new("silence within a chunk", post("Transfer-Encoding: chunked\r\n", "64\r\n{"), Then::Hold),
        Deed::new("silence within a trailer", post("Transfer-Encoding: chunked\r\n", "0\r\nX: "), Then::Hold),
        Deed::new(
            "silence after an answer",
            format!("GET {GET_KEY} HTTP/1.1\r\nHost: m\r\n\r\n"),
            Then::Hold,
        ),
        drip("a head drop by drop", &format!("POST {OPEN} HTTP/1.1\r\nHost: m\r\nX: {}", "y".repeat(200))),
        drip("a body drop by drop", &post("Content-Length: 300\r\n", &" ".repeat(200))),
    ]
}
