//! The KMS endpoint that the probe plays: what a module pushes there, looked at, and answered as the checks want it.
//!
//! What comes may be real key. Of a chunk only its SHA-256 digest is kept, and no finding quotes a body.

use std::borrow::Cow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64_turbo::STANDARD;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;
use zeroize::Zeroize;

use super::server::{Request, Respond, Serve};
use crate::config::KEY_MATERIAL_PATH;

/// Arrivals that are remembered; later ones are answered and forgotten.
const MOST_ARRIVALS: usize = 100_000;
/// Characters of the object with the one space behind its colon.
const USUAL_SIZE: u64 = 57;

/// How key-material is answered from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// 201.
    Accept,
    /// With this status and these header lines.
    Refuse(u16, String),
    /// The next message not at all, and what comes over other connections with 201.
    HangOnce,
    /// The next message by the end of its connection, and then as `Accept`.
    BreakOnce,
}

/// A message that came.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) stream: Option<Uuid>,
    pub(super) index: Option<u32>,
    pub(super) status: Option<u64>,
    /// Of the octets of key.
    pub(super) digest: [u8; 32],
    /// How many octets; `None`: `key_buffer` is missing or no base64.
    pub(super) octets: Option<usize>,
    /// It was answered with 201.
    pub(super) accepted: bool,
    pub(super) at: Instant,
    /// Clauses that it breaks, with why.
    pub(super) broken: Vec<(&'static str, String)>,
}

impl Arrival {
    /// Whether it has key, of this stream.
    pub(super) fn is_chunk_of(&self, stream: Uuid) -> bool {
        self.stream == Some(stream) && self.octets != Some(0)
    }

    /// Whether it has no key and another status than 0, for this stream.
    pub(super) fn is_notice_of(&self, stream: Uuid) -> bool {
        self.stream == Some(stream) && self.octets == Some(0)
    }
}

