//! The HTTP server.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol};
use actix_service::{ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::{AppConfig, Server, ServerHandle};
use actix_web::rt::net::TcpStream;
use actix_web::web::Bytes;
use actix_web::{App, web};
use nix::sys::socket::{Backlog, listen};

use super::connection::Connection;
use super::doors::{Doors, turn_away};
use super::openapi::{self, Document};
use super::routes;
use crate::calls::CallPort;
use crate::config::{Api, Config};
use crate::pulse::Pulses;
use crate::tls::{Caller, Socket, Tls, Wire};

/// Time beyond the greatest timeout of a key stream that the key agreement has to answer.
const ANSWER_GRACE: Duration = Duration::from_secs(1);

/// Time that a client has to read an answer after which its connection is closed.
const CLOSING: Duration = Duration::from_secs(1);

/// Between two signs of life of a thread that serves requests.
const BEAT: Duration = Duration::from_millis(250);

/// Time in seconds that requests in work have to end when the server stops.
const STOPPING_S: u64 = 2;

/// What the API needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The section of the configuration. Its address is not used: a listener is given.
    pub api: Api,
    /// URIs of the KMSs at this end.
    pub kms: Vec<String>,
    /// URIs of the KMSs at the other end.
    pub peer_kms: Vec<String>,
    /// Longest time that the key agreement may take for an answer.
    pub call_deadline: Duration,
}

impl Settings {
    /// Takes what the API needs from the configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let greatest_timeout = Duration::from_millis(config.streams.greatest_timeout_ms.into());
        Self {
            api: config.api.clone(),
            kms: config.kms.iter().map(|kms| kms.uri.clone()).collect(),
            peer_kms: config.peer.kms.clone(),
            call_deadline: greatest_timeout + ANSWER_GRACE,
        }
    }
}

/// The API could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The operating system refused.
    #[error("the API cannot be served on {address}: {why}")]
    Listener {
        /// The listener's address.
        address: String,
        /// Why, as the operating system says.
        #[source]
        why: io::Error,
    },
}

/// What every thread that serves requests shares.
pub(super) struct Service {
    pub(super) settings: Settings,
    pub(super) port: CallPort,
    pub(super) largest_body: usize,
    pub(super) body_deadline: Duration,
    pub(super) tls: Option<Arc<Tls>>,
    /// The OpenAPI document of this module's profile.
    pub(super) openapi: Bytes,
}

/// Makes the server. It serves once it is polled, until the handle stops it; it handles no signals. Calls go to `port`,
/// and each thread that serves requests shows in `pulses` that it turns. With `tls`, nothing is served without it.
///
/// # Errors
/// [`ServeError`] when the listener cannot be used.
pub fn serve(
    settings: Settings,
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    port: CallPort,
    pulses: &Pulses,
) -> Result<(Server, ServerHandle), ServeError> {
    let address = listener.local_addr().map_or_else(|_| "its address".to_owned(), |a| a.to_string());
    let refused = |why: io::Error| ServeError::Listener { address: address.clone(), why };
    let api = settings.api.clone();
    let number = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    let millis = |ms: u32| Duration::from_millis(ms.into());
    let backlog =
        i32::try_from(api.backlog).ok().and_then(|n| Backlog::new(n).ok()).unwrap_or(Backlog::MAXCONN);
    listen(&listener, backlog).map_err(|errno| refused(errno.into()))?;

    let service = web::Data::new(Service {
        largest_body: number(api.largest_body_bytes),
        body_deadline: millis(api.body_deadline_ms),
        openapi: openapi::json(Document::of(settings.api.profile)).into(),
        settings,
        port,
        tls,
    });
    // An idle connection is closed by keep_alive, one with half a request by this.
    let most_quiet = millis(api.keep_alive_ms) + millis(api.head_deadline_ms);
    let builder = Server::build()
        .workers(number(api.workers))
        .max_concurrent_connections(number(api.most_connections.div_ceil(api.workers)))
        .shutdown_timeout(STOPPING_S)
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let doors = Doors::new(api.most_connections_per_address);
    let pulses = pulses.clone();
    // Runs once in each thread that serves requests, and anew in one that takes the place of another.
    let connections = move || {
        let pulse = pulses.begin();
        actix_web::rt::spawn(async move {
            loop {
                pulse.beat();
                tokio::time::sleep(BEAT).await;
            }
        });
        let app = App::new().app_data(service.clone()).default_service(web::to(routes::answer));
        let stopping = stopping.clone();
        let doors = doors.clone();
        let http = HttpService::build()
            .client_request_timeout(millis(api.head_deadline_ms))
            .client_disconnect_timeout(CLOSING)
            .keep_alive(millis(api.keep_alive_ms))
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .on_connect_ext(|connection: &Connection, data| {
                data.insert(connection.activity());
                data.insert(connection.caller());
            })
            .finish(map_config(app, |()| AppConfig::default()));
        let tls = service.tls.clone();
        fn_service(move |stream: TcpStream| {
            let (doors, tls) = (doors.clone(), tls.clone());
            async move {
                // A client that is gone already has no address.
                let client = stream.peer_addr().map_err(DispatchError::Io)?;
                let Some(place) = doors.enter(client) else {
                    actix_web::rt::spawn(turn_away(stream, doors));
                    return Err(DispatchError::Io(io::ErrorKind::QuotaExceeded.into()));
                };
                // Only delays answers where it cannot be set.
                let _ = stream.set_nodelay(true);
                let stream = Socket::Tcp(stream);
                let (wire, caller) = match tls {
                    None => (Wire::Plain(stream), Caller::Unknown),
                    Some(tls) => tls
                        .accept_client(stream)
                        .await
                        .inspect_err(|why| tls.say_refused(&client.to_string(), why))
                        .map_err(DispatchError::Io)?,
                };
                Ok((Connection::new(wire, caller, place, most_quiet), Protocol::Http1, Some(client)))
            }
        })
        .and_then(http)
    };
    let server = builder.listen("api", listener, connections).map_err(refused)?.run();
    let handle = server.handle();
    Ok((server, handle))
}
