//! Everything wrong that a client can say with curl, against real daemons: always an answer of the status table, never
//! a panic, never a hang, and the daemon works on.

use std::io::Write;
use std::process::{Command, Stdio};

use qkd_tests::module::Pair;
use serde_json::{Value, json};

const OPEN: &str = "open-connect";
const GET_KEY: &str = "get-key";
const CLOSE: &str = "close";
const ID: &str = "0b0e5a5c-8a3e-4d0e-9a57-2f7a9a3a6c11";

/// HTTP code and body that curl got for `body`, sent with `arguments` to `path`.
fn curl(url: &str, arguments: &[&str], body: &[u8]) -> (u16, Vec<u8>) {
    let mut child = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--output",
            "-",
            "--write-out",
            "\n%{http_code}",
        ])
        .args(["--data-binary", "@-", "--header", "Expect:"])
        .args(arguments)
        .arg(url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("curl runs");
    let mut input = child.stdin.take().unwrap();
    // The daemon may refuse before it has read everything.
    let _ = input.write_all(body);
    drop(input);
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {arguments:?}: {errors}");
    let cut = output.stdout.iter().rposition(|&octet| octet == b'\n').unwrap();
    let code = std::str::from_utf8(&output.stdout[cut + 1..]).unwrap().parse().unwrap();
    (code, output.stdout[..cut].to_vec())
}

const JSON: [&str; 2] = ["--header", "Content-Type: application/json"];

/// Method that the interface names for a path.
fn method(path: &str) -> &'static str {
    match path {
        OPEN => "POST",
        GET_KEY => "GET",
        _ => "PUT",
    }
}

struct Client {
    base: String,
}

impl Client {
    fn send(&self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let arguments = [&JSON[..], &["--request", method(path)]].concat();
        curl(&format!("{}/api/v1/kms/etsi004/{path}", self.base), &arguments, body)
    }

    /// Expects a refusal with this code, this status, and a sentence that holds `word`.
    fn refused(&self, path: &str, body: &[u8], code: u16, status: u64, word: &str) {
        check(&format!("{path} {}", excerpt(body)), self.send(path, body), code, status, word);
    }
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned()
}

