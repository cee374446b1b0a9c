//! Which request is for which endpoint.

use actix_web::http::{Method, StatusCode};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};

use super::connection::Busy;
use super::endpoint::Endpoint;
use super::reply::Reply;
use super::schema::Members;
use super::server::Service;
use super::{body, close, get_key, json, open_connect, openapi};
use crate::calls::Call;
use crate::config::excerpt;
use crate::interface::Status;
use crate::tls::Caller;

/// Answers any request.
pub(super) async fn answer(request: HttpRequest, payload: Payload, service: Data<Service>) -> HttpResponse {
    let _busy = Busy::start(&request);
    // The path as it was sent: an escaped one is another path.
    let (method, path) = (request.method(), request.uri().path());
    let mut stream = None;
    let endpoint = Endpoint::of_path(path);
    let reply = match (caller_of(&request, &service), endpoint) {
        (Err(names), endpoint) => {
            if let Some(tls) = &service.tls {
                tls.say_stranger(&names);
            }
            Reply::stranger(endpoint.map_or(Status::NoQkdConnection, Endpoint::refusal))
        }
        // Says nothing of this module but its profile; that it asks for a certificate like the rest spares an exception.
        (Ok(_), None) if path == openapi::PATH => {
            if method == Method::GET {
                return HttpResponse::Ok().content_type("application/json").body(service.openapi.clone());
            }
            Reply::wrong_method(Status::NoQkdConnection, "GET")
        }
        (Ok(_), None) => {
            let detail =
                "this path is unknown; the paths are /api/v1/kms/etsi004/open-connect, get-key and close";
            Reply::refused(StatusCode::NOT_FOUND, Status::NoQkdConnection, detail)
        }
        (Ok(_), Some(endpoint)) if !endpoint.methods().any(|allowed| allowed == method.as_str()) => {
            Reply::wrong_method(endpoint.refusal(), endpoint.allow())
        }
        (Ok(caller), Some(endpoint)) => match read(endpoint, caller, &request, payload, &service).await {
            Ok(call) => {
                stream = stream_of(&call);
                ask(endpoint, call, &service).await
            }
            Err(refusal) => refusal,
        },
    };
    log::debug!(
        "{} {} answered {}{}",
        excerpt(method.as_str()),
        excerpt(path),
        reply.http().as_u16(),
        stream.map(|id| format!(", key stream {id}")).unwrap_or_default(),
    );
    reply.into_response()
}

/// The KMS that the client's certificate stands for, `None` without TLS; or the names of a stranger.
fn caller_of(request: &HttpRequest, service: &Service) -> Result<Option<String>, String> {
    match (request.conn_data::<Caller>(), &service.tls) {
        (Some(Caller::Kms(uri)), _) => Ok(Some(uri.clone())),
        (Some(Caller::Stranger(names)), _) => Err(names.clone()),
        (Some(Caller::Unknown) | None, None) => Ok(None),
        (Some(Caller::Unknown) | None, Some(_)) => Err("a connection without TLS".to_owned()),
    }
}

async fn read(
    endpoint: Endpoint,
    caller: Option<String>,
    request: &HttpRequest,
    payload: Payload,
    service: &Service,
) -> Result<Call, Reply> {
    let refusal = endpoint.refusal();
    let text = body::read(request.headers(), payload, service.largest_body, service.body_deadline)
        .await
        .map_err(|error| Reply::refused(error.http(), refusal, error.to_string()))?;
    let value = json::parse(&text).map_err(|why| Reply::bad_request(refusal, why))?;
    let members = Members::of_body(value).map_err(|why| Reply::bad_request(refusal, why))?;
    match endpoint {
        Endpoint::OpenConnect => open_connect::call(&service.settings, caller, members),
        Endpoint::GetKey => get_key::call(caller, members),
        Endpoint::Close => close::call(caller, members),
    }
}

async fn ask(endpoint: Endpoint, call: Call, service: &Service) -> Reply {
    match service.port.ask(call, service.settings.call_deadline).await {
        Ok(answer) => endpoint.reply(service.settings.api.profile, answer),
        Err(error) => Reply::unanswered(error),
    }
}

fn stream_of(call: &Call) -> Option<uuid::Uuid> {
    match call {
        Call::Open(open) => open.stream,
        Call::GetKey(get_key) => Some(get_key.stream),
        Call::Close(close) => Some(close.stream),
    }
}
