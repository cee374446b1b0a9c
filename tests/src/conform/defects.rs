//! Planted defects of a module.

use std::collections::HashMap;

use base64_turbo::STANDARD;
use serde_json::{Value, json};

use super::{Message, Spoil, follow};

/// A planted defect of a module: what is done to its answers or pushes.
pub struct Planted {
    /// In words.
    pub what: &'static str,
    /// The clause that it breaks.
    pub clause: &'static str,
    /// What else cannot be right then.
    pub besides: &'static [&'static str],
    /// What is done.
    pub spoil: Spoil,
}

fn answer(
    what: &'static str,
    clause: &'static str,
    besides: &'static [&'static str],
    spoil: fn(&Message, &mut Message),
) -> Planted {
    Planted { what, clause, besides, spoil: Spoil { answer: Some(spoil), request: None } }
}

fn push(
    what: &'static str,
    clause: &'static str,
    besides: &'static [&'static str],
    spoil: fn(&mut Message, &HashMap<u64, u32>),
) -> Planted {
    Planted { what, clause, besides, spoil: Spoil { request: Some(spoil), answer: None } }
}

/// The answer's body with something done to it.
fn change(message: &mut Message, change: impl FnOnce(&mut Value)) {
    let mut body = message.json();
    change(&mut body);
    message.set_body(body);
}

fn says(answer: &Message, words: &str) -> bool {
    answer.json()["detail"].as_str().is_some_and(|detail| detail.contains(words))
}

/// Defects of the module's answers, for which no key must flow.
#[must_use]
pub fn of_answers() -> Vec<Planted> {
    vec![
        answer("status 7 with 400", "open.too-large", &[], |_, answer| {
            if answer.json()["status"] == 7 {
                answer.set_status(400);
            }
        }),
        answer("a body behind 204", "close.no-body", &[], |_, answer| {
            if answer.status() == 204 {
                answer.set_body("{\"status\":0}");
            }
        }),
        answer("no status in refusals of a path", "answer.status", &[], |_, answer| {
            if answer.status() == 404 {
                answer.set_body("{}");
            }
        }),
        Planted {
            what: "opens without qos",
            clause: "open.qos",
            besides: &[],
            spoil: Spoil {
                request: Some(|request, _| {
                    if request.calls("open-connect")
                        && request.json().get("qos").is_none()
                        && request.json().is_object()
                    {
                        change(request, |body| body["qos"] = json!({}));
                    }
                }),
                answer: None,
            },
        },
        answer(
            "close of an unknown stream with status 3",
            "close.unknown",
            &["open.no-stream-left"],
            |request, answer| {
                let named = request.json()["key_stream_id"].as_str().is_some_and(|id| id.len() == 36);
                if request.calls("close") && answer.status() == 400 && named {
                    change(answer, |body| body["status"] = json!(3));
                }
            },
        ),
        answer("get-key before the other KMS", "get-key.before-peer", &[], |_, answer| {
            if says(answer, "at the other end") && answer.json()["status"] == 3 {
                *answer = Message::answer(205, json!({"status": 0}));
            }
        }),
        answer("forgets closed streams", "close.remembered", &[], |request, answer| {
            if request.calls("open-connect") && (says(answer, "was closed") || says(answer, "being closed")) {
                let id = request.json()["key_stream_id"].clone();
                *answer = Message::answer(201, json!({"key_stream_id": id, "qos": {}, "status": 1}));
            }
        }),
        answer("no size with status 8", "get-key.metadata-size", &[], |_, answer| {
            if answer.json()["status"] == 8 {
                change(answer, |body| drop(body.as_object_mut().map(|body| body.remove("metadata"))));
            }
        }),
        answer("another qos at the second open", "open.again", &[], |request, answer| {
            if request.calls("open-connect")
                && !request.json()["key_stream_id"].is_null()
                && answer.status() == 201
            {
                change(answer, |body| body["qos"]["ttl"] = json!(1));
            }
        }),
        answer("refusals as text", "answer.media-type", &[], |_, answer| {
            answer.head = answer.head.replace("application/json", "text/plain");
        }),
        answer("200 for close alone", "answer.profile", &[], |_, answer| {
            if answer.status() == 204 {
                answer.set_status(200);
                answer.head.push_str("\r\nContent-Type: application/json");
                answer.set_body("{\"status\":0}");
            }
        }),
        answer("another chunk size than asked for", "open.registered-qos", &[], |request, answer| {
            if request.calls("open-connect") && answer.status() == 201 {
                change(answer, |body| body["qos"]["key_chunk_size"] = json!(16));
            }
        }),
    ]
}

/// Turns the key in a message into other key.
fn other_key(message: &mut Message) {
    change(message, |body| {
        let key = STANDARD.decode(body["key_buffer"].as_str().unwrap_or_default()).unwrap_or_default();
        let other: Vec<u8> = key.iter().map(|octet| octet ^ 1).collect();
        body["key_buffer"] = json!(STANDARD.encode(other));
    });
    spaced(message);
}

/// The one space that a JSON library does not write.
fn spaced(message: &mut Message) {
    let text =
        String::from_utf8_lossy(&message.body).replace("\"key_stream_id\":\"", "\"key_stream_id\": \"");
    message.set_body(text);
}

/// Defects of what a module pushes.
#[must_use]
pub fn of_pushes() -> Vec<Planted> {
    const AGAIN: &[&str] = &[
        "push.again-503",
        "push.again-429",
        "push.again-late",
        "push.again-broken",
        "push.suspended",
        "push.redirect",
    ];
    vec![
        push("other octets when a chunk comes again", "push.same-octets", AGAIN, |request, passed| {
            let index = request.json()["index"].as_u64().unwrap_or_default();
            if passed.contains_key(&index) {
                other_key(request);
            }
        }),
        push("other key at this end", "push.same-key", &[], |request, _| other_key(request)),
        push("a size that is none", "push.metadata", &[], |request, _| {
            request.set_body(String::from_utf8_lossy(&request.body).replace("\"size\":57", "\"size\":58"));
        }),
        push("indexes from 1", "push.first", &["push.same-key", "get-key.index"], |request, _| {
            change(request, |body| body["index"] = json!(body["index"].as_u64().unwrap_or_default() + 1));
            spaced(request);
        }),
        Planted {
            what: "follows redirects",
            clause: "push.redirect",
            // What was led elsewhere may be missing afterwards.
            besides: &["get-key.delivered"],
            spoil: Spoil { request: None, answer: Some(follow) },
        },
        answer("does not know Retry-After", "push.retry-after", &[], |_, answer| {
            answer.remove("retry-after")
        }),
        answer("takes 400 for 503", "push.suspended", &[], |_, answer| {
            if answer.status() == 400 {
                answer.set_status(503);
            }
        }),
    ]
}
