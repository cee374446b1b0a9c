//! What the API answers: every answer that it can make is made once, and its members, statuses and headers are read off.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::http::header;
use serde_json::{Map, Value, json};
use utoipa::openapi::link::Link;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, RefOr, Response, ResponseBuilder, Responses, Schema};
use uuid::Uuid;

use super::super::body::BodyError;
use super::super::endpoint::Endpoint;
use super::super::member::{number, stream_id, text, uri};
use super::super::reply::Reply;
use super::JSON;
use crate::calls::{Answer, CallError};
use crate::config::Profile;
use crate::interface::{Qos, Status};

/// The answers of an endpoint by HTTP status. `follows` are the operations on a key stream that is open.
pub(super) fn responses(endpoint: Endpoint, profile: Profile, follows: &[String]) -> Responses {
    let mut by_code: BTreeMap<u16, Vec<Reply>> = BTreeMap::new();
    for reply in every(endpoint, profile) {
        by_code.entry(reply.http().as_u16()).or_default().push(reply);
    }
    let mut responses = Responses::new();
    for (code, replies) in by_code {
        let mut response = response(&replies);
        if endpoint == Endpoint::OpenConnect && (200..300).contains(&code) {
            for follows in follows {
                response.links.insert(follows.clone(), goes_on(follows));
            }
        }
        responses.responses.insert(code.to_string(), response.into());
    }
    responses
}

/// Every answer that the endpoint can make, in the order in which one would tell of them. Not those of a key agreement that
/// contradicts itself: whoever meets one has found a fault.
fn every(endpoint: Endpoint, profile: Profile) -> Vec<Reply> {
    let refused = endpoint.refusal();
    let mut replies: Vec<Reply> =
        successes(endpoint).into_iter().map(|answer| endpoint.reply(profile, answer)).collect();
    replies.push(Reply::bad_request(refused, "key_stream_id is missing: it must be a UUID"));
    replies.extend(endpoint.failures().iter().map(|status| {
        let counter_proposal = (*status == Status::QosNotMet).then(qos);
        Reply::failed(*status, format!("{}, in more words", status.meaning()), counter_proposal)
    }));
    if endpoint == Endpoint::GetKey {
        replies.push(Reply::metadata_too_small());
    }
    replies.extend(BodyError::EVERY.iter().map(|e| Reply::refused(e.http(), refused, e.to_string())));
    replies.push(Reply::stranger(refused));
    replies.extend(CallError::EVERY.into_iter().map(Reply::unanswered));
    replies
}

fn successes(endpoint: Endpoint) -> Vec<Answer> {
    match endpoint {
        Endpoint::OpenConnect => [Status::PeerNotConnected, Status::Successful]
            .map(|status| Answer::Opened {
                stream: Uuid::try_parse(super::STREAM).unwrap_or_default(),
                source: "kms://a".to_owned(),
                destination: "kms://b".to_owned(),
                qos: qos(),
                status,
            })
            .into(),
        Endpoint::GetKey | Endpoint::Close => vec![Answer::Done],
    }
}

fn qos() -> Qos {
    Qos {
        key_chunk_size: 32,
        max_bps: 64_000,
        min_bps: 0,
        jitter: 0,
        priority: 0,
        timeout: 5_000,
        ttl: 3_600,
        metadata_mimetype: "application/json".to_owned(),
    }
}

/// One HTTP status, of answers that have it.
fn response(replies: &[Reply]) -> Response {
    let statuses: BTreeSet<u32> = replies.iter().map(|reply| reply.status().into()).collect();
    let meanings: Vec<String> = statuses
        .iter()
        .filter_map(|number| Some(format!("status {number}: {}", Status::try_from(*number).ok()?.meaning())))
        .collect();
    let mut response = ResponseBuilder::new();
    let bodies: Vec<Map<String, Value>> =
        replies.iter().filter_map(|reply| members(serde_json::to_value(reply.body()?).ok()?)).collect();
    if bodies.is_empty() {
        return response.description("Done; there is no body.").build();
    }
    if replies.iter().any(|reply| reply.retry_after_s().is_some()) {
        let seconds = number(0, "Seconds after which the client may ask again.");
        response =
            response.header(header::RETRY_AFTER.as_str(), HeaderBuilder::new().schema(Some(seconds)).build());
    }
    let content = ContentBuilder::new()
        .schema(Some(schema(&bodies, &statuses)))
        .example(bodies.first().cloned().map(Value::Object))
        .build();
    response.description(meanings.join("; ")).content(JSON, content).build()
}

fn members(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// The object that all these bodies are: required is what each of them has.
fn schema(bodies: &[Map<String, Value>], statuses: &BTreeSet<u32>) -> RefOr<Schema> {
    let names: BTreeSet<&String> = bodies.iter().flat_map(Map::keys).collect();
    let mut object = ObjectBuilder::new();
    for name in names {
        object = object.property(name, member(name, statuses));
        if bodies.iter().all(|body| body.contains_key(name)) {
            object = object.required(name);
        }
    }
    object.build().into()
}

/// What a member of an answer is.
fn member(name: &str, statuses: &BTreeSet<u32>) -> Object {
    match name {
        "source" | "destination" => uri("As registered."),
        "key_stream_id" => stream_id("ID of the key stream, as asked for or as chosen."),
        "qos" => registered("Quality of service as registered; with status 7, the closest that could be."),
        "metadata" => ObjectBuilder::new()
            .property("size", number(0, "Characters that the metadata of key-material needs."))
            .property("buffer", text("Empty."))
            .required("size")
            .required("buffer")
            .description(Some("With status 8: the size that is needed."))
            .build(),
        "status" => ObjectBuilder::new()
            .schema_type(Type::Integer)
            .enum_values(Some(statuses.iter().copied()))
            .description(Some("Status of the interface."))
            .build(),
        _ => text("What is wrong and what would be right, as a sentence for people."),
    }
}

/// Quality of service as it is answered: the members of [`Qos`], all of them.
fn registered(about: &str) -> Object {
    let members = serde_json::to_value(qos()).ok().and_then(members).unwrap_or_default();
    let object = members.into_iter().fold(ObjectBuilder::new(), |object, (name, value)| {
        let least = u32::from(name == "key_chunk_size");
        let schema = if value.is_string() {
            text("Always application/json.")
        } else {
            number(least, "As in the request.")
        };
        object.property(&name, schema).required(name)
    });
    object.description(Some(about)).build()
}

/// From open-connect to a call on the key stream that it opened.
fn goes_on(operation: &str) -> RefOr<Link> {
    Link::builder()
        .operation_id(operation)
        .request_body(Some(json!({"key_stream_id": "$response.body#/key_stream_id"})))
        .description("On the key stream that was opened.")
        .build()
        .into()
}
