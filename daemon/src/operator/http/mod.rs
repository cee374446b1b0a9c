//! The operator's HTTP listener: status page, metrics, state. It listens on loopback only, is off unless configured, and can
//! only be read: what may be asked of the engine over it is a [`Look`], and that changes nothing.
//!
//! Whoever can open a connection from this host may read; the page that a browser of this host happens to show may not:
//! requests whose Host is no loopback name or address are refused, so that no name of somebody else leads here (DNS rebinding),
//! and answers say that no other origin may use them.

mod host;
mod looks;
mod metrics;
mod page;
mod routes;
mod sdn;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_http::HttpService;
use actix_service::{ServiceFactoryExt, map_config};
use actix_web::dev::{AppConfig, Server, ServerHandle};
use actix_web::{App, web};
use tokio::sync::{mpsc, oneshot};

use self::looks::Looks;
use super::FromOperator;
use crate::picture::{Picture, Stream};

/// Connections at once.
const MOST_CONNECTIONS: usize = 64;
/// Time a client has to send the head of a request, and to read an answer after which its connection is closed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Time in seconds that requests in work have to end when the server stops.
const STOPPING_S: u64 = 1;

/// What can be asked of the engine without changing anything.
#[derive(Debug)]
pub enum Look {
    /// How the module stands.
    Picture(oneshot::Sender<Picture>),
    /// How each key stream stands.
    Streams(oneshot::Sender<Vec<Stream>>),
}

/// The listener cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("the operator's page cannot be served at {address}: {source}; see operator.http")]
pub struct HttpError {
    /// Where.
    pub address: SocketAddr,
    /// The system's word for it.
    pub source: io::Error,
}

/// Makes the server, which serves once it is polled. It has a thread of its own and handles no signals. Call it within a runtime
/// of actix.
///
/// # Errors
/// When the address cannot be had.
pub fn serve(
    address: SocketAddr,
    engine: mpsc::Sender<FromOperator>,
) -> Result<(SocketAddr, Server, ServerHandle), HttpError> {
    let refused = |source| HttpError { address, source };
    let listener = TcpListener::bind(address).map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    log::info!(id = "operator.http"; "status page and metrics are served at http://{bound}/");
    let looks = web::Data::new(Looks::new(engine));
    let connections = move || {
        let app = App::new().app_data(looks.clone()).default_service(web::to(routes::answer));
        HttpService::build()
            .client_request_timeout(PATIENCE)
            .client_disconnect_timeout(PATIENCE)
            .keep_alive(IDLE)
            .h1(map_config(app, |()| AppConfig::default()))
            .tcp()
            .map_err(|_| ())
    };
    let server = Server::build()
        .workers(1)
        .max_concurrent_connections(MOST_CONNECTIONS)
        .shutdown_timeout(STOPPING_S)
        .disable_signals()
        .listen("operator", listener, connections)
        .map_err(refused)?
        .run();
    let handle = server.handle();
    Ok((bound, server, handle))
}