/// What has come so far.
#[derive(Debug)]
pub(super) struct Desk {
    inside: Mutex<Inside>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inside {
    mode: Mode,
    arrivals: Vec<Arrival>,
    connections: u64,
}

impl Desk {
    pub(super) fn new() -> Self {
        let inside = Inside { mode: Mode::Accept, arrivals: Vec::new(), connections: 0 };
        Self { inside: Mutex::new(inside), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on answers so. Gives the number of arrivals so far.
    pub(super) fn set(&self, mode: Mode) -> usize {
        let mut inside = self.lock();
        inside.mode = mode;
        inside.arrivals.len()
    }

    /// Arrivals so far.
    pub(super) fn count(&self) -> usize {
        self.lock().arrivals.len()
    }

    /// Whether anybody has connected, or does by `until`.
    pub(super) fn visited(&self, until: Instant) -> bool {
        let mut inside = self.lock();
        while inside.connections == 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            inside = self.changed.wait_timeout(inside, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Looks at the arrivals from the one of this number on.
    pub(super) fn look<T>(&self, from: usize, look: impl FnOnce(&[Arrival]) -> T) -> T {
        look(self.lock().arrivals.get(from..).unwrap_or_default())
    }

    /// Waits until `look` finds something among the arrivals from the one of this number on.
    pub(super) fn wait<T>(
        &self,
        from: usize,
        until: Instant,
        look: impl Fn(&[Arrival]) -> Option<T>,
    ) -> Option<T> {
        let mut inside = self.lock();
        loop {
            if let Some(found) = look(inside.arrivals.get(from..).unwrap_or_default()) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            inside = self.changed.wait_timeout(inside, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Serve for Desk {
    fn connected(&self) {
        self.lock().connections += 1;
        self.changed.notify_all();
    }

    fn answer(&self, request: &Request<'_>) -> Respond {
        let mut arrival = read(request);
        let mut inside = self.lock();
        let answer = match inside.mode.clone() {
            Mode::Accept => Respond::json(201, r#"{"status":0}"#),
            Mode::Refuse(status, fields) => Respond::With {
                status,
                fields: format!("Content-Type: application/json\r\n{fields}"),
                body: r#"{"status":6}"#.into(),
            },
            Mode::HangOnce => {
                inside.mode = Mode::Accept;
                Respond::Never
            }
            Mode::BreakOnce => {
                inside.mode = Mode::Accept;
                Respond::Break
            }
        };
        arrival.accepted = matches!(answer, Respond::With { status: 201, .. });
        if inside.arrivals.len() < MOST_ARRIVALS {
            inside.arrivals.push(arrival);
        }
        drop(inside);
        self.changed.notify_all();
        answer
    }
}

#[derive(Default, Deserialize)]
struct Body<'a> {
    status: Option<Value>,
    index: Option<Value>,
    #[serde(borrow)]
    key_buffer: Option<Cow<'a, str>>,
    metadata: Option<Value>,
}

/// Looks at a message.
fn read(request: &Request<'_>) -> Arrival {
    let mut broken = Vec::new();
    if request.method != "POST" || !request.path.ends_with(KEY_MATERIAL_PATH) {
        let what = format!("{} {} came instead of POST {KEY_MATERIAL_PATH}", request.method, request.path);
        broken.push(("push.request", what.chars().take(200).collect()));
    }
    let essence = request.media.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        broken.push(("push.request", "Content-Type is not application/json".to_owned()));
    }
    if !request.has_length {
        broken.push(("push.request", "there is no Content-Length".to_owned()));
    }
    let body: Body<'_> = serde_json::from_slice(request.body).unwrap_or_else(|_| {
        broken.push(("push.request", "the body is no JSON object with a string key_buffer".to_owned()));
        Body::default()
    });
    let status = body.status.as_ref().and_then(Value::as_u64);
    if status.is_none_or(|status| status > 8) {
        broken.push(("push.status", "status is missing, or none of 0 to 8".to_owned()));
    }
    let index = body.index.as_ref().and_then(Value::as_u64).and_then(|index| u32::try_from(index).ok());
    if index.is_none() {
        broken.push(("push.request", "index is missing, or no number of 32 bits".to_owned()));
    }
    let mut key = body.key_buffer.as_deref().and_then(|text| STANDARD.decode(text).ok());
    let octets = key.as_ref().map(Vec::len);
    match (octets, status) {
        (None, _) => broken.push(("push.key", "key_buffer is missing, or no base64".to_owned())),
        (Some(0), Some(0)) => broken.push(("push.status", "status 0 came without key".to_owned())),
        (Some(1..), Some(1..)) => {
            broken.push(("push.status", "key came with another status than 0".to_owned()));
        }
        _ => {}
    }
    let mut sum = [0; 32];
    if let Some(key) = &mut key {
        sum.copy_from_slice(digest(&SHA256, key).as_ref());
        key.zeroize();
    }
    if let Some(Cow::Owned(text)) = body.key_buffer {
        let mut text = text;
        text.zeroize();
    }
    let stream = metadata(body.metadata.as_ref(), request.body, &mut broken);
    Arrival { stream, index, status, digest: sum, octets, accepted: false, at: Instant::now(), broken }
}

/// The key stream that `metadata` names.
fn metadata(metadata: Option<&Value>, body: &[u8], broken: &mut Vec<(&'static str, String)>) -> Option<Uuid> {
    let mut wrong = |clause, why: String| broken.push((clause, why));
    let Some(metadata) = metadata else {
        wrong("push.metadata", "metadata is missing, so that nobody knows whose key it is".to_owned());
        return None;
    };
    let size = metadata.get("size").and_then(Value::as_u64);
    let (named, characters) = match metadata.get("buffer") {
        Some(Value::String(text)) => {
            wrong("push.metadata", "metadata.buffer is a string, and must be an object".to_owned());
            (serde_json::from_str(text).ok(), text.chars().count())
        }
        Some(buffer) => (Some(buffer.clone()), characters_of_buffer(body).unwrap_or_default()),
        None => (None, 0),
    };
    let stream = named.as_ref().and_then(|named| named.get("key_stream_id")?.as_str()?.parse().ok());
    if stream.is_none() {
        wrong("push.metadata", "metadata.buffer has no key_stream_id that is a UUID".to_owned());
    }
    match size {
        Some(size) if usize::try_from(size) == Ok(characters) => {}
        Some(size) => {
            let why = format!("metadata.size is {size}, and metadata.buffer has {characters} characters");
            wrong("push.metadata", why);
        }
        None => wrong("push.metadata", "metadata.size is missing, or no number".to_owned()),
    }
    if size != Some(USUAL_SIZE) {
        let size = size.map_or("missing".to_owned(), |size| size.to_string());
        wrong("push.size-57", format!("metadata.size is {size}"));
    }
    stream
}

/// Characters of the object `buffer` as it stands on the wire. It holds no other object.
fn characters_of_buffer(body: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, behind) = text.rsplit_once("\"buffer\"")?;
    let begun = behind.find('{')?;
    let length = behind.get(begun..)?.find('}')?;
    Some(behind.get(begun..=begun + length)?.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"status":0,"index":7,"key_buffer":"AAEC","metadata":{"size":57,"buffer":{"key_stream_id": "0b9c5b1a-6a04-4b8e-9a52-3a2f0f6c1d2e"}}}"#;

    fn look(body: &str) -> Arrival {
        let path = KEY_MATERIAL_PATH;
        let body = body.as_bytes();
        read(&Request { method: "POST", path, media: "application/json", has_length: true, body })
    }

    #[test]
    fn a_message_as_the_interface_wants_it_breaks_nothing() {
        let arrival = look(GOOD);
        assert_eq!((arrival.index, arrival.octets, arrival.status), (Some(7), Some(3), Some(0)));
        assert!(arrival.broken.is_empty() && arrival.stream.is_some(), "{arrival:?}");
        let notice = look(&GOOD.replace("AAEC", "").replace("\"status\":0", "\"status\":1"));
        assert!(notice.broken.is_empty(), "{notice:?}");
    }

    #[test]
    fn each_thing_that_is_wrong_is_laid_to_its_clause_and_no_key_is_quoted() {
        for (from, to, clause) in [
            ("\"status\":0", "\"status\":9", "push.status"),
            ("\"status\":0", "\"status\":2", "push.status"),
            ("AAEC", "", "push.status"),
            ("AAEC", "AAE*", "push.key"),
            ("\"AAEC\"", "5", "push.request"),
            ("\"index\":7", "\"index\":-7", "push.request"),
            ("57", "56", "push.metadata"),
            ("\": \"0b", "\":\"0b", "push.metadata"),
            ("key_stream_id", "key_stream", "push.metadata"),
            ("0b9c5b1a-", "", "push.metadata"),
        ] {
            let arrival = look(&GOOD.replace(from, to));
            assert!(arrival.broken.iter().any(|(broken, _)| *broken == clause), "{from} {to}: {arrival:?}");
            assert!(!arrival.broken.iter().any(|(_, why)| why.contains("AAE")), "{arrival:?}");
        }
        let compact = look(&GOOD.replace("\": \"0b", "\":\"0b").replace("57", "56"));
        assert!(matches!(compact.broken.as_slice(), [("push.size-57", _)]), "{compact:?}");
    }
}
