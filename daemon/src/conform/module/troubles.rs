//! A KMS in trouble, and what the module does about the chunk that it was sending.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Probe;
use super::both::{QUIET, Running};
use crate::conform::desk::{Arrival, Desk, Mode};
use crate::conform::server::Server;

/// Asked for with Retry-After.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Clocks of sender and receiver are the same; only their reading takes time.
const READING: Duration = Duration::from_millis(50);

impl Probe<'_> {
    pub(super) fn troubles(&mut self, running: &Running<'_>) {
        let refuse = |status, fields: &str| Mode::Refuse(status, fields.to_owned());
        let _ = self.trouble(running, "push.again-503", refuse(503, ""));
        let waited = self.trouble(running, "push.again-429", refuse(429, "Retry-After: 1\r\n"));
        match waited {
            None => self.book.skip(&["push.retry-after"], "no chunk came again (push.again-429)"),
            Some(waited) if waited + READING >= RETRY_AFTER => self.book.judge("push.retry-after", Ok(())),
            Some(waited) => {
                let why = format!("it came again after {} ms, and 1 s was asked for", waited.as_millis());
                self.book.judge("push.retry-after", Err(why));
            }
        }
        let _ = self.trouble(running, "push.again-broken", Mode::BreakOnce);
        let _ = self.trouble(running, "push.again-late", Mode::HangOnce);
        self.suspended(running);
        self.redirect(running);
    }

    /// Makes trouble for a chunk, and gives after what time it came again.
    fn trouble(&mut self, running: &Running<'_>, clause: &str, mode: Mode) -> Option<Duration> {
        let desk = &running.desks[0];
        let from = desk.set(mode);
        let Some(refused) = refused(desk, from, running, self.until()) else {
            self.book.judge(clause, Err("no chunk came that could be refused".to_owned()));
            return None;
        };
        // What is under way behind it is refused as well, or answered: either may be.
        desk.set(Mode::Accept);
        match again(desk, from, &refused, running, self.until()) {
            Ok(came) => {
                self.book.judge(clause, Ok(()));
                Some(came.at.saturating_duration_since(refused.at))
            }
            Err(why) => {
                self.book.judge(clause, Err(why));
                None
            }
        }
    }

    /// Another 4xx suspends the stream.
    fn suspended(&mut self, running: &Running<'_>) {
        const CLAUSE: &str = "push.suspended";
        let desk = &running.desks[0];
        let from = desk.set(Mode::Refuse(400, String::new()));
        let Some(refused) = refused(desk, from, running, self.until()) else {
            return self.book.judge(CLAUSE, Err("no chunk came that could be refused".to_owned()));
        };
        // Others that were under way may still come, each once.
        let twice = desk.wait(from, Instant::now() + QUIET * 2, |seen| {
            seen.iter().filter(|a| is_same(a, &refused, running)).nth(1).map(|_| ())
        });
        desk.set(Mode::Accept);
        let kept = match twice {
            Some(()) => Err("the chunk came again without a get-key".to_owned()),
            None => self.asked_again(running, from, &refused),
        };
        self.book.judge(CLAUSE, kept);
    }

    /// A redirect leads to a port where nobody may come.
    fn redirect(&mut self, running: &Running<'_>) {
        const CLAUSE: &str = "push.redirect";
        let trap = Arc::new(Desk::new());
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listen = self.subject.end.listen.map_or(nowhere, |address| SocketAddr::new(address.ip(), 0));
        let Ok(server) = Server::start(listen, None, Arc::clone(&trap) as _) else {
            return self.book.skip(&[CLAUSE], "the probe has no second port to listen on");
        };
        let desk = &running.desks[0];
        let location = format!("Location: http://{}/api/v1/qkd/etsi004/key-material\r\n", server.address);
        let from = desk.set(Mode::Refuse(307, location));
        let refused = refused(desk, from, running, self.until());
        let led_astray = refused.is_some() && trap.visited(Instant::now() + QUIET);
        desk.set(Mode::Accept);
        let kept = match refused {
            _ if led_astray => {
                Err("it was followed: whoever can answer for the KMS can have its key sent elsewhere"
                    .to_owned())
            }
            None => Err("no chunk came that could be redirected".to_owned()),
            Some(refused) => self.asked_again(running, from, &refused),
        };
        self.book.judge(CLAUSE, kept);
    }

    /// Sends get-key, whereupon the chunk must come again.
    fn asked_again(&mut self, running: &Running<'_>, from: usize, refused: &Arrival) -> Result<(), String> {
        let reply = self.call("GET", "get-key", &json!({"key_stream_id": running.id}))?;
        if !reply.succeeded() {
            return Err(format!("get-key then got {}", reply.shown()));
        }
        again(&running.desks[0], from, refused, running, self.until()).map(drop)
    }
}

fn refused(desk: &Desk, from: usize, running: &Running<'_>, until: Instant) -> Option<Arrival> {
    desk.wait(from, until, |seen| seen.iter().find(|a| a.is_chunk_of(running.id) && !a.accepted).cloned())
}

fn is_same(arrival: &Arrival, refused: &Arrival, running: &Running<'_>) -> bool {
    arrival.is_chunk_of(running.id) && arrival.index == refused.index
}

/// The chunk that was refused, accepted.
fn again(
    desk: &Desk,
    from: usize,
    refused: &Arrival,
    running: &Running<'_>,
    until: Instant,
) -> Result<Arrival, String> {
    let came = desk
        .wait(from, until, |seen| seen.iter().find(|a| a.accepted && is_same(a, refused, running)).cloned());
    match came {
        None => Err("it did not come again in time".to_owned()),
        Some(came) if came.digest != refused.digest => Err("it came again with other octets".to_owned()),
        Some(came) => Ok(came),
    }
}
