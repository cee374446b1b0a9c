//! Requests that a module must refuse, and how.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{CALLS, Probe, has, id_of};
use crate::conform::http::Reply;

/// Octets that no body of this interface has.
const TOO_LARGE: usize = 64 << 20;
/// Octets of them that are sent before the answer is read.
const BEGUN: usize = 16 << 10;

/// A body that must be refused with 400.
struct Wrong {
    clause: &'static str,
    call: &'static str,
    body: Value,
    /// Member that is at fault.
    member: &'static str,
}

/// The method that the interface has for a call, and the status of a request that is at fault itself.
fn manner(call: &str) -> (&'static str, u64) {
    match call {
        "open-connect" => ("POST", 5),
        "get-key" => ("GET", 3),
        _ => ("PUT", 5),
    }
}

impl Probe<'_> {
    /// Everything that needs neither stream nor link.
    pub(super) fn refusals(&mut self) {
        for wrong in self.wrong_bodies() {
            let (method, status) = manner(wrong.call);
            let what = format!("{} {}", wrong.call, shortened(&wrong.body));
            let kept = match self.call(method, wrong.call, &wrong.body) {
                Err(why) => Err(why),
                Ok(reply) => {
                    if let Some(id) = id_of(&reply).filter(|_| reply.succeeded()) {
                        self.tidy(id);
                    }
                    self.detail(&reply, wrong.member);
                    has(&reply, 400, status)
                }
            };
            self.book.judge(wrong.clause, kept.map_err(|why| format!("{what}: {why}")));
        }
        self.no_json();
        self.no_stream_for_too_much();
        self.http();
    }

    /// That a refusal says why.
    fn detail(&mut self, reply: &Reply, member: &str) {
        let json = reply.json();
        let detail = json.as_ref().and_then(|body| body.get("detail")?.as_str());
        let kept = match detail {
            Some(detail) if detail.contains(member) => Ok(()),
            Some(_) => Err(format!("detail does not name {member}")),
            None => Err(format!("{} has no detail", reply.shown())),
        };
        self.book.judge("answer.detail", kept);
    }

    fn wrong_bodies(&self) -> Vec<Wrong> {
        let good = self.open_body(None, &json!({}));
        let id = Uuid::new_v4();
        let mut wrong = Vec::new();
        let mut open = |clause, member: &'static str, value: Option<Value>| {
            wrong.push(Wrong { clause, call: "open-connect", body: changed(&good, member, value), member });
        };
        for (clause, member) in [("open.source", "source"), ("open.destination", "destination")] {
            for value in [None, Some(json!(null)), Some(json!(7)), Some(json!("no URI"))] {
                open(clause, member, value);
            }
        }
        for value in [None, Some(json!(7)), Some(json!("no UUID")), Some(json!([]))] {
            open("open.key-stream-id", "key_stream_id", value);
        }
        for value in [None, Some(json!(null)), Some(json!([])), Some(json!("x"))] {
            open("open.qos", "qos", value);
        }
        for member in ["key_chunk_size", "max_bps", "min_bps", "jitter", "priority", "timeout", "ttl"] {
            for value in [json!(-1), json!(1.5), json!(4_294_967_296_u64), json!("32"), json!({})] {
                let body = changed(&good, "qos", Some(json!({ member: value })));
                wrong.push(Wrong { clause: "open.qos-members", call: "open-connect", body, member });
            }
        }
        let body = changed(&good, "qos", Some(json!({"key_chunk_size": 0})));
        let member = "key_chunk_size";
        wrong.push(Wrong { clause: "open.chunk-size-0", call: "open-connect", body, member });
        let body = json!({"source": "kms://conform.invalid/1", "destination": "kms://conform.invalid/2",
            "key_stream_id": id, "qos": {}});
        wrong.push(Wrong { clause: "open.unknown-kms", call: "open-connect", body, member: "" });
        for (call, clause) in [("get-key", "get-key.key-stream-id"), ("close", "close.key-stream-id")] {
            for value in [None, Some(json!(null)), Some(json!(7)), Some(json!("no UUID"))] {
                let body = changed(&json!({}), "key_stream_id", value);
                wrong.push(Wrong { clause, call, body, member: "key_stream_id" });
            }
        }
        for value in [json!(-1), json!(1.5), json!(4_294_967_296_u64), json!("0")] {
            let body = json!({"key_stream_id": id, "index": value});
            wrong.push(Wrong { clause: "get-key.members", call: "get-key", body, member: "index" });
        }
        for value in [json!([]), json!({"size": "57"}), json!({"size": -1})] {
            let body = json!({"key_stream_id": id, "metadata": value});
            wrong.push(Wrong { clause: "get-key.members", call: "get-key", body, member: "metadata" });
        }
        for (call, clause) in [("get-key", "get-key.unknown"), ("close", "close.unknown")] {
            wrong.push(Wrong { clause, call, body: json!({"key_stream_id": id}), member: "" });
        }
        wrong
    }

    fn no_json(&mut self) {
        for call in ["open-connect", "get-key", "close"] {
            for text in ["", "{", "[]", "\"x\"", "{\"key_stream_id\":}", "\u{0}"] {
                let (method, status) = manner(call);
                let request =
                    self.subject.end.client.request(method, &format!("{CALLS}{call}"), text.as_bytes());
                let kept = self.exchange(call, &request).and_then(|reply| has(&reply, 400, status));
                self.book.judge("http.no-json", kept.map_err(|why| format!("{call} with {text:?}: {why}")));
            }
        }
    }

    /// More than the largest chunk is refused with a proposal, and leaves nothing behind.
    fn no_stream_for_too_much(&mut self) {
        let id = Uuid::new_v4();
        let asked = json!({"key_chunk_size": u32::MAX});
        let reply = match self.open(Some(id), &asked) {
            Ok(reply) if matches!(reply.status(), Some(4 | 6)) => {
                let why = "the module has no QKD link, or does not hear the other module";
                return self.book.skip(&["open.too-large", "open.no-stream-left"], why);
            }
            other => other,
        };
        let kept = reply.and_then(|reply| {
            has(&reply, 500, 7)?;
            let body = reply.json().unwrap_or_default();
            let size = body.pointer("/qos/key_chunk_size").and_then(Value::as_u64);
            match size {
                Some(size) if size > 0 && size < u64::from(u32::MAX) => Ok(()),
                _ => Err("the answer has no qos with a key_chunk_size that could be had".to_owned()),
            }
        });
        self.book.judge("open.too-large", kept);
        let kept = self
            .call("GET", "get-key", &json!({"key_stream_id": id}))
            .and_then(|reply| has(&reply, 400, 3))
            .and_then(|()| self.call("PUT", "close", &json!({"key_stream_id": id})))
            .and_then(|reply| has(&reply, 400, 5));
        self.book.judge("open.no-stream-left", kept);
    }

    fn http(&mut self) {
        let client = self.subject.end.client.clone();
        let unknown = client.request("GET", "/api/v1/kms/etsi004/conform", b"");
        let kept = self.exchange("an unknown path", &unknown).and_then(|reply| has(&reply, 404, 4));
        self.book.judge("http.unknown-path", kept);
        for (method, call) in [("GET", "open-connect"), ("DELETE", "get-key"), ("GET", "close")] {
            let request = client.request(method, &format!("{CALLS}{call}"), b"{}");
            let kept = self.exchange(call, &request).and_then(|reply| {
                let allow = reply.field("allow").unwrap_or_default();
                let names = allow.split(',').any(|name| name.trim() == manner(call).0);
                if reply.status == 405 && names {
                    Ok(())
                } else {
                    Err(format!("{}, Allow: {allow:?}", reply.shown()))
                }
            });
            self.book.judge("http.method", kept.map_err(|why| format!("{method} {call}: {why}")));
        }
        let body = self.open_body(None, &json!({})).to_string();
        for media in [Some("text/plain"), Some("application/x-www-form-urlencoded")] {
            let request = client.request_as("POST", &format!("{CALLS}open-connect"), media, body.as_bytes());
            let kept = self.exchange("open-connect", &request).and_then(|reply| has(&reply, 415, 5));
            self.book.judge("http.media-type", kept);
        }
        let kept = self.too_large();
        self.book.judge("http.too-large", kept);
        let kept = self.in_order(&unknown);
        self.book.judge("http.in-order", kept);
    }

    fn too_large(&mut self) -> Result<(), String> {
        let client = &self.subject.end.client;
        let mut request = client.request("POST", &format!("{CALLS}open-connect"), b"");
        let begin = format!("Content-Length: {TOO_LARGE}\r\n\r\n").into_bytes();
        let end = b"Content-Length: 0\r\n\r\n".len();
        request.truncate(request.len() - end);
        request.extend_from_slice(&begin);
        request.extend(std::iter::repeat_n(b' ', BEGUN));
        let reply = self.exchange("open-connect", &request)?;
        has(&reply, 413, 5)
    }

    fn in_order(&mut self, unknown: &[u8]) -> Result<(), String> {
        let client = &self.subject.end.client;
        let id = json!({"key_stream_id": Uuid::new_v4()}).to_string();
        let get_key = client.request("GET", &format!("{CALLS}get-key"), id.as_bytes());
        let close = client.request("PUT", &format!("{CALLS}close"), id.as_bytes());
        let requests = [&get_key, unknown, &close, &get_key];
        let said = |error: std::io::Error| error.to_string();
        // What each gets alone is what it must get here.
        let alone: Vec<Reply> = requests
            .iter()
            .map(|request| client.exchange(request))
            .collect::<Result<_, _>>()
            .map_err(said)?;
        let mut connection = client.connect().map_err(said)?;
        let until = self.until();
        connection.send(&requests.concat(), until).map_err(said)?;
        for (number, alone) in alone.iter().enumerate() {
            let reply = connection.reply(until).map_err(|why| format!("answer {}: {why}", number + 1))?;
            if (reply.status, reply.status()) != (alone.status, alone.status()) {
                return Err(format!(
                    "answer {} is {}, and alone it was {}",
                    number + 1,
                    reply.shown(),
                    alone.shown()
                ));
            }
        }
        Ok(())
    }
}

/// A body with a member changed, or removed.
fn changed(body: &Value, member: &str, value: Option<Value>) -> Value {
    let mut body = body.clone();
    if let Some(members) = body.as_object_mut() {
        match value {
            Some(value) => drop(members.insert(member.to_owned(), value)),
            None => drop(members.remove(member)),
        }
    }
    body
}

fn shortened(body: &Value) -> String {
    let text = body.to_string();
    if text.chars().count() > 160 { text.chars().take(160).chain(['…']).collect() } else { text }
}
