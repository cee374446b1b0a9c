//! Answers: the two success profiles, and refusals.

use actix_web::HttpResponse;
use actix_web::http::{StatusCode, header};
use serde::Serialize;
use uuid::Uuid;

use crate::calls::CallError;
use crate::config::Profile;
use crate::interface::{Qos, Status};

/// Seconds after which a client may ask again when the daemon is busy or stopping.
const RETRY_AFTER_S: u32 = 1;

/// Number of characters of key-material's metadata buffer: `{"key_stream_id": "…"}`.
pub(super) const METADATA_SIZE: u32 = 57;

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    http: StatusCode,
    /// Left out with 204.
    body: Box<Body>,
    allow: Option<&'static str>,
    retry_after_s: Option<u32>,
}

/// The members of an answer's body, in the order of the interface.
#[derive(Debug, Serialize)]
struct Body {
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_stream_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<Qos>,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Debug, Serialize)]
struct Metadata {
    size: u32,
    buffer: &'static str,
}

impl Reply {
    fn new(http: StatusCode, status: Status) -> Self {
        let body = Body {
            source: None,
            destination: None,
            key_stream_id: None,
            qos: None,
            status,
            metadata: None,
            detail: None,
        };
        Self { http, body: Box::new(body), allow: None, retry_after_s: None }
    }

    /// open-connect succeeded.
    pub(super) fn opened(
        profile: Profile,
        (source, destination): (String, String),
        stream: Uuid,
        qos: Qos,
        status: Status,
    ) -> Self {
        let mut reply = Self::new(success(profile, StatusCode::CREATED), status);
        reply.body.source = Some(source);
        reply.body.destination = Some(destination);
        reply.body.key_stream_id = Some(stream);
        reply.body.qos = Some(qos);
        reply
    }

    /// get-key succeeded.
    pub(super) fn key_follows(profile: Profile) -> Self {
        Self::new(success(profile, StatusCode::RESET_CONTENT), Status::Successful)
    }

    /// close succeeded.
    pub(super) fn closed(profile: Profile) -> Self {
        Self::new(success(profile, StatusCode::NO_CONTENT), Status::Successful)
    }

    /// The request itself is at fault. `detail` says what is wrong and what would be right.
    pub(super) fn refused(http: StatusCode, status: Status, detail: impl Into<String>) -> Self {
        let mut reply = Self::new(http, status);
        reply.body.detail = Some(detail.into());
        reply
    }

    /// The client's certificate stands for no KMS.
    pub(super) fn stranger(status: Status) -> Self {
        let detail = "this client's certificate stands for no KMS of this QKD module, or not for one alone";
        Self::refused(StatusCode::FORBIDDEN, status, detail)
    }

    /// The request breaks the schema or the configuration; `status` is the one of the path's own 400 example.
    pub(super) fn bad_request(status: Status, detail: impl ToString) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, status, detail.to_string())
    }

    /// The method is not one of `allow`.
    pub(super) fn wrong_method(status: Status, allow: &'static str) -> Self {
        let detail = format!("this path takes {allow} only");
        Self { allow: Some(allow), ..Self::refused(StatusCode::METHOD_NOT_ALLOWED, status, detail) }
    }

    /// get-key's metadata field has no room for what key-material will say.
    pub(super) fn metadata_too_small() -> Self {
        let detail = format!("metadata.size must be 0 or at least {METADATA_SIZE}; no key is lost");
        let mut reply = Self::refused(StatusCode::BAD_REQUEST, Status::MetadataTooSmall, detail);
        reply.body.metadata = Some(Metadata { size: METADATA_SIZE, buffer: "" });
        reply
    }

    /// The key agreement refused the call.
    pub(super) fn failed(status: Status, detail: String, counter_proposal: Option<Qos>) -> Self {
        let Some(http) = failure(status) else {
            log::error!(id = "agreement.contradiction"; "the key agreement refused a call with status {status:?}, which means success");
            return Self::contradiction();
        };
        let mut reply = Self::refused(http, status, detail);
        reply.body.qos = counter_proposal.filter(|_| status == Status::QosNotMet);
        reply
    }

    /// The key agreement's answer does not belong to the call.
    pub(super) fn contradiction() -> Self {
        let detail = "the QKD module contradicts itself; its log says more";
        Self::refused(StatusCode::INTERNAL_SERVER_ERROR, Status::NoQkdConnection, detail)
    }

    /// The key agreement gave no answer.
    pub(super) fn unanswered(error: CallError) -> Self {
        let (http, status) = match error {
            CallError::Late => (StatusCode::INTERNAL_SERVER_ERROR, Status::Timeout),
            CallError::Busy | CallError::Stopping => {
                (StatusCode::SERVICE_UNAVAILABLE, Status::NoQkdConnection)
            }
        };
        let retry_after_s = (http == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_S);
        Self { retry_after_s, ..Self::refused(http, status, error.to_string()) }
    }

    /// The HTTP status.
    pub(super) fn http(&self) -> StatusCode {
        self.http
    }

    /// The status of the interface.
    pub(super) fn status(&self) -> Status {
        self.body.status
    }

    /// Seconds after which the client may ask again.
    pub(super) fn retry_after_s(&self) -> Option<u32> {
        self.retry_after_s
    }

    /// The body; a body after 204 makes keep-alive clients lose their place.
    pub(super) fn body(&self) -> Option<&impl Serialize> {
        (self.http != StatusCode::NO_CONTENT).then_some(&self.body)
    }

    pub(super) fn into_response(self) -> HttpResponse {
        let mut response = HttpResponse::build(self.http);
        if let Some(allow) = self.allow {
            response.insert_header((header::ALLOW, allow));
        }
        if let Some(seconds) = self.retry_after_s {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        match self.body() {
            Some(body) => response.json(body),
            None => response.finish(),
        }
    }
}

fn success(profile: Profile, openapi: StatusCode) -> StatusCode {
    match profile {
        Profile::OpenApi => openapi,
        Profile::Ok => StatusCode::OK,
    }
}

/// The HTTP status that the interface's status table names for a failure; `None` for what is no failure.
fn failure(status: Status) -> Option<StatusCode> {
    match status {
        Status::Successful | Status::PeerNotConnected => None,
        Status::InsufficientKey | Status::NoQkdConnection | Status::Timeout | Status::QosNotMet => {
            Some(StatusCode::INTERNAL_SERVER_ERROR)
        }
        Status::PeerApplicationNotConnected | Status::KeyStreamIdInUse | Status::MetadataTooSmall => {
            Some(StatusCode::BAD_REQUEST)
        }
    }
}
