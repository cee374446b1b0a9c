//! A key stream as its first KMS sees it, before the other KMS has opened.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{CALLS, CHUNK, Probe, has, id_of, success};
use crate::conform::http::Reply;

const NEEDS_STREAM: &[&str] = &[
    "open.answer",
    "open.names",
    "open.registered-qos",
    "open.status-1",
    "open.again",
    "open.in-use",
    "get-key.before-peer",
    "get-key.metadata-size",
    "get-key.post",
    "close.success",
    "close.no-body",
    "close.remembered",
];
/// Characters of the metadata that key-material has.
const METADATA_SIZE: u64 = 57;

impl Probe<'_> {
    /// Opens, asks in vain, and closes.
    pub(super) fn one_end(&mut self) {
        let qos = json!({"key_chunk_size": CHUNK, "max_bps": 51_200, "ttl": 600});
        let opened = self.open(None, &qos);
        let id = opened.as_ref().ok().filter(|reply| reply.succeeded()).and_then(id_of);
        let kept = opened.as_ref().map_err(Clone::clone).and_then(success).and_then(|()| match id {
            Some(_) => Ok(()),
            None => Err("the answer has no key_stream_id that is a UUID".to_owned()),
        });
        self.book.judge("open.null-id", kept);
        if let (Some(id), Ok(reply)) = (id, opened) {
            self.look_at_open(&reply, &qos);
            self.again(id, &reply, &qos);
            self.in_vain(id);
            self.close(id, &qos);
        } else {
            self.book.skip(NEEDS_STREAM, "no stream could be opened (open.null-id)");
        }
        self.predefined(&qos);
        self.proposal();
    }

    fn look_at_open(&mut self, reply: &Reply, asked: &Value) {
        let body = reply.json().unwrap_or_default();
        let lacks = ["key_stream_id", "qos", "status"].into_iter().find(|member| body.get(member).is_none());
        self.book.judge("open.answer", lacks.map_or(Ok(()), |member| Err(format!("{member} is missing"))));
        let [source, destination] = &self.subject.names;
        let named = [("source", source), ("destination", destination)];
        let differs =
            named.into_iter().find(|(member, name)| body.get(member).and_then(Value::as_str) != Some(name));
        let kept = differs.map_or(Ok(()), |(member, _)| Err(format!("{member} is missing or another")));
        self.book.judge("open.names", kept);
        self.book.judge("open.registered-qos", registered(body.get("qos"), asked));
        let kept = if reply.status() == Some(1) { Ok(()) } else { Err(reply.shown()) };
        self.book.judge("open.status-1", kept);
    }

    fn again(&mut self, id: Uuid, first: &Reply, qos: &Value) {
        let wanted = first.json().unwrap_or_default();
        let kept = self.open(Some(id), qos).and_then(|reply| {
            success(&reply)?;
            let body = reply.json().unwrap_or_default();
            let differs =
                ["key_stream_id", "qos"].into_iter().find(|member| body.get(member) != wanted.get(member));
            differs.map_or(Ok(()), |member| Err(format!("{member} differs from the first answer")))
        });
        self.book.judge("open.again", kept);
        let kept =
            self.open(Some(id), &json!({"key_chunk_size": CHUNK * 2})).and_then(|reply| has(&reply, 400, 5));
        self.book.judge("open.in-use", kept);
    }

    /// get-key before the other KMS has opened.
    fn in_vain(&mut self, id: Uuid) {
        let body = json!({"key_stream_id": id});
        let before = self.call("GET", "get-key", &body);
        let kept = before.as_ref().map_err(Clone::clone).and_then(|reply| has(reply, 400, 3));
        self.book.judge("get-key.before-peer", kept);
        let post = self.call("POST", "get-key", &body);
        let kept = before.and_then(|get| {
            let post = post?;
            if (get.status, get.status()) == (post.status, post.status()) {
                Ok(())
            } else {
                Err(post.shown())
            }
        });
        self.book.judge("get-key.post", kept);
        for size in [1, 56] {
            let body = json!({"key_stream_id": id, "metadata": {"size": size, "buffer": ""}});
            let kept = self.call("GET", "get-key", &body).and_then(|reply| {
                has(&reply, 400, 8)?;
                let needed = reply.json().and_then(|body| body.pointer("/metadata/size")?.as_u64());
                match needed {
                    Some(needed) if needed >= METADATA_SIZE - 1 => Ok(()),
                    Some(needed) => Err(format!("the size that is needed is said to be {needed}")),
                    None => Err("metadata.size, which is needed, is missing".to_owned()),
                }
            });
            self.book.judge("get-key.metadata-size", kept.map_err(|why| format!("size {size}: {why}")));
        }
        for size in [0, METADATA_SIZE] {
            let body = json!({"key_stream_id": id, "metadata": {"size": size, "buffer": ""}});
            let kept = self
                .call("GET", "get-key", &body)
                .and_then(|reply| if reply.status() == Some(8) { Err(reply.shown()) } else { Ok(()) });
            self.book.judge("get-key.metadata-size", kept.map_err(|why| format!("size {size}: {why}")));
        }
    }

    /// Closes, with a request behind it on the same connection.
    fn close(&mut self, id: Uuid, qos: &Value) {
        let client = self.subject.end.client.clone();
        let body = json!({"key_stream_id": id}).to_string();
        let close = client.request("PUT", &format!("{CALLS}close"), body.as_bytes());
        let behind = client.request("GET", "/api/v1/kms/etsi004/conform", b"");
        let (mut closed, mut place) = (Err("no connection".to_owned()), Err("no connection".to_owned()));
        let until = self.until();
        if let Ok(mut connection) = client.connect()
            && connection.send(&[close, behind.clone()].concat(), until).is_ok()
        {
            closed = connection.reply(until).map_err(|why| why.to_string());
            place = connection.reply(until).map_err(|why| why.to_string());
        }
        if let Ok(reply) = &closed {
            self.inspect("close", reply);
        }
        let framed = |reply: &Reply| {
            let length = reply.field("content-length").is_some_and(|length| length != "0");
            if reply.status == 204 && (length || reply.field("transfer-encoding").is_some()) {
                return Err("204 announces a body".to_owned());
            }
            Ok(())
        };
        let alone = client.exchange(&behind).map_err(|why| why.to_string());
        let kept =
            closed.as_ref().map_err(Clone::clone).and_then(framed).and_then(|()| match (place, alone) {
                (Ok(reply), Ok(alone)) if reply.status == alone.status => Ok(()),
                (Ok(reply), _) => Err(format!("the answer behind it is {}", reply.shown())),
                (Err(why), _) => Err(format!("the answer behind it cannot be read: {why}")),
            });
        self.book.judge("close.no-body", kept);
        let kept = closed.and_then(|reply| match (reply.status, reply.status()) {
            (204, _) | (200, Some(0)) => Ok(()),
            _ => Err(reply.shown()),
        });
        self.book.judge("close.success", kept);
        for qos in [qos.clone(), json!({})] {
            let kept = self.open(Some(id), &qos).and_then(|reply| has(&reply, 400, 5));
            self.book.judge("close.remembered", kept);
        }
    }

    fn predefined(&mut self, qos: &Value) {
        let id = Uuid::new_v4();
        let opened = self.open(Some(id), qos);
        let kept = opened.and_then(|reply| {
            success(&reply)?;
            if id_of(&reply) == Some(id) {
                Ok(())
            } else {
                Err("the answer has another key_stream_id".to_owned())
            }
        });
        let is_open = kept.is_ok();
        self.book.judge("open.predefined", kept);
        if !is_open {
            return self.book.skip(&["close.post"], "no stream could be opened (open.predefined)");
        }
        let kept =
            self.call("POST", "close", &json!({"key_stream_id": id})).and_then(|reply| success(&reply));
        self.book.judge("close.post", kept);
        self.tidy(id);
    }

    /// What status 7 proposes can be had.
    fn proposal(&mut self) {
        const CLAUSE: &str = "open.proposal-holds";
        let asked = json!({"key_chunk_size": u32::MAX, "max_bps": 51_200});
        let proposal = self.open(None, &asked).ok().and_then(|reply| reply.json()?.get("qos").cloned());
        let Some(qos) = proposal.filter(Value::is_object) else {
            return self.book.skip(&[CLAUSE], "there was no counter-proposal (open.too-large)");
        };
        let opened = self.open(None, &qos);
        let kept = opened.and_then(|reply| {
            if let Some(id) = id_of(&reply) {
                self.tidy(id);
            }
            success(&reply)
        });
        self.book.judge(CLAUSE, kept);
    }
}

/// That a registered qos is whole, and is what was asked for.
pub(super) fn registered(qos: Option<&Value>, asked: &Value) -> Result<(), String> {
    let Some(Value::Object(qos)) = qos else { return Err("qos is no object".to_owned()) };
    for member in ["key_chunk_size", "max_bps", "min_bps", "jitter", "priority", "timeout", "ttl"] {
        let value = qos.get(member).and_then(Value::as_u64).filter(|value| *value <= u64::from(u32::MAX));
        if value.is_none() {
            return Err(format!("qos.{member} is missing, or no number of 32 bits"));
        }
    }
    match qos.get("metadata_mimetype").and_then(Value::as_str) {
        Some("application/json") => {}
        _ => return Err("qos.metadata_mimetype is not \"application/json\"".to_owned()),
    }
    // The rates are the closest that can be had; the size of a chunk is taken as it is or refused with status 7.
    match (qos.get("key_chunk_size"), asked.get("key_chunk_size")) {
        (Some(has), Some(asked)) if has != asked => {
            Err(format!("key_chunk_size is {has} instead of {asked}"))
        }
        _ => Ok(()),
    }
}
