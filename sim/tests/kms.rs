//! The reference KMS as a process, against a scripted QKD module.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qkd_sim::check::{CountedLosses, Outcome, judge};
use qkd_sim::history::position;
use qkd_sim::history::read::Reader;
use qkd_sim::history::record::{Invariant, Line};
use serde_json::{Value, json};

const ID: &str = "0b9c5b1a-6a04-4b8e-9a52-3a2f0f6c1d2e";
const PATIENCE: Duration = Duration::from_secs(30);

/// Index and key.
type Chunk = (u32, [u8; 32]);
/// Kind, and what the module gets: HTTP status and body.
type Trouble = (&'static str, Option<u16>, Option<&'static [u8]>);

/// A QKD module that gives scripted answers, one connection after the other, and notes what it was asked.
struct Module {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Module {
    /// `answer` gets method and path, and how often it was called before with them.
    fn start(answer: impl Fn(&str, usize) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("address");
        let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let noted = Arc::clone(&asked);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.expect("a connection");
                let (line, body) = read_message(&mut connection);
                let call = line.rsplit_once(' ').expect("request line").0.to_owned();
                let mut asked = noted.lock().expect("lock");
                let before = asked.iter().filter(|(known, _)| *known == call).count();
                let (status, body_out) = answer(&call, before);
                asked.push((call, serde_json::from_slice(&body).expect("JSON")));
                drop(asked);
                let length = if status == 204 {
                    String::new()
                } else {
                    format!("Content-Length: {}\r\n", body_out.len())
                };
                write!(connection, "HTTP/1.1 {status} x\r\n{length}\r\n{body_out}").expect("answers");
            }
        });
        Self { address, asked }
    }

    fn calls(&self) -> Vec<String> {
        self.asked.lock().expect("lock").iter().map(|(call, _)| call.clone()).collect()
    }
}

/// First line and body of an HTTP message.
fn read_message(connection: &mut TcpStream) -> (String, Vec<u8>) {
    connection.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut input = BufReader::new(connection);
    let (mut first, mut length) = (String::new(), 0);
    input.read_line(&mut first).expect("first line");
    loop {
        let mut field = String::new();
        assert!(input.read_line(&mut field).expect("field") > 0, "ended within the head: {first}");
        if field == "\r\n" {
            break;
        }
        if let Some(value) = field.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("length");
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).expect("body");
    (first.trim_end().to_owned(), body)
}

fn good(call: &str, _: usize) -> (u16, String) {
    let (get_key, close) = (call.ends_with("/get-key"), call.ends_with("/close"));
    if close {
        (204, String::new())
    } else if get_key {
        (205, json!({"status": 0}).to_string())
    } else {
        (201, json!({"key_stream_id": ID, "qos": {"key_chunk_size": 32}, "status": 1}).to_string())
    }
}

/// A running KMS; killed when dropped.
struct Kms {
    child: Child,
    address: SocketAddr,
    history: PathBuf,
}

impl Kms {
    fn start(directory: &Path, name: &str, module: &Module, role: &[&str]) -> Self {
        let history = directory.join(format!("{name}.history"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_qkd-sim"))
            .args(["kms", "--source", "kms://a", "--destination", "kms://b", "--json", "--key", "positional"])
            .args(["--module", &format!("http://{}", module.address), "--linger", "50ms"])
            .arg("--history")
            .arg(&history)
            .args(role)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut out = BufReader::new(child.stdout.take().expect("output"));
        let mut line = String::new();
        out.read_line(&mut line).expect("first line");
        // Read on, or the KMS would wait for a reader.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let address =
            line.strip_prefix("listening ").expect("the address").trim().parse().expect("an address");
        Self { child, address, history }
    }

    /// Sends `key-material` and gives the HTTP status; `None`: no whole answer.
    fn push(&self, connection: &mut TcpStream, index: u32, key: &[u8]) -> Option<(u16, Vec<u8>)> {
        let key = base64_turbo::STANDARD.encode(key);
        let body = format!(
            r#"{{"status":0,"index":{index},"key_buffer":"{key}","metadata":{{"size":57,"buffer":{{"key_stream_id": "{ID}"}}}}}}"#
        );
        // In one piece, so that nothing waits for an acknowledgement.
        let request = format!(
            "POST /api/v1/qkd/etsi004/key-material HTTP/1.1\r\nHost: kms\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(request.as_bytes()).expect("sends");
        let mut peek = [0];
        if connection.peek(&mut peek).ok()? == 0 {
            return None;
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read_message(connection)));
        let (line, body) = result.ok()?;
        let status = line.split(' ').nth(1).expect("status").parse().expect("a number");
        Some((status, body))
    }

    fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(self.address).expect("connects");
        connection.set_read_timeout(Some(PATIENCE)).expect("timeout");
        connection
    }

    fn stop(mut self) -> (ExitStatus, Vec<Line>) {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("an ID"));
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).expect("signals");
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("waits") {
                break status;
            }
            assert!(Instant::now() < until, "the KMS does not stop");
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut reader = Reader::open(&self.history).expect("opens");
        let lines = std::iter::from_fn(|| reader.next_line().expect("reads")).collect();
        (status, lines)
    }
}

