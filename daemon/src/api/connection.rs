//! A client's connection as the HTTP server sees it, with what the HTTP server leaves out.
//!
//! actix-http 3.20 bounds the time of a connection's first request head and of an idle connection, but not of a later
//! head, nor of an answer that the client never reads. Here every connection has one time for both: when no request
//! has been in work for that long, reading and writing fail.

use std::cell::Cell;
use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpRequest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::doors::Place;
use crate::tls::{Caller, Wire};

/// Longest header name that the HTTP parser may see, in octets. It panics on one of more than 65 535.
const LONGEST_NAME: usize = 32_768;

/// Whether requests of a connection are in work, and since when none is.
pub(super) struct Activity {
    requests: Cell<usize>,
    quiet_since: Cell<Instant>,
}

/// Says, as long as it lives, that a request of its connection is in work.
pub(super) struct Busy(Option<Rc<Activity>>);

impl Busy {
    pub(super) fn start(request: &HttpRequest) -> Self {
        let activity = request.conn_data::<Rc<Activity>>().cloned();
        if let Some(activity) = &activity {
            activity.requests.set(activity.requests.get() + 1);
        }
        Self(activity)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(activity) = &self.0 {
            activity.requests.set(activity.requests.get().saturating_sub(1));
            activity.quiet_since.set(Instant::now());
        }
    }
}

/// The octets of a connection.
pub(super) struct Connection {
    stream: Wire,
    caller: Caller,
    /// Given back with the connection.
    _place: Place,
    activity: Rc<Activity>,
    most_quiet: Duration,
    timer: Pin<Box<Sleep>>,
    /// Octets read last that could all belong to one header name.
    name: usize,
}

impl Connection {
    pub(super) fn new(stream: Wire, caller: Caller, place: Place, most_quiet: Duration) -> Self {
        let activity = Activity { requests: Cell::new(0), quiet_since: Cell::new(Instant::now()) };
        Self {
            stream,
            caller,
            _place: place,
            activity: Rc::new(activity),
            most_quiet,
            timer: Box::pin(sleep(most_quiet)),
            name: 0,
        }
    }

    /// Who is at its other end.
    pub(super) fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// What the handler of a request needs for [`Busy`].
    pub(super) fn activity(&self) -> Rc<Activity> {
        Rc::clone(&self.activity)
    }

    /// Turns a wait into a failure when the connection has been quiet for too long; else has the task woken when it
    /// may have been.
    fn unless_quiet<T>(
        &mut self,
        context: &mut Context<'_>,
        done: Poll<Result<T, Error>>,
    ) -> Poll<Result<T, Error>> {
        if done.is_ready() {
            return done;
        }
        while self.timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let is_quiet = self.activity.requests.get() == 0;
            let end = if is_quiet { self.activity.quiet_since.get() } else { now } + self.most_quiet;
            if end <= now {
                let why = "the client neither sends a request nor reads its answer";
                return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, why)));
            }
            self.timer.as_mut().reset(end);
        }
        Poll::Pending
    }

    /// Spoils a header name that is longer than the HTTP parser can bear, so that it refuses the request as it
    /// refuses any other that is no HTTP. Nothing in a right request has so long a run of a name's characters.
    fn spoil_long_name(&mut self, read: &mut [u8]) {
        for octet in read {
            self.name = if is_name_character(*octet) { self.name + 1 } else { 0 };
            if self.name > LONGEST_NAME {
                *octet = 0;
                self.name = 0;
            }
        }
    }
}

/// `tchar` of RFC 9110, 5.6.2.
fn is_name_character(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet)
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.spoil_long_name(buffer.filled_mut().get_mut(before..).unwrap_or_default());
        self.unless_quiet(context, done)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<Result<usize, Error>> {
        let done = Pin::new(&mut self.stream).poll_write(context, octets);
        self.unless_quiet(context, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(context, octets);
        self.unless_quiet(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
