//! The module that the probe plays, so that a KMS under test can open a key stream as it always does.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::conform::module::CALLS;
use crate::conform::server::{Request, Respond, Serve};

/// Octets of a chunk when the KMS leaves them to the module.
const CHUNK: u32 = 32;
/// Largest chunk that the played module gives.
const LARGEST: u64 = 65_536;

/// A stream that the KMS has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) id: Uuid,
    pub(super) chunk_size: u32,
    /// First index that was asked for.
    pub(super) index: u32,
}

/// What the KMS has called so far.
#[derive(Debug, Default)]
pub(super) struct Played {
    inside: Mutex<Calls>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Calls {
    opened: Option<Opened>,
    asked: bool,
    /// Clauses that calls have kept or broken.
    found: Vec<(&'static str, Result<(), String>)>,
}

impl Played {
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the KMS has opened a stream and asked for its key.
    pub(super) fn wait(&self, until: Instant) -> Option<Opened> {
        let mut inside = self.lock();
        loop {
            if inside.asked {
                return inside.opened;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            inside = self.changed.wait_timeout(inside, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What has been found of the KMS's calls.
    pub(super) fn found(&self) -> Vec<(&'static str, Result<(), String>)> {
        self.lock().found.clone()
    }
}

impl Calls {
    fn open(&mut self, body: &Value) -> Respond {
        let refuse = |why: &str| Respond::json(400, json!({"status": 5, "detail": why}));
        let text = |member: &str| body.get(member).and_then(Value::as_str);
        let (Some(source), Some(destination)) = (text("source"), text("destination")) else {
            return refuse("source and destination must be URIs");
        };
        let asked = match body.get("key_stream_id") {
            Some(Value::Null) => None,
            Some(Value::String(id)) => match id.parse::<Uuid>() {
                Ok(id) => Some(id),
                Err(_) => return refuse("key_stream_id must be a UUID or null"),
            },
            _ => return refuse("key_stream_id must be a UUID or null"),
        };
        let Some(Value::Object(qos)) = body.get("qos") else { return refuse("qos must be an object") };
        let size = qos.get("key_chunk_size").and_then(Value::as_u64).unwrap_or(u64::from(CHUNK));
        let Some(chunk_size) = u32::try_from(size).ok().filter(|_| (1..=LARGEST).contains(&size)) else {
            return refuse("qos.key_chunk_size must be from 1 to 65536");
        };
        let opened = match self.opened {
            Some(opened) if asked.is_none_or(|id| id == opened.id) => opened,
            Some(_) => return refuse("the probe takes one key stream"),
            None => Opened { id: asked.unwrap_or_else(Uuid::new_v4), chunk_size, index: 0 },
        };
        self.opened = Some(opened);
        let status = if asked.is_some() { 0 } else { 1 };
        Respond::json(
            201,
            json!({"source": source, "destination": destination, "key_stream_id": opened.id, "status": status,
                "qos": {"key_chunk_size": opened.chunk_size, "max_bps": u32::MAX, "min_bps": 0, "jitter": 0,
                    "priority": 0, "timeout": 5000, "ttl": 3600, "metadata_mimetype": "application/json"}}),
        )
    }

    fn get_key(&mut self, body: &Value) -> Respond {
        let id = body.get("key_stream_id").and_then(Value::as_str).and_then(|id| id.parse::<Uuid>().ok());
        match &mut self.opened {
            Some(opened) if id == Some(opened.id) => {
                let index = body.get("index").and_then(Value::as_u64);
                opened.index = index.and_then(|index| u32::try_from(index).ok()).unwrap_or(0);
                self.asked = true;
                Respond::json(205, r#"{"status":0}"#)
            }
            _ => Respond::json(
                400,
                json!({"status": 3, "detail": "key_stream_id is none that the probe has given"}),
            ),
        }
    }
}

impl Serve for Played {
    fn answer(&self, request: &Request<'_>) -> Respond {
        let call = request.path.rsplit_once(CALLS).map_or("", |(_, call)| call);
        let body: Option<Value> = serde_json::from_slice(request.body).ok();
        let essence = request.media.split(';').next().unwrap_or_default().trim();
        let mut inside = self.lock();
        let (clause, methods, answer) = match call {
            "open-connect" => {
                ("open.request", &["POST"][..], inside.open(body.as_ref().unwrap_or(&Value::Null)))
            }
            "get-key" => (
                "get-key.request",
                &["GET", "POST"][..],
                inside.get_key(body.as_ref().unwrap_or(&Value::Null)),
            ),
            "close" => return Respond::With { status: 204, fields: String::new(), body: String::new() },
            _ => return Respond::json(404, json!({"status": 4, "detail": "this path is unknown"})),
        };
        let kept = if !methods.contains(&request.method) {
            Err(format!("its method is {}", request.method.chars().take(20).collect::<String>()))
        } else if body.is_none() {
            Err("its body is no JSON".to_owned())
        } else if !essence.eq_ignore_ascii_case("application/json") {
            Err("its Content-Type is not application/json".to_owned())
        } else {
            match &answer {
                Respond::With { status, body, .. } if *status >= 400 => {
                    let detail: Value = serde_json::from_str(body).unwrap_or_default();
                    Err(detail.get("detail").and_then(Value::as_str).unwrap_or("it was refused").to_owned())
                }
                _ => Ok(()),
            }
        };
        if inside.found.len() < 1_000 {
            inside.found.push((clause, kept));
        }
        drop(inside);
        self.changed.notify_all();
        answer
    }
}
