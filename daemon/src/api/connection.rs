//! Ends connections whose client neither sends a whole request nor reads its answer.
//!
//! The HTTP server bounds the time of a connection's first request head, and of an idle connection. It does not bound
//! the head of a later request, nor an answer that the client never reads. Here every connection has one time for
//! both: when no request has been in work for that long, the socket is shut down.

use std::any::Any;
use std::cell::Cell;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::rc::{Rc, Weak};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use actix_web::rt;
use actix_web::rt::net::TcpStream;
use tokio::time::Instant;

/// A connection that is watched. Lives as long as the HTTP server holds the connection.
pub(super) struct Connection {
    socket: std::net::TcpStream,
    requests_in_work: Cell<usize>,
    quiet_since: Cell<Instant>,
    watch: Cell<Option<rt::task::JoinHandle<()>>>,
}

impl Connection {
    fn ends_at(&self, most_quiet: Duration) -> Instant {
        let from = if self.requests_in_work.get() == 0 { self.quiet_since.get() } else { Instant::now() };
        from + most_quiet
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
    }
}

/// Watches a connection that has just been accepted: to be called by the HTTP server, in the thread that serves it.
pub(super) fn watch(io: &dyn Any, data: &mut Extensions, most_quiet: Duration) {
    let Some(stream) = io.downcast_ref::<TcpStream>() else {
        log::error!("a connection is not TCP, so that a silent client is not noticed");
        return;
    };
    let socket = match stream.as_fd().try_clone_to_owned() {
        Ok(descriptor) => std::net::TcpStream::from(descriptor),
        Err(why) => {
            log::warn!("a connection is not watched for silence: {why}; allow more open files (LimitNOFILE)");
            return;
        }
    };
    let connection = Rc::new(Connection {
        socket,
        requests_in_work: Cell::new(0),
        quiet_since: Cell::new(Instant::now()),
        watch: Cell::new(None),
    });
    let watch = rt::spawn(end_when_quiet(Rc::downgrade(&connection), most_quiet));
    connection.watch.set(Some(watch));
    data.insert(connection);
}

async fn end_when_quiet(connection: Weak<Connection>, most_quiet: Duration) {
    let mut end = Instant::now() + most_quiet;
    loop {
        tokio::time::sleep_until(end).await;
        let Some(connection) = connection.upgrade() else { return };
        end = connection.ends_at(most_quiet);
        if end <= Instant::now() {
            // The HTTP server sees the end of the connection and lets go of it. One that is closed already is no error.
            let _ = connection.socket.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// Says, as long as it lives, that a request of this connection is in work.
pub(super) struct Busy(Option<Rc<Connection>>);

impl Busy {
    pub(super) fn start(request: &HttpRequest) -> Self {
        let connection = request.conn_data::<Rc<Connection>>().cloned();
        if let Some(connection) = &connection {
            connection.requests_in_work.set(connection.requests_in_work.get() + 1);
        }
        Self(connection)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.requests_in_work.set(connection.requests_in_work.get().saturating_sub(1));
            connection.quiet_since.set(Instant::now());
        }
    }
}
