//! Probes a QKD module: the probe is a KMS, or the KMSs of both ends.

mod both;
mod clauses;
mod one_end;
mod refusals;
mod troubles;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use super::book::Book;
use super::http::{Client, Reply};
use super::tell;
use super::wire::Secure;

pub(crate) use self::clauses::CLAUSES;

/// Path of a call, before its name.
pub(super) const CALLS: &str = "/api/v1/kms/etsi004/";
/// Between two attempts of a call that will succeed a little later.
const AGAIN: Duration = Duration::from_millis(100);
/// Octets of a chunk on the streams of the probe.
const CHUNK: u32 = 32;

/// A module, and the KMS that the probe is there.
#[derive(Debug)]
pub(super) struct End {
    pub(super) client: Client,
    /// Where the module pushes key for this KMS.
    pub(super) listen: Option<SocketAddr>,
    pub(super) secure: Option<Secure>,
}

/// What is probed, and as whom.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) end: End,
    /// The module at the other end of the link.
    pub(super) other: Option<End>,
    /// URI of the KMS at the probed module, and at the other.
    pub(super) names: [String; 2],
    /// Longest wait for anything.
    pub(super) deadline: Duration,
}

/// The probe at work.
#[derive(Debug)]
pub(super) struct Probe<'a> {
    pub(super) subject: &'a Subject,
    pub(super) book: &'a mut Book,
    /// HTTP statuses of successes so far, by the call: whether one profile explains all.
    successes: Vec<(&'static str, u16)>,
}

/// Probes everything that can be.
pub(super) fn probe(subject: &Subject, book: &mut Book) {
    let mut probe = Probe { subject, book, successes: Vec::new() };
    if !probe.reach() {
        return;
    }
    probe.client_certificate();
    probe.refusals();
    probe.one_end();
    match (&subject.other, subject.end.listen) {
        (Some(other), Some(_)) if other.listen.is_some() => probe.both_ends(other),
        _ => {
            let why = "needs both modules (--other), and the addresses at which they push key to the probe (--listen, \
                       --other-listen)";
            probe.book.skip(clauses::BOTH, why);
        }
    }
    probe.profile();
}

impl Probe<'_> {
    fn until(&self) -> Instant {
        Instant::now() + self.subject.deadline
    }

    /// Whether there is anybody who speaks HTTP.
    fn reach(&mut self) -> bool {
        let client = &self.subject.end.client;
        client.come_up(tell);
        let answer = client.exchange(&client.request("GET", "/", b""));
        let reached = answer.is_ok();
        self.book.judge("reach", answer.map(drop).map_err(|why| why.to_string()));
        if !reached {
            self.book.skip(clauses::ALONE, "the module cannot be reached");
        }
        reached
    }

    fn client_certificate(&mut self) {
        let end = &self.subject.end;
        let Some(secure) = end.secure.as_ref().filter(|_| end.client.tls.is_some()) else {
            return self.book.skip(&["tls.client"], "the URL is not https");
        };
        let nameless = Client { tls: Some(secure.nameless.clone()), ..end.client.clone() };
        let answer = nameless.exchange(&nameless.request("GET", "/", b""));
        let kept = match answer {
            Err(_) => Ok(()),
            Ok(reply) => Err(format!("it was answered with {}", reply.shown())),
        };
        self.book.judge("tls.client", kept);
    }

    /// Makes a call at the probed module.
    fn call(&mut self, method: &str, call: &'static str, body: &Value) -> Result<Reply, String> {
        let client = &self.subject.end.client;
        let request = client.request(method, &format!("{CALLS}{call}"), body.to_string().as_bytes());
        self.exchange(call, &request)
    }

    /// Sends a request to the probed module over a connection of its own, and looks at what every answer must be.
    fn exchange(&mut self, call: &'static str, request: &[u8]) -> Result<Reply, String> {
        let reply = self.subject.end.client.exchange(request).map_err(|why| why.to_string())?;
        self.inspect(call, &reply);
        Ok(reply)
    }

    fn inspect(&mut self, call: &'static str, reply: &Reply) {
        if reply.succeeded() {
            self.successes.push((call, reply.status));
        }
        if reply.body.is_empty() {
            return;
        }
        let status = match reply.status() {
            Some(0..=8) => Ok(()),
            Some(other) => Err(format!("{call}: status {other}")),
            None => Err(format!("{call}: {}", reply.shown())),
        };
        self.book.judge("answer.status", status);
        let media = reply.field("content-type").unwrap_or_default();
        let essence = media.split(';').next().unwrap_or_default().trim();
        let kept = if essence.eq_ignore_ascii_case("application/json") {
            Ok(())
        } else {
            Err(format!("{call}: HTTP {} has Content-Type {media:?}", reply.status))
        };
        self.book.judge("answer.media-type", kept);
    }

    /// Whether all successes are of one profile.
    fn profile(&mut self) {
        let fits = |[open, get_key, close]: [u16; 3]| {
            self.successes.iter().all(|(call, http)| match *call {
                "open-connect" => *http == open,
                "get-key" => *http == get_key,
                "close" => *http == close,
                _ => true,
            })
        };
        let kept = if self.successes.is_empty() {
            return self.book.skip(&["answer.profile"], "no call has succeeded");
        } else if fits([201, 205, 204]) || fits([200, 200, 200]) {
            Ok(())
        } else {
            let mut seen = self.successes.clone();
            seen.sort_unstable();
            seen.dedup();
            let seen: Vec<String> = seen.iter().map(|(call, http)| format!("{http} at {call}")).collect();
            Err(format!("success was told by {}", seen.join(", ")))
        };
        self.book.judge("answer.profile", kept);
    }

    /// The body of an open-connect.
    fn open_body(&self, id: Option<Uuid>, qos: &Value) -> Value {
        let [source, destination] = &self.subject.names;
        json!({"source": source, "destination": destination, "key_stream_id": id, "qos": qos})
    }

    /// Opens at the probed module; while the link or the other module is not up, again.
    fn open(&mut self, id: Option<Uuid>, qos: &Value) -> Result<Reply, String> {
        let (body, until) = (self.open_body(id, qos), self.until());
        loop {
            let reply = self.call("POST", "open-connect", &body)?;
            let passes = matches!(reply.status(), Some(4 | 6)) || reply.status == 503;
            if !passes || Instant::now() > until {
                return Ok(reply);
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Closes a stream; what comes of it is nobody's concern here.
    fn tidy(&self, id: Uuid) {
        let body = json!({"key_stream_id": id}).to_string();
        for end in [Some(&self.subject.end), self.subject.other.as_ref()].into_iter().flatten() {
            let _ =
                end.client.exchange(&end.client.request("PUT", &format!("{CALLS}close"), body.as_bytes()));
        }
    }
}

/// That a reply is a success.
fn success(reply: &Reply) -> Result<(), String> {
    if reply.succeeded() { Ok(()) } else { Err(reply.shown()) }
}

/// That a reply has these statuses.
fn has(reply: &Reply, http: u16, status: u64) -> Result<(), String> {
    if (reply.status, reply.status()) == (http, Some(status)) { Ok(()) } else { Err(reply.shown()) }
}

/// The key stream ID in an answer.
fn id_of(reply: &Reply) -> Option<Uuid> {
    reply.json()?.get("key_stream_id")?.as_str()?.parse().ok()
}
