//! A small HTTP/1.1 server on which the other side's requests can be looked at, and answered in any way.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::ServerConfig;
use zeroize::Zeroizing;

use super::wire::Wire;

/// Connections at once; more are turned away.
const MOST_CONNECTIONS: usize = 64;
/// Longest head of a request, in octets.
const LONGEST_HEAD: usize = 32 << 10;
/// Longest body of a request: base64 of the largest chunk, and some.
const LONGEST_BODY: usize = 2 << 20;
const MOST_FIELDS: usize = 64;
/// How often it is looked whether the server is to end.
const LOOK: Duration = Duration::from_millis(100);
/// Longest time for sending an answer.
const SEND: Duration = Duration::from_secs(10);

/// A request as it came.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// Content-Type; empty where there is none.
    pub(super) media: &'a str,
    /// Whether its length was told by Content-Length.
    pub(super) has_length: bool,
    pub(super) body: &'a [u8],
}

/// How a request is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Respond {
    /// With this status, these further header lines (each with its end) and this body.
    With { status: u16, fields: String, body: String },
    /// Not at all; the connection stays until the other side ends it.
    Never,
    /// By the end of the connection.
    Break,
}

impl Respond {
    /// With a body of JSON.
    pub(super) fn json(status: u16, body: impl ToString) -> Self {
        Self::With { status, fields: "Content-Type: application/json\r\n".into(), body: body.to_string() }
    }
}

/// Answers requests; called from many threads.
pub(super) trait Serve: Send + Sync + 'static {
    /// The answer to a request.
    fn answer(&self, request: &Request<'_>) -> Respond;
    /// A connection came.
    fn connected(&self) {}
}

/// A running server, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Listens on `address`. Connections that begin with TLS are served so where there are certificates.
    pub(super) fn start(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        serve: Arc<dyn Serve>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::Builder::new()
            .name("conform listener".into())
            .spawn(move || accept(&listener, tls.as_ref(), &serve, &stopped))?;
        Ok(Self { address, stop })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn accept(
    listener: &TcpListener,
    tls: Option<&Arc<ServerConfig>>,
    serve: &Arc<dyn Serve>,
    stop: &Arc<AtomicBool>,
) {
    let open = Arc::new(AtomicUsize::new(0));
    while !stop.load(Ordering::Acquire) {
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::NONE);
        let _ = poll(&mut ready, wait);
        let Ok((socket, _)) = listener.accept() else { continue };
        if open.fetch_add(1, Ordering::AcqRel) >= MOST_CONNECTIONS {
            open.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        serve.connected();
        let (tls, serve, stop, open) = (tls.cloned(), Arc::clone(serve), Arc::clone(stop), Arc::clone(&open));
        let started = thread::Builder::new().name("conform connection".into()).spawn({
            let open = Arc::clone(&open);
            move || {
                // What goes wrong with a connection is the other side's to see.
                let _ = converse(socket, tls, serve.as_ref(), &stop);
                open.fetch_sub(1, Ordering::AcqRel);
            }
        });
        if started.is_err() {
            open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn converse(
    socket: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    serve: &dyn Serve,
    stop: &AtomicBool,
) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(LOOK))?;
    let mut first = [0];
    while !stop.load(Ordering::Acquire) {
        match socket.peek(&mut first) {
            Ok(_) => break,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    // A TLS record of a handshake; no method begins with it.
    let secure = first == [22];
    let mut wire = Wire::accepted(socket, tls.as_ref().filter(|_| secure))?;
    // It may hold key.
    let mut read = Zeroizing::new(Vec::with_capacity(64 << 10));
    while !stop.load(Ordering::Acquire) {
        let done = match take(&read) {
            Err(why) => {
                let answer = Respond::json(400, serde_json::json!({"status": 3, "detail": why}));
                send(&mut wire, answer)?;
                return Ok(());
            }
            Ok(Some((request, done))) => {
                match serve.answer(&request) {
                    Respond::Break => {
                        wire.cut();
                        return Ok(());
                    }
                    Respond::Never => return wait_for_end(&mut wire, stop),
                    answer => send(&mut wire, answer)?,
                }
                done
            }
            Ok(None) => {
                wire.patience(LOOK)?;
                let mut piece = Zeroizing::new([0; 16 << 10]);
                match wire.read(piece.as_mut_slice()) {
                    Ok(0) => return Ok(()),
                    Ok(got) => read.extend_from_slice(piece.get(..got).unwrap_or_default()),
                    Err(error) if error.kind() == ErrorKind::TimedOut => {}
                    Err(error) => return Err(error),
                }
                continue;
            }
        };
        let rest = read.len() - done;
        read.copy_within(done.., 0);
        read.truncate(rest);
    }
    Ok(())
}

fn wait_for_end(wire: &mut Wire, stop: &AtomicBool) -> io::Result<()> {
    let mut piece = Zeroizing::new([0; 4 << 10]);
    while !stop.load(Ordering::Acquire) {
        wire.patience(LOOK)?;
        match wire.read(piece.as_mut_slice()) {
            Ok(0) => break,
            Err(error) if error.kind() != ErrorKind::TimedOut => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn send(wire: &mut Wire, answer: Respond) -> io::Result<()> {
    let Respond::With { status, fields, body } = answer else { return Ok(()) };
    let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let text = format!("HTTP/1.1 {status} x\r\n{fields}{length}\r\n{body}");
    wire.send(text.as_bytes(), Instant::now() + SEND)
}

/// The request at the beginning of `octets`, and its length.
fn take(octets: &[u8]) -> Result<Option<(Request<'_>, usize)>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let parsed = head.parse(octets).map_err(|_| "the head is no HTTP/1.1")?;
    let (httparse::Status::Complete(length), Some(method), Some(path)) = (parsed, head.method, head.path)
    else {
        return if octets.len() > LONGEST_HEAD { Err("the head is too long") } else { Ok(None) };
    };
    let field = |name: &str| {
        let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(field.value).ok().map(str::trim)
    };
    if field("transfer-encoding").is_some() {
        return Err("this probe takes bodies with Content-Length only");
    }
    let told = field("content-length");
    let body = match told {
        None => 0,
        Some(told) => told.parse::<usize>().map_err(|_| "Content-Length is no number")?,
    };
    if body > LONGEST_BODY {
        return Err("the body is too long");
    }
    let Some(whole) = octets.get(length..length + body) else { return Ok(None) };
    let media = field("content-type").unwrap_or_default();
    let request = Request { method, path, media, has_length: told.is_some(), body: whole };
    Ok(Some((request, length + body)))
}

#[cfg(test)]
mod tests {
    use super::take;

    #[test]
    fn requests_are_taken_whole_and_lengths_that_no_memory_has_are_refused() {
        let text = b"POST /k HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}GET ";
        for cut in 0..text.len() - 4 {
            assert!(matches!(take(&text[..cut]), Ok(None)), "{cut}");
        }
        let (request, done) = take(text).unwrap().unwrap();
        assert_eq!(
            (request.method, request.path, request.body, done),
            ("POST", "/k", &b"{}"[..], text.len() - 4)
        );
        for wrong in ["Content-Length: 99999999999", "Content-Length: -1", "Transfer-Encoding: chunked"] {
            assert!(take(format!("POST /k HTTP/1.1\r\n{wrong}\r\n\r\n").as_bytes()).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_requests_that_panic_are_caught(octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = take(&octets);
        }
    }
}
