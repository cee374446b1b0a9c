//! A key stream between both KMSs, whose keys arrive at endpoints that the probe plays.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use super::clauses::BOTH;
use super::one_end::registered;
use super::{AGAIN, CALLS, CHUNK, End, Probe, has, id_of, success};
use crate::conform::desk::{Arrival, Desk};
use crate::conform::http::Reply;
use crate::conform::server::Server;

/// Watched for what must not come.
pub(super) const QUIET: Duration = Duration::from_millis(600);
/// Chunks that are looked at before anything else.
const CHUNKS: usize = 8;
/// Clauses that are judged by every message.
const EVERY_MESSAGE: &[&str] = &["push.request", "push.status", "push.key", "push.metadata", "push.size-57"];

/// A stream under way.
pub(super) struct Running<'a> {
    pub(super) id: Uuid,
    pub(super) other: &'a End,
    /// Endpoint of the KMS at the probed module, and at the other.
    pub(super) desks: [Arc<Desk>; 2],
}

impl Probe<'_> {
    /// Everything for which key must flow.
    pub(super) fn both_ends(&mut self, other: &End) {
        let desks = [Arc::new(Desk::new()), Arc::new(Desk::new())];
        let mut servers = Vec::new();
        for (end, desk) in [&self.subject.end, other].into_iter().zip(&desks) {
            let Some(listen) = end.listen else { continue };
            let tls = end.secure.as_ref().map(|secure| Arc::clone(&secure.server));
            match Server::start(listen, tls, Arc::clone(desk) as _) {
                Ok(server) => servers.push(server),
                Err(why) => {
                    return self.book.skip(BOTH, &format!("the probe cannot listen on {listen}: {why}"));
                }
            }
        }
        let qos = json!({"key_chunk_size": CHUNK, "max_bps": 51_200, "ttl": 600});
        let Some(id) = self.open(None, &qos).ok().filter(Reply::succeeded).as_ref().and_then(id_of) else {
            return self.book.skip(BOTH, "no stream could be opened (open.null-id)");
        };
        let running = Running { id, other, desks };
        if self.join(&running, &qos) && self.start(&running) {
            self.first_chunks(&running);
            self.same_key(&running);
            self.troubles(&running);
            self.delivered(&running);
            self.ending(&running);
        }
        self.tidy(id);
        self.later_index(&running, &qos);
        self.every_message(&running);
        drop(servers);
    }

    fn at(&self, end: &End, method: &str, call: &str, body: &Value) -> Result<Reply, String> {
        let request = end.client.request(method, &format!("{CALLS}{call}"), body.to_string().as_bytes());
        end.client.exchange(&request).map_err(|why| why.to_string())
    }

    /// Asks until the answer is as it should be, or the deadline has passed.
    fn until_ok(
        &self,
        mut ask: impl FnMut() -> Result<Reply, String>,
        wanted: impl Fn(&Reply) -> bool,
    ) -> Result<Reply, String> {
        let until = self.until();
        loop {
            let reply = ask()?;
            if wanted(&reply) || Instant::now() > until {
                return Ok(reply);
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// The other KMS opens, with another qos.
    fn join(&mut self, running: &Running<'_>, qos: &Value) -> bool {
        let other_qos = json!({"key_chunk_size": CHUNK * 2, "priority": 3, "ttl": 60});
        let body = self.open_body(Some(running.id), &other_qos);
        let joined =
            self.until_ok(|| self.at(running.other, "POST", "open-connect", &body), Reply::succeeded);
        let kept = joined.as_ref().map_err(Clone::clone).and_then(|reply| {
            success(reply)?;
            if reply.status() == Some(0) {
                Ok(())
            } else {
                Err(format!("at the other module: {}", reply.shown()))
            }
        });
        let joins = joined.as_ref().is_ok_and(Reply::succeeded);
        self.book.judge("open.status-0", kept);
        if !joins {
            self.book.skip(BOTH, "the other KMS could not open the stream (open.status-0)");
            return false;
        }
        let joined = joined.ok().and_then(|reply| reply.json()).unwrap_or_default();
        self.book.judge("open.joins", registered(joined.get("qos"), qos));
        let body = self.open_body(Some(running.id), qos);
        let again = self.until_ok(
            || self.at(&self.subject.end, "POST", "open-connect", &body),
            |reply| reply.status() == Some(0),
        );
        let kept = again.and_then(|reply| match (success(&reply), reply.status()) {
            (Ok(()), Some(0)) => Ok(()),
            _ => Err(format!("at the probed module: {}", reply.shown())),
        });
        self.book.judge("open.status-0", kept);
        true
    }

    /// Both KMSs send get-key.
    fn start(&mut self, running: &Running<'_>) -> bool {
        let body = json!({"key_stream_id": running.id});
        let reply = self.call("GET", "get-key", &body);
        let kept = reply.and_then(|reply| got_key(&reply));
        let mut started = kept.is_ok();
        self.book.judge("get-key.success", kept);
        let early = running.desks.iter().any(|desk| {
            let came = |seen: &[Arrival]| seen.iter().any(|a| a.is_chunk_of(running.id)).then_some(());
            desk.wait(0, Instant::now() + QUIET, came).is_some()
        });
        let why = "key came although the other KMS had not sent get-key".to_owned();
        self.book.judge("push.both", if early { Err(why) } else { Ok(()) });
        let other = self.until_ok(|| self.at(running.other, "GET", "get-key", &body), Reply::succeeded);
        started &= other.as_ref().is_ok_and(Reply::succeeded);
        if !started {
            let why = "get-key did not succeed at both modules (get-key.success)";
            self.book.skip(BOTH, why);
        }
        started
    }

    fn first_chunks(&mut self, running: &Running<'_>) {
        for (place, desk) in ["the probed module", "the other module"].into_iter().zip(&running.desks) {
            let first = desk.wait(0, self.until(), |seen| {
                let chunks: Vec<u32> =
                    seen.iter().filter(|a| a.is_chunk_of(running.id)).filter_map(|a| a.index).collect();
                (chunks.len() >= CHUNKS).then(|| chunks.first().copied())
            });
            let kept = match first {
                None => Err(format!("{place} has not pushed {CHUNKS} chunks in time")),
                Some(_) => Ok(()),
            };
            self.book.judge("push.starts", kept);
            if let Some(first) = first {
                let kept = if first == Some(0) { Ok(()) } else { Err(format!("it is {first:?} at {place}")) };
                self.book.judge("push.first", kept);
            }
        }
    }

    fn same_key(&mut self, running: &Running<'_>) {
        let [here, there] = &running.desks;
        let keys = |desk: &Desk| -> Vec<(u32, [u8; 32])> {
            desk.look(0, |seen| {
                let chunks = seen.iter().filter(|a| a.is_chunk_of(running.id));
                chunks.filter_map(|a| Some((a.index?, a.digest))).collect()
            })
        };
        let (here, there) = (keys(here), keys(there));
        let mut common = 0_usize;
        let mut differs = None;
        for (index, digest) in &here {
            if let Some((_, other)) = there.iter().find(|(other, _)| other == index) {
                common += 1;
                if other != digest {
                    differs.get_or_insert(*index);
                }
            }
        }
        let kept = match differs {
            Some(index) => Err(format!("index {index} is other key at the other end")),
            None if common < CHUNKS => Err(format!("only {common} indexes came to both ends")),
            None => Ok(()),
        };
        self.book.judge("push.same-key", kept);
    }

    /// An index that was delivered is asked for.
    fn delivered(&mut self, running: &Running<'_>) {
        let body = json!({"key_stream_id": running.id, "index": 0});
        let kept = self.call("GET", "get-key", &body).and_then(|reply| has(&reply, 500, 2));
        let desk = &running.desks[0];
        let from = desk.count();
        let goes_on = desk.wait(from, self.until(), |seen| {
            seen.iter().any(|a| a.is_chunk_of(running.id) && a.index != Some(0)).then_some(())
        });
        let kept = kept.and_then(|()| goes_on.ok_or_else(|| "the stream does not go on".to_owned()));
        self.book.judge("get-key.delivered", kept);
    }

    /// The other KMS closes, then this one.
    fn ending(&mut self, running: &Running<'_>) {
        let desk = &running.desks[0];
        let from = desk.count();
        let body = json!({"key_stream_id": running.id});
        let closed = self.at(running.other, "PUT", "close", &body);
        let notice = desk.wait(from, self.until(), |seen| {
            seen.iter().find(|a| a.is_notice_of(running.id) && a.status == Some(1)).cloned()
        });
        let kept = match (closed, notice) {
            (Err(why), _) => Err(format!("close at the other module: {why}")),
            (Ok(_), None) => Err("none came".to_owned()),
            (Ok(_), Some(_)) => Ok(()),
        };
        self.book.judge("notice.closed", kept);
        let closed = self.call("PUT", "close", &body).and_then(|reply| success(&reply));
        // What the module had sent before it answered may still be read here.
        std::thread::sleep(QUIET / 2);
        let from = desk.count();
        std::thread::sleep(QUIET);
        let late = desk.look(from, |seen| seen.iter().any(|a| a.is_chunk_of(running.id)));
        let kept = if late { Err("a chunk came after close was answered".to_owned()) } else { Ok(()) };
        self.book.judge("close.stops", closed.and(kept));
    }

    /// A second stream, whose KMSs want it from different indexes on.
    fn later_index(&mut self, running: &Running<'_>, qos: &Value) {
        const CLAUSE: &str = "get-key.index";
        const WANTED: [u32; 2] = [5, 9];
        let Some(id) = self.open(None, qos).ok().filter(Reply::succeeded).as_ref().and_then(id_of) else {
            return self.book.skip(&[CLAUSE], "no second stream could be opened");
        };
        let body = self.open_body(Some(id), &json!({}));
        let joined =
            self.until_ok(|| self.at(running.other, "POST", "open-connect", &body), Reply::succeeded);
        let mut kept = joined.and_then(|reply| success(&reply));
        for (end, index) in [&self.subject.end, running.other].into_iter().zip(WANTED) {
            let body = json!({"key_stream_id": id, "index": index});
            let asked = self.until_ok(|| self.at(end, "GET", "get-key", &body), Reply::succeeded);
            kept = kept.and_then(|()| asked.and_then(|reply| success(&reply)));
        }
        for desk in &running.desks {
            let first = kept.is_ok().then(|| {
                desk.wait(0, self.until(), |seen| {
                    seen.iter().find(|a| a.is_chunk_of(id)).and_then(|a| a.index)
                })
            });
            kept = kept.and_then(|()| match first.flatten() {
                Some(9) => Ok(()),
                Some(first) => Err(format!("the first index is {first}, and 5 and 9 were asked for")),
                None => Err("no chunk came".to_owned()),
            });
        }
        self.book.judge(CLAUSE, kept);
        self.tidy(id);
    }

    /// What every message must be, and the order of a whole stream.
    fn every_message(&mut self, running: &Running<'_>) {
        let mut any = false;
        for desk in &running.desks {
            let all = desk.look(0, <[Arrival]>::to_vec);
            any |= !all.is_empty();
            for (clause, why) in all.iter().flat_map(|arrival| &arrival.broken) {
                self.book.judge(clause, Err(why.clone()));
            }
            let odd = all.iter().find(|a| {
                a.is_chunk_of(running.id) && a.octets.is_some_and(|octets| u32::try_from(octets) != Ok(CHUNK))
            });
            let kept =
                odd.map_or(Ok(()), |a| Err(format!("a chunk has {:?} octets, and not {CHUNK}", a.octets)));
            self.book.judge("push.key", kept);
            let (order, octets) = course(&all, running.id);
            self.book.judge("push.order", order);
            self.book.judge("push.same-octets", octets);
        }
        if any {
            for clause in EVERY_MESSAGE {
                self.book.judge(clause, Ok(()));
            }
        } else {
            self.book.skip(EVERY_MESSAGE, "no message came");
        }
    }
}

/// Whether chunks came for the first time in order, and again as they were.
fn course(all: &[Arrival], id: Uuid) -> (Result<(), String>, Result<(), String>) {
    let mut seen: Vec<(u32, [u8; 32])> = Vec::new();
    let (mut order, mut octets) = (Ok(()), Ok(()));
    for arrival in all.iter().filter(|a| a.is_chunk_of(id)) {
        let Some(index) = arrival.index else { continue };
        if let Some((_, digest)) = seen.iter().find(|(known, _)| *known == index) {
            if *digest != arrival.digest {
                octets = Err(format!("index {index} came again with other octets"));
            }
            continue;
        }
        if let Some((last, _)) = seen.last().filter(|(last, _)| last.wrapping_add(1) != index)
            && order.is_ok()
        {
            order = Err(format!("index {index} came after {last}"));
        }
        seen.push((index, arrival.digest));
    }
    (order, octets)
}

/// That get-key succeeded, and how it is told.
fn got_key(reply: &Reply) -> Result<(), String> {
    if !matches!(reply.status, 200 | 205) || reply.status() != Some(0) {
        return Err(reply.shown());
    }
    let length = reply.field("content-length").and_then(|length| length.parse::<usize>().ok());
    if length == Some(reply.body.len()) {
        Ok(())
    } else {
        Err("it has a body without Content-Length".to_owned())
    }
}
