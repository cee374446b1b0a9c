//! The KMS's own server: takes `key-material`.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol};
use actix_service::{ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{AppConfig, Server, ServerHandle};
use actix_web::http::StatusCode;
use actix_web::rt::net::{TcpStream, UnixStream};
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use uuid::Uuid;

use super::body;
use super::journal::Journal;
use super::place::Place;
use super::stream::{Stream, Verdict, Watch};
use super::trouble::{Kind, Plan, Trouble};
use crate::history::now;
use crate::history::record::Invariant;
use crate::secure::{Tls, Wire};
use crate::server::make_way;

const PATH: &str = "/api/v1/qkd/etsi004/key-material";
/// Status of a notice that the other end is closed.
const PEER_CLOSED: u32 = 1;
const ACCEPTED: &str = "{\"status\":0}";
/// Largest request body: base64 of the largest chunk that the driver's user may ask for, and some.
const LARGEST_BODY: usize = 8 << 20;
/// How much later than asked an answer comes while the KMS is slow.
const SLOWNESS: Duration = Duration::from_millis(20);
/// The same while it answers late.
const LATENESS: Duration = Duration::from_millis(1500);

/// What the server shares with the rest of the KMS.
pub(super) struct Receiver {
    pub(super) journal: Journal,
    streams: RwLock<HashMap<Uuid, Arc<Slot>>>,
    plan: Plan,
    watch: Watch,
    first_chunk: OnceLock<Instant>,
}

/// Which connection a request came over: later ones have greater numbers.
#[derive(Clone, Copy, Debug)]
struct Connection(u64);

/// A stream as its requests find it.
pub(super) struct Slot {
    /// The latest connection that its requests came over. A module sends a stream over one connection at a time; what is still
    /// read from an earlier one was given up by the module, which may have passed it over since.
    latest: AtomicU64,
    stream: Mutex<Stream>,
    suspended: Notify,
    left_alone: Notify,
}

impl Slot {
    /// Locks the stream. Its counts are good at any point where a panic could have poisoned it.
    pub(super) fn lock(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a chunk has been refused on purpose, which suspends the stream.
    pub(super) async fn suspended(&self) {
        self.suspended.notified().await;
    }

    /// Waits until a notice has told that the other end is closed.
    pub(super) async fn left_alone(&self) {
        self.left_alone.notified().await;
    }

    /// Waits until no chunk has come for so long, from now on.
    pub(super) async fn silent(&self, time: Duration) {
        let begun = Instant::now();
        loop {
            let last = self.lock().last.map_or(begun, |last| last.max(begun));
            let left = time.saturating_sub(last.elapsed());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

impl Receiver {
    pub(super) fn new(journal: Journal, plan: Plan, watch: Watch) -> Self {
        Self { journal, streams: RwLock::default(), plan, watch, first_chunk: OnceLock::new() }
    }

    /// Makes a stream known; before that, its key is refused.
    pub(super) fn expect(&self, id: Uuid, chunk_size: u32) -> Arc<Slot> {
        let stream = Mutex::new(Stream::new(id, chunk_size, self.watch));
        let latest = AtomicU64::new(0);
        let slot = Arc::new(Slot { latest, stream, suspended: Notify::new(), left_alone: Notify::new() });
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(streams.entry(id).or_insert(slot))
    }

    /// All streams that were ever expected.
    pub(super) fn slots(&self) -> Vec<Arc<Slot>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect()
    }

    /// Time since the first chunk came; `None` before it.
    pub(super) fn since_first_chunk(&self) -> Option<Duration> {
        self.first_chunk.get().map(Instant::elapsed)
    }

    /// Plans a trouble whose `at` counts from now on. False: no chunk has come yet, so that its time is unknown.
    pub(super) fn plan(&self, trouble: Trouble) -> bool {
        let since = self.since_first_chunk();
        if let Some(since) = since {
            self.plan.add(Trouble { at: since + trouble.at, ..trouble });
        }
        since.is_some()
    }

    /// The trouble that the KMS is making just now.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.plan.at(self.since_first_chunk()?)
    }

    /// Judges one request. Gives the trouble that its answer is to make, or HTTP status and reason of a refusal.
    fn take(&self, request: &[u8], connection: Connection) -> Result<Option<Trouble>, (u16, String)> {
        let t = now();
        let material = body::parse(request).map_err(|why| {
            self.journal.violation(t, None, None, Invariant::Interface, why.clone());
            (400, why)
        })?;
        let slot = {
            let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
            streams.get(&material.stream).map(Arc::clone)
        };
        let Some(slot) = slot else {
            let what = format!("key-material for the unknown stream {}", material.stream);
            self.journal.violation(t, Some(material.stream), None, Invariant::Interface, what.clone());
            return Err((404, what));
        };
        if slot.latest.fetch_max(connection.0, Ordering::Relaxed) > connection.0 {
            return Err((
                409,
                "another connection has followed the one that this request came over".to_owned(),
            ));
        }
        if material.status == PEER_CLOSED {
            slot.left_alone.notify_one();
        }
        if material.status == 0 {
            self.first_chunk.get_or_init(Instant::now);
        }
        let trouble = self.trouble();
        let answer = trouble.map_or(201, |trouble| trouble.kind.http());
        if answer == Kind::Refuse.http() {
            slot.suspended.notify_one();
        }
        match slot.lock().take(&material, answer, t, &self.journal) {
            Verdict::Accept => Ok(trouble),
            Verdict::Refuse(why) => Err((400, why)),
        }
    }
}

/// Starts the server and says where it listens. The server must be polled; the handle stops it.
///
/// # Errors
/// It cannot listen there.
pub(super) fn serve(
    receiver: Arc<Receiver>,
    place: &Place,
    tls: Option<Tls>,
) -> io::Result<(Server, ServerHandle, Place)> {
    let data = Data::from(receiver);
    let numbers = Arc::new(AtomicU64::new(1));
    // One worker keeps the requests of all connections in the order in which they were read.
    let server = Server::build().workers(1).disable_signals().shutdown_timeout(1);
    let (server, bound) = match place {
        Place::Tcp(address) => {
            let listener = TcpListener::bind(address)?;
            let bound = Place::Tcp(listener.local_addr()?);
            let connections =
                move || connection::<TcpStream>(data.clone(), Arc::clone(&numbers), tls.clone());
            (server.listen("kms", listener, connections)?, bound)
        }
        Place::Unix(path) => {
            make_way(path).map_err(io::Error::other)?;
            let listener = UnixListener::bind(path)?;
            let connections =
                move || connection::<UnixStream>(data.clone(), Arc::clone(&numbers), tls.clone());
            (server.listen_uds("kms", listener, connections)?, place.clone())
        }
    };
    let server = server.run();
    let handle = server.handle();
    Ok((server, handle, bound))
}

/// What serves a connection. `numbers` is the next one's.
fn connection<S>(
    data: Data<Receiver>,
    numbers: Arc<AtomicU64>,
    tls: Option<Tls>,
) -> impl ServiceFactory<S, Config = (), Response = (), Error = DispatchError, InitError = ()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let app = App::new()
        .app_data(data)
        .app_data(web::PayloadConfig::new(LARGEST_BODY))
        .service(
            web::resource(PATH)
                .route(web::post().to(key_material))
                .route(web::route().to(|| async { refused(405, "this path takes POST only") })),
        )
        .default_service(web::route().to(|| async { refused(404, "this path is unknown") }));
    let http = HttpService::build()
        .on_connect_ext(move |_: &Wire<S>, data| {
            data.insert(Connection(numbers.fetch_add(1, Ordering::Relaxed)));
        })
        .finish(map_config(app, |()| AppConfig::default()));
    fn_service(move |stream: S| {
        let tls = tls.clone();
        async move {
            let wire = match tls {
                None => Wire::Plain(stream),
                Some(tls) => tls.accept(stream).await.inspect_err(|error| {
                    log::warn!("a connection was refused in the TLS handshake: {error}");
                })?,
            };
            if let Some(group) = wire.key_exchange() {
                log::info!("key-material comes over TLS, key exchange {group:?}");
            }
            Ok::<_, DispatchError>((wire, Protocol::Http1, None))
        }
    })
    .and_then(http)
}

/// A refusal in the interface's words: every body has a status.
fn refused(status: u16, why: &str) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    HttpResponse::build(status).json(serde_json::json!({ "status": 3, "detail": why }))
}

async fn key_material(
    head: HttpRequest,
    request: Result<Bytes, actix_web::Error>,
    receiver: Data<Receiver>,
) -> HttpResponse {
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            return refused(error.as_response_error().status_code().as_u16(), "the body cannot be taken");
        }
    };
    // Each connection has a number; without one it would be the oldest.
    let connection = head.conn_data::<Connection>().copied().unwrap_or(Connection(0));
    let taken = receiver.take(&request, connection);
    drop(request);
    match taken {
        Ok(None) => accepted(),
        Ok(Some(trouble)) => make_trouble(&receiver, trouble).await,
        Err((status, why)) => refused(status, &why),
    }
}