impl Drop for Kms {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn key(index: u32) -> [u8; 32] {
    let mut key = [0; 32];
    position::fill(1, 5, index * 32, &mut key);
    key
}

#[track_caller]
fn wait_for(module: &Module, call: &str, count: usize) {
    let until = Instant::now() + PATIENCE;
    while module.calls().iter().filter(|known| known.ends_with(call)).count() < count {
        assert!(Instant::now() < until, "{call} was not called {count} times: {:?}", module.calls());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn violations(lines: &[Line]) -> Vec<Invariant> {
    let seen = lines.iter().filter_map(|line| match line {
        Line::Violation(seen) => Some(seen.invariant),
        _ => None,
    });
    seen.collect()
}

#[test]
fn a_pair_of_kmss_opens_hands_over_receives_closes_and_agrees() {
    let directory = tempfile::tempdir().expect("directory");
    let ids = directory.path().join("ids").to_string_lossy().into_owned();
    // The first answers are those of a module whose peer is not there yet.
    let slow = |call: &str, before: usize| match (call.ends_with("/get-key"), before) {
        (true, 0) => (400, json!({"status": 3}).to_string()),
        (true, 1) => (500, json!({"status": 6}).to_string()),
        _ => good(call, before),
    };
    let modules = [Module::start(slow), Module::start(good)];
    let a =
        Kms::start(directory.path(), "a", &modules[0], &["--open", "--ids-out", &ids, "--chunk-size", "32"]);
    let b = Kms::start(
        directory.path(),
        "b",
        &modules[1],
        &["--join-from", &ids, "--form", "post", "--index", "0"],
    );
    wait_for(&modules[0], "/get-key", 3);
    wait_for(&modules[1], "/get-key", 1);
    let mut connections = [a.connect(), b.connect()];
    for index in 0..300 {
        for (kms, connection) in [&a, &b].into_iter().zip(&mut connections) {
            let answer = kms.push(connection, index, &key(index)).expect("an answer");
            assert_eq!(answer, (201, br#"{"status":0}"#.to_vec()));
        }
    }
    drop(connections);
    let paths = [a.history.clone(), b.history.clone()];
    for (kms, module) in [(a, &modules[0]), (b, &modules[1])] {
        let (status, lines) = kms.stop();
        assert!(status.success(), "{status}: {:?}", violations(&lines));
        assert!(matches!(lines.last(), Some(Line::End { .. })));
        assert!(module.calls().last().expect("calls").ends_with("/close"));
    }
    assert_eq!(modules[0].asked.lock().expect("lock")[0].1["key_stream_id"], Value::Null);
    assert_eq!(modules[1].asked.lock().expect("lock")[0].1["key_stream_id"], ID);
    assert_eq!(modules[0].calls()[1], "GET /api/v1/kms/etsi004/get-key");
    assert_eq!(modules[1].calls()[1], "POST /api/v1/kms/etsi004/get-key");
    assert_eq!(modules[1].asked.lock().expect("lock")[1].1["index"], 0);
    let verdict = judge(&paths[0], &paths[1], CountedLosses::default()).expect("can be judged");
    assert_eq!(verdict.outcome, Outcome::Agree, "{}", verdict.text());
    assert_eq!(verdict.streams[0].compared, 300);
}

#[test]
fn trouble_is_made_as_it_was_asked_for_and_get_key_comes_again_after_a_refusal() {
    let expected: [Trouble; 5] = [
        ("503", Some(503), None),
        ("429", Some(429), None),
        ("400", Some(400), None),
        ("garbage-201", Some(201), Some(b"\0<garbage>{{{\xff")),
        ("close-mid-answer", None, None),
    ];
    for (kind, status, body) in expected {
        let directory = tempfile::tempdir().expect("directory");
        let module = Module::start(good);
        let trouble = format!("at=0s kind={kind} for=500ms");
        let kms = Kms::start(directory.path(), "a", &module, &["--open", "--trouble", &trouble]);
        wait_for(&module, "/get-key", 1);
        let first = kms.push(&mut kms.connect(), 0, &key(0));
        assert_eq!(first.as_ref().map(|(status, _)| *status), status, "{kind}");
        if let Some(body) = body {
            assert_eq!(first.expect("an answer").1, body);
        }
        let until = Instant::now() + PATIENCE;
        while kms
            .push(&mut kms.connect(), 0, &key(0))
            .is_none_or(|(status, body)| status != 201 || body[0] == 0)
        {
            assert!(Instant::now() < until, "{kind} does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
        if kind == "400" {
            wait_for(&module, "/get-key", 2);
        }
        let (status, lines) = kms.stop();
        assert!(status.success(), "{kind}: {:?}", violations(&lines));
        assert_eq!(lines.iter().filter(|line| matches!(line, Line::Chunk(_))).count(), 1, "{kind}");
    }
}

#[test]
fn a_module_that_delivers_what_it_must_not_is_caught_by_the_exit_code_and_the_history() {
    let wrong: [(&[Chunk], Invariant); 4] = [
        (&[(0, key(0)), (0, key(1))], Invariant::I3),
        (&[(0, key(7)), (1, key(2))], Invariant::I2),
        (&[(0, key(0)), (3, key(3)), (2, key(2))], Invariant::I4),
        (&[(0, key(0)), (1, [0; 32]), (2, key(2))], Invariant::I2),
    ];
    for (chunks, invariant) in wrong {
        let directory = tempfile::tempdir().expect("directory");
        let module = Module::start(good);
        let kms = Kms::start(directory.path(), "a", &module, &["--open"]);
        wait_for(&module, "/get-key", 1);
        let mut connection = kms.connect();
        for (at, (index, key)) in chunks.iter().enumerate() {
            // Other octets under an index that it has are not taken either.
            let again = chunks.iter().take(at).any(|(before, other)| before == index && other != key);
            let wanted = if again { 400 } else { 201 };
            assert_eq!(kms.push(&mut connection, *index, key).expect("an answer").0, wanted);
        }
        drop(connection);
        let (status, lines) = kms.stop();
        assert_eq!(status.code(), Some(1), "{invariant:?}");
        assert!(violations(&lines).contains(&invariant), "{invariant:?}: {lines:?}");
    }
}

#[test]
fn a_kms_without_key_or_module_fails_in_words() {
    let directory = tempfile::tempdir().expect("directory");
    let module = Module::start(good);
    let kms = Kms::start(directory.path(), "a", &module, &["--open"]);
    wait_for(&module, "/get-key", 1);
    assert_eq!(kms.stop().0.code(), Some(1), "no key came");

    let refused =
        Module::start(|_, _| (500, json!({"status": 7, "qos": {"key_chunk_size": 64}}).to_string()));
    let mut kms = Kms::start(directory.path(), "b", &refused, &["--open"]);
    let until = Instant::now() + PATIENCE;
    while kms.child.try_wait().expect("waits").is_none() {
        assert!(Instant::now() < until, "the KMS goes on although its stream was refused");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(refused.calls().len(), 1, "a refusal for good was asked again");
}