fn check(what: &str, (code, body): (u16, Vec<u8>), wanted: u16, status: u64, word: &str) {
    let text = String::from_utf8_lossy(&body);
    assert_eq!(code, wanted, "{what}: {text}");
    let value: Value = serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{what}: {e} in {text:?}"));
    assert_eq!(value["status"], json!(status), "{what}: {text}");
    let detail = value["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(word), "{what}: the sentence must name {word:?}: {text}");
}

fn open_with(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut body = json!({
        "source": "kms://a", "destination": "kms://b", "key_stream_id": null, "qos": {"key_chunk_size": 32}
    });
    change(&mut body);
    body.to_string().into_bytes()
}

#[test]
fn every_bad_input_gets_a_typed_answer_and_the_daemon_works_on() {
    let nobody = "http://127.0.0.1:9".to_owned();
    let pair = Pair::start(&["--rate", "1M", "--weather", "calm"], nobody.clone(), nobody, "");
    for module in [&pair.a, &pair.b] {
        let client = Client { base: format!("http://{}", module.api) };
        bodies(&client);
        members(&client);
        transport(&client);
        flows(&client);
        let log = module.process.output();
        assert!(!log.contains("panicked"), "{log}");
    }
}

fn bodies(client: &Client) {
    for (path, status) in [(OPEN, 5), (GET_KEY, 3), (CLOSE, 5)] {
        for body in [
            &b""[..],
            b"{",
            b"[]",
            b"null",
            b"7",
            b"\"text\"",
            b"{\"key_stream_id\": ",
            b"\xff\xfe",
            b"{\"source\": \"\xff\"}",
            b"{} {}",
            b"{}",
        ] {
            client.refused(path, body, 400, status, "");
        }
        client.refused(path, "[".repeat(60_000).as_bytes(), 400, status, "");
        let deep = format!("{}{}", "{\"a\":".repeat(500_000 / 5), "}".repeat(100_000));
        client.refused(path, deep.repeat(2).as_bytes(), 413, status, "");
        for wrong in
            ["\"\"", "7", "{}", "\"not-a-uuid\"", "\"0b0e5a5c8a3e4d0e9a572f7a9a3a6c11\"", "\"{0b0e5a5c}\""]
        {
            let mut body = open_with(|_| {});
            let text = String::from_utf8(body).unwrap();
            body = text.replace("\"key_stream_id\":null", &format!("\"key_stream_id\":{wrong}")).into_bytes();
            client.refused(path, &body, 400, status, "key_stream_id");
        }
    }
    for path in [GET_KEY, CLOSE] {
        let status = if path == GET_KEY { 3 } else { 5 };
        client.refused(path, br#"{"key_stream_id": null}"#, 400, status, "key_stream_id");
        client.refused(path, format!(r#"{{"key_stream_id": "{ID}"}}"#).as_bytes(), 400, status, "");
    }
}

fn members(client: &Client) {
    for member in ["source", "destination", "key_stream_id", "qos"] {
        let body = open_with(|v| drop(v.as_object_mut().unwrap().remove(member)));
        client.refused(OPEN, &body, 400, 5, member);
    }
    for wrong in [json!(null), json!([]), json!("x"), json!(1)] {
        client.refused(OPEN, &open_with(|v| v["qos"] = wrong), 400, 5, "qos");
    }
    for member in ["key_chunk_size", "max_bps", "min_bps", "jitter", "priority", "timeout", "ttl"] {
        for wrong in [
            json!(-1),
            json!(1.5),
            json!(4_294_967_296_u64),
            json!(u64::MAX),
            json!("32"),
            json!([]),
            json!(1e30),
        ] {
            client.refused(OPEN, &open_with(|v| v["qos"][member] = wrong), 400, 5, member);
        }
    }
    client.refused(OPEN, &open_with(|v| v["qos"]["key_chunk_size"] = json!(0)), 400, 5, "key_chunk_size");
    client.refused(
        OPEN,
        &open_with(|v| v["qos"]["metadata_mimetype"] = json!(7)),
        400,
        5,
        "metadata_mimetype",
    );
    for name in ["source", "destination"] {
        for wrong in [json!(""), json!("no scheme"), json!(7), json!(format!("kms://{}", "x".repeat(9_000)))]
        {
            client.refused(OPEN, &open_with(|v| v[name] = wrong), 400, 5, name);
        }
        client.refused(OPEN, &open_with(|v| v[name] = json!("kms://nobody")), 400, 5, "");
    }
    client.refused(OPEN, &open_with(|v| v["destination"] = v["source"].clone()), 400, 5, "");
    for wrong in [json!(-1), json!(0.5), json!(4_294_967_296_u64), json!("0")] {
        let body = json!({"key_stream_id": ID, "index": wrong}).to_string();
        client.refused(GET_KEY, body.as_bytes(), 400, 3, "index");
    }
    for wrong in [json!(7), json!({"size": -1, "buffer": ""}), json!({"size": "57"})] {
        let body = json!({"key_stream_id": ID, "metadata": wrong}).to_string();
        client.refused(GET_KEY, body.as_bytes(), 400, 3, "metadata");
    }
}

fn transport(client: &Client) {
    let url = |path: &str| format!("{}/api/v1/kms/etsi004/{path}", client.base);
    for (path, status, wrong) in
        [(OPEN, 5, "GET"), (GET_KEY, 3, "PUT"), (CLOSE, 5, "GET"), (OPEN, 5, "DELETE")]
    {
        let arguments = [&JSON[..], &["--request", wrong]].concat();
        check(&format!("{wrong} {path}"), curl(&url(path), &arguments, b"{}"), 405, status, "");
    }
    for content_type in ["Content-Type: text/plain", "Content-Type: application/xml", "Content-Type:"] {
        let answer = curl(&url(OPEN), &["--header", content_type, "--request", "POST"], &open_with(|_| {}));
        check(content_type, answer, 415, 5, "application/json");
    }
    for path in ["", "nothing", "open-connect/", "../../../etc/passwd", "get-key%00"] {
        let arguments = [&JSON[..], &["--path-as-is", "--request", "POST"]].concat();
        check(path, curl(&url(path), &arguments, b"{}"), 404, 4, "");
    }
    let huge = vec![b' '; 4 << 20];
    client.refused(OPEN, &huge, 413, 5, "");
    let chunked = [&JSON[..], &["--request", "POST", "--header", "Transfer-Encoding: chunked"]].concat();
    check("chunked", curl(&url(OPEN), &chunked, &huge), 413, 5, "");
}

/// What is refused must have left no trace: the same client opens, is refused, and closes as usual.
fn flows(client: &Client) {
    let end = std::time::Instant::now() + qkd_tests::DEADLINE;
    let (mut code, mut body) = client.send(OPEN, &open_with(|_| {}));
    while code != 201 && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(50));
        (code, body) = client.send(OPEN, &open_with(|_| {}));
    }
    assert_eq!(code, 201, "{}", String::from_utf8_lossy(&body));
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["status"], json!(1));
    let id = answer["key_stream_id"].as_str().unwrap();
    client.refused(GET_KEY, json!({"key_stream_id": id}).to_string().as_bytes(), 400, 3, "");
    let larger = open_with(|v| v["qos"]["key_chunk_size"] = json!(u32::MAX));
    client.refused(OPEN, &larger, 500, 7, "");
    let (_, body) = client.send(OPEN, &larger);
    let proposal: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(proposal["qos"]["key_chunk_size"], json!(65_536), "{proposal}");
    let small = json!({"key_stream_id": id, "metadata": {"size": 10, "buffer": ""}}).to_string();
    let (code, body) = client.send(GET_KEY, small.as_bytes());
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert!(code == 400 && (answer["status"] == 8 || answer["status"] == 3), "{code} {answer}");
    let (code, body) = client.send(CLOSE, json!({"key_stream_id": id.to_uppercase()}).to_string().as_bytes());
    assert_eq!((code, body.len()), (204, 0));
    // The answer to a close may have got lost: the same close gets the same answer.
    let (code, body) = client.send(CLOSE, json!({"key_stream_id": id}).to_string().as_bytes());
    assert_eq!((code, body.len()), (204, 0));
    client.refused(OPEN, &open_with(|v| v["key_stream_id"] = json!(id)), 400, 5, "");
}