fn accepted() -> HttpResponse {
    HttpResponse::Created().content_type("application/json").body(ACCEPTED)
}

async fn make_trouble(receiver: &Receiver, trouble: Trouble) -> HttpResponse {
    match trouble.kind {
        Kind::Unavailable => {
            HttpResponse::ServiceUnavailable().content_type("application/json").body("{\"status\":6}")
        }
        Kind::TooMany => HttpResponse::TooManyRequests()
            .insert_header(("Retry-After", "1"))
            .content_type("application/json")
            .body("{\"status\":6}"),
        Kind::Refuse => HttpResponse::BadRequest().content_type("application/json").body("{\"status\":3}"),
        Kind::Hang => {
            let over = trouble.at + trouble.lasts;
            let left = over.saturating_sub(receiver.since_first_chunk().unwrap_or_default());
            tokio::time::sleep(left).await;
            accepted()
        }
        Kind::CloseMidAnswer => {
            HttpResponse::Created().content_type("application/json").body(HalfBody::default())
        }
        Kind::Garbage => HttpResponse::Created().body(Bytes::from_static(b"\0<garbage>{{{\xff")),
        Kind::Slow | Kind::Late => {
            let late = if trouble.kind == Kind::Slow { SLOWNESS } else { LATENESS };
            tokio::time::sleep(late).await;
            accepted()
        }
        Kind::AcceptedThen500 => {
            HttpResponse::InternalServerError().content_type("application/json").body("{\"status\":6}")
        }
    }
}

