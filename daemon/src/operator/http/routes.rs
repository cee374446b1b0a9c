//! Paths and answers.

use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use serde::Serialize;

use super::looks::{Looks, Silent};
use super::{host, metrics, page, sdn};
use crate::operator::protocol::{Answer, Events, Streams, VERSION, Versioned};
use crate::picture::{Picture, State};
use crate::recent;

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// RFC 7951.
const YANG: &str = "application/yang-data+json";
/// Nothing but what this listener serves, and no script or style that stands in a page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri \
     'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers every request.
pub(super) async fn answer(request: HttpRequest, looks: web::Data<Looks>) -> HttpResponse {
    let named = request.headers().get_all(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let hosts: Vec<&str> = named.collect();
    if !matches!(hosts.as_slice(), [one] if host::is_own(one)) {
        let why = "this is served to this host only, by the name localhost or a loopback address\n";
        return reply(StatusCode::MISDIRECTED_REQUEST, TEXT, why);
    }
    if request.method() != Method::GET {
        let mut response =
            reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "everything here can only be read (GET)\n");
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET"));
        return response;
    }
    let path = request.path();
    if let Some((kind, content)) = page::file(path) {
        return reply(StatusCode::OK, kind, content);
    }
    match of(path, &looks).await {
        Ok(Some(response)) => response,
        Ok(None) => reply(StatusCode::NOT_FOUND, TEXT, "there is nothing here\n"),
        Err(silent) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{silent}\n")),
    }
}

async fn of(path: &str, looks: &Looks) -> Result<Option<HttpResponse>, Silent> {
    Ok(Some(match path {
        "/metrics" => match metrics::text(&*looks.picture().await?) {
            Ok(text) => reply(StatusCode::OK, PROMETHEUS, text),
            Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/livez" => {
            looks.picture().await?;
            reply(StatusCode::OK, TEXT, "alive\n")
        }
        "/readyz" => ready(&*looks.picture().await?),
        "/status" => {
            let picture = looks.picture().await?;
            said(Answer::Status(Box::new((*picture).clone())))
        }
        "/streams" => said(Answer::Streams(Streams { streams: looks.streams().await?.to_vec() })),
        "/events" => said(Answer::Events(Events { events: recent::newest(recent::MOST) })),
        "/qkd/015" => json(YANG, &sdn::node(&*looks.picture().await?, &looks.streams().await?)),
        "/qkd/015/notifications" => json(YANG, &sdn::notifications(&*looks.picture().await?)),
        _ => return Ok(None),
    }))
}

/// 503 with the reasons while key does not flow.
fn ready(picture: &Picture) -> HttpResponse {
    let code = match picture.health.state {
        State::Delivering | State::Ready => StatusCode::OK,
        State::Degraded => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut text = format!("{}\n", picture.health.state.word());
    for reason in &picture.health.reasons {
        text.push_str(&format!("{}: {}\n", reason.cause.word(), reason.text));
    }
    reply(code, TEXT, text)
}

/// The same as `qkdctl -o json` prints.
fn said(message: Answer) -> HttpResponse {
    json(JSON, &Versioned { version: VERSION, message })
}

fn json<T: Serialize>(kind: &'static str, value: &T) -> HttpResponse {
    match serde_json::to_string(value) {
        Ok(text) => reply(StatusCode::OK, kind, text + "\n"),
        Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

fn reply(code: StatusCode, kind: &'static str, body: impl Into<String>) -> HttpResponse {
    HttpResponseBuilder::new(code)
        .insert_header((header::CONTENT_TYPE, kind))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::X_FRAME_OPTIONS, "DENY"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header(("cross-origin-resource-policy", "same-origin"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(body.into())
}
