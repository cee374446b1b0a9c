//! The scripted KMS.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// What the KMS does about one request.
#[derive(Clone, Debug)]
pub(crate) enum Reaction {
    /// Answers, together with the answers to all requests that are there already.
    Answer(String),
    /// Answers octet by octet.
    Trickle(String),
    /// Answers and closes, whatever else was asked.
    AnswerAndClose(String),
    /// Closes without an answer.
    Close,
    /// Neither answers nor closes. Reads on.
    Hang,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) index: u32,
    pub(crate) status: u64,
    pub(crate) key: Vec<u8>,
    pub(crate) octets: usize,
    /// Requests on the same connection that had no answer yet, this one included.
    pub(crate) waiting: usize,
    pub(crate) waiting_octets: usize,
    /// What docs/openapi-kms.json does not allow in it.
    wrong: Vec<String>,
}

type Script = dyn Fn(usize, &Seen) -> Reaction + Send + Sync;

/// A KMS on a port of its own, until it is dropped.
pub(crate) struct ScriptedKms {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

/// A port that refuses connections, and that is given to nobody else, as long as the socket is there and does not listen.
pub(crate) fn silent_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

pub(crate) fn answer(status: u16) -> String {
    let body = "{\"status\": 0}";
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

impl ScriptedKms {
    /// Asks `script` about every request: how many came before it, on all connections, and what it is.
    pub(crate) async fn start(script: impl Fn(usize, &Seen) -> Reaction + Send + Sync + 'static) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), script)
    }

    pub(crate) fn serve(
        listener: TcpListener,
        script: impl Fn(usize, &Seen) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let mut tasks = JoinSet::new();
        let script: Arc<Script> = Arc::new(script);
        let (all_seen, all_connections) = (Arc::clone(&seen), Arc::clone(&connections));
        tasks.spawn(async move {
            let mut served = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                *all_connections.lock().unwrap() += 1;
                served.spawn(serve(stream, Arc::clone(&all_seen), Arc::clone(&script)));
            }
        });
        Self { port, seen, connections, _tasks: tasks }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap().clone();
        // Here, where the test looks: a panic among the connections only would make it wait.
        let wrong: Vec<_> = seen.iter().flat_map(|seen| &seen.wrong).collect();
        assert!(wrong.is_empty(), "{:?}", wrong.first());
        seen
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Vec<Seen>>>, script: Arc<Script>) {
    let mut unread = Vec::new();
    let (mut waiting, mut waiting_octets) = (0, 0);
    loop {
        // Room for everything that a stream may have on its way, to see how much that is.
        unread.reserve(1 << 18);
        if !matches!(stream.read_buf(&mut unread).await, Ok(1..)) {
            return;
        }
        let mut arrived = Vec::new();
        while let Some((mut request, length)) = parse(&unread) {
            unread.drain(..length);
            waiting += 1;
            waiting_octets += length;
            (request.waiting, request.waiting_octets) = (waiting, waiting_octets);
            arrived.push(request);
        }
        let mut answers = String::new();
        for request in arrived {
            let number = {
                let mut seen = seen.lock().unwrap();
                seen.push(request.clone());
                seen.len() - 1
            };
            let octets = request.octets;
            match script(number, &request) {
                Reaction::Answer(text) => answers += &text,
                Reaction::Trickle(text) => {
                    for octet in text.as_bytes() {
                        if stream.write_all(&[*octet]).await.is_err() {
                            return;
                        }
                        tokio::task::yield_now().await;
                    }
                }
                Reaction::AnswerAndClose(text) => {
                    answers += &text;
                    let _ = stream.write_all(answers.as_bytes()).await;
                    return;
                }
                Reaction::Close => {
                    let _ = stream.write_all(answers.as_bytes()).await;
                    return;
                }
                Reaction::Hang => {
                    let _ = stream.write_all(answers.as_bytes()).await;
                    return hang(stream).await;
                }
            }
            waiting -= 1;
            waiting_octets -= octets;
        }
        if stream.write_all(answers.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Reads on until the other end closes.
async fn hang(mut stream: TcpStream) {
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

/// The first whole request and its length. Holds it against the interface on the way.
fn parse(octets: &[u8]) -> Option<(Seen, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut head = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(start) = head.parse(octets).expect("a request that is no HTTP") else {
        return None;
    };
    assert_eq!(head.method, Some("POST"));
    assert_eq!(head.path, Some("/api/v1/qkd/etsi004/key-material"));
    let length = head.headers.iter().find(|field| field.name == "Content-Length").expect("no Content-Length");
    let length: usize = std::str::from_utf8(length.value).unwrap().parse().unwrap();
    let body = octets.get(start..start + length)?;
    let body: Value = serde_json::from_slice(body).expect("a body that is no JSON");
    assert_eq!(body["metadata"]["size"], 57);
    assert_eq!(body["metadata"]["buffer"]["key_stream_id"], crate::stream::STREAM.to_string());
    let seen = Seen {
        at: Instant::now(),
        index: u32::try_from(body["index"].as_u64().unwrap()).unwrap(),
        status: body["status"].as_u64().unwrap(),
        key: base64_turbo::STANDARD.decode(body["key_buffer"].as_str().unwrap()).unwrap(),
        octets: start + length,
        waiting: 0,
        waiting_octets: 0,
        wrong: crate::document::wrong_in(&body),
    };
    Some((seen, start + length))
}