/// A body that breaks off after half of what was announced, which closes the connection.
#[derive(Default)]
struct HalfBody {
    sent: bool,
}

impl MessageBody for HalfBody {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Sized(ACCEPTED.len() as u64)
    }

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Bytes, io::Error>>> {
        if self.sent {
            return std::task::Poll::Ready(Some(Err(io::Error::other("broken off on purpose"))));
        }
        self.sent = true;
        let (half, _) = ACCEPTED.split_at(ACCEPTED.len() / 2);
        std::task::Poll::Ready(Some(Ok(Bytes::from_static(half.as_bytes()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::digest::Digest;
    use crate::kms::stream::KeyKind;

    fn receiver() -> (Receiver, Arc<Slot>) {
        let watch = Watch { kind: KeyKind::Random, sample_above: 1_000, remembered: 64 };
        let receiver = Receiver::new(Journal::new(None, false), Plan::new(Vec::new()), watch);
        let slot = receiver.expect(Uuid::from_u128(1), 32);
        slot.lock().asked();
        (receiver, slot)
    }

    fn chunk(index: u32) -> Vec<u8> {
        let key = base64_turbo::STANDARD.encode(Digest::of(&index.to_le_bytes()).0);
        let stream = Uuid::from_u128(1);
        format!(
            r#"{{"status":0,"index":{index},"key_buffer":"{key}","metadata":{{"size":57,"buffer":{{"key_stream_id":"{stream}"}}}}}}"#
        )
        .into_bytes()
    }

    #[test]
    fn what_a_module_has_given_up_with_its_connection_is_not_taken_behind_what_came_since() {
        let (receiver, slot) = receiver();
        assert!(receiver.take(&chunk(0), Connection(1)).is_ok());
        assert!(receiver.take(&chunk(9), Connection(2)).is_ok());
        assert_eq!(receiver.take(&chunk(1), Connection(1)).map_err(|refusal| refusal.0), Err(409));
        assert!(receiver.take(&chunk(10), Connection(2)).is_ok());
        assert_eq!(slot.lock().next(), 11);
        assert_eq!(receiver.journal.violations(), 0);
        // Over the same connection it is what it looks like.
        assert!(receiver.take(&chunk(5), Connection(2)).is_ok());
        assert_eq!(receiver.journal.violations(), 1);
    }
}
