//! A KMS as small as can be, with planted defects.

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::Message;
use crate::DEADLINE;

/// What a small KMS does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Nothing.
    None,
    /// Takes key for streams that it does not know.
    TakesStrangers,
    /// Answers 500 to them.
    FailsOnStrangers,
    /// Answers without a status.
    NoStatus,
    /// Refuses a chunk that it has already.
    RefusesRepeated,
    /// Takes other octets under the same index.
    TakesChanged,
    /// Takes chunks of any length.
    TakesAnyLength,
    /// Takes what is no base64.
    TakesNoBase64,
    /// Counts notices as chunks.
    NoticesUseIndexes,
    /// Refuses notices.
    RefusesNotices,
    /// Reads only the first of several requests.
    LosesPipelined,
    /// Wants members in the order of the example.
    WantsOrder,
    /// Wants every index.
    RefusesGaps,
    /// Takes what is no JSON.
    TakesNoJson,
}

/// A KMS that knows one stream, of chunks of 32 octets.
#[must_use]
pub fn small_kms(stream: &str, defect: Defect) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let kms =
        Arc::new(Mutex::new(SmallKms { stream: stream.to_owned(), defect, taken: HashMap::new(), next: 0 }));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let kms = Arc::clone(&kms);
            std::thread::spawn(move || serve(client, &kms));
        }
    });
    address
}

struct SmallKms {
    stream: String,
    defect: Defect,
    taken: HashMap<u64, String>,
    next: u64,
}

fn serve(mut client: TcpStream, kms: &Mutex<SmallKms>) -> Option<()> {
    let _ = client.set_read_timeout(Some(DEADLINE));
    let mut read = Vec::new();
    loop {
        let request = Message::read(&mut client, &mut read)?;
        let mut kms = kms.lock().expect("not poisoned");
        if kms.defect == Defect::LosesPipelined {
            read.clear();
        }
        let (status, code) = kms.judge(&request);
        let mut answer = Message::answer(status, json!({ "status": code }));
        if kms.defect == Defect::NoStatus {
            answer.set_body("{}");
        }
        client.write_all(&answer.octets()).ok()?;
        if request.cut {
            return None;
        }
    }
}

impl SmallKms {
    fn judge(&mut self, request: &Message) -> (u16, u32) {
        let is = |defect| self.defect == defect;
        if !request.head.starts_with("POST") {
            return (405, 3);
        }
        if !request.calls("/api/v1/qkd/etsi004/key-material") {
            return (404, 3);
        }
        if request.cut {
            return (413, 3);
        }
        let body = request.json();
        if !body.is_object() {
            return if is(Defect::TakesNoJson) { (201, 0) } else { (400, 3) };
        }
        if is(Defect::WantsOrder) && !request.body.starts_with(b"{\"status\"") {
            return (400, 3);
        }
        let number = |name: &str| body[name].as_u64().filter(|number| *number <= u64::from(u32::MAX));
        let named = match &body["metadata"]["buffer"] {
            Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
            buffer => buffer.clone(),
        };
        let (Some(status), Some(index), Some(key), Some(stream)) =
            (number("status"), number("index"), body["key_buffer"].as_str(), named["key_stream_id"].as_str())
        else {
            return (400, 3);
        };
        if stream != self.stream {
            return match self.defect {
                Defect::TakesStrangers => (201, 0),
                Defect::FailsOnStrangers => (500, 4),
                _ => (404, 3),
            };
        }
        if key.is_empty() != (status != 0) {
            return (400, 3);
        }
        if key.is_empty() {
            if is(Defect::NoticesUseIndexes) {
                self.taken.insert(index, String::new());
            }
            return if is(Defect::RefusesNotices) { (400, 3) } else { (201, 0) };
        }
        match base64_turbo::STANDARD.decode(key) {
            Ok(octets) if octets.len() == 32 || is(Defect::TakesAnyLength) => {}
            Err(_) if is(Defect::TakesNoBase64) => {}
            _ => return (400, 3),
        }
        match self.taken.get(&index) {
            Some(before) if before == key && !is(Defect::RefusesRepeated) => (201, 0),
            Some(_) if is(Defect::TakesChanged) => (201, 0),
            Some(_) => (409, 3),
            None if index != self.next && is(Defect::RefusesGaps) => (400, 3),
            None => {
                // A defective one would keep what it should not have taken.
                if !is(Defect::TakesAnyLength) && !is(Defect::TakesNoBase64) {
                    self.taken.insert(index, key.to_owned());
                }
                self.next = index + 1;
                (201, 0)
            }
        }
    }
}
