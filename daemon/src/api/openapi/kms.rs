//! What a KMS serves: key-material. The QKD module is its client, and every message that the tests of the push
//! see is held against this (`daemon/tests/push/document.rs`).

use serde_json::json;
use utoipa::openapi::path::{HttpMethod, OperationBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::{OpenApi, PathItem, Paths, Required, ResponseBuilder};

use super::super::member::{number, stream_id};
use super::super::reply::METADATA_SIZE;
use super::{JSON, STREAM, content, info};
use crate::config::KEY_MATERIAL_PATH;
use crate::interface::Status;

/// Statuses of a message: key, and the notices.
const STATUSES: [Status; 4] =
    [Status::Successful, Status::PeerNotConnected, Status::InsufficientKey, Status::NoQkdConnection];

pub(super) fn document() -> OpenApi {
    let about = "What a QKD module asks of a key management system (KMS): ETSI GS QKD 004, push mode. The module sends a key \
                 stream's chunks one after the other, several of them at once where the KMS lets it, and each again until it is \
                 answered.";
    let body = RequestBodyBuilder::new()
        .content(
            JSON,
            content(
                request().into(),
                Some(json!({
                    "status": 0, "index": 0, "key_buffer": "AAECAwQFBgcICQoLDA0ODw==",
                    "metadata": {"size": METADATA_SIZE, "buffer": {"key_stream_id": STREAM}},
                })),
            ),
        )
        .required(Some(Required::True))
        .build();
    let answer = |about: &str| {
        ResponseBuilder::new()
            .description(about)
            .content(JSON, content(answer().into(), Some(json!({"status": 0}))))
    };
    let again = "Not accepted now: the same message comes again, with the same index and octets, after a growing wait. 408, 425, \
                 429, a time-out and a broken connection mean the same. Retry-After is honoured.";
    let operation = OperationBuilder::new()
        .operation_id(Some("key-material"))
        .description(Some("Takes a key chunk, or a notice without key."))
        .request_body(Some(body))
        .response("201", answer("Accepted: the chunk is safe with the KMS. Any other 2xx means the same."))
        .response(
            "4XX",
            answer(
                "Refused: the key stream is suspended, and goes on from the same chunk at the next get-key.",
            ),
        )
        .response("5XX", answer(again))
        .build();
    let mut paths = Paths::new();
    paths.paths.insert(KEY_MATERIAL_PATH.to_owned(), PathItem::new(HttpMethod::Post, operation));
    OpenApi::new(info("KMS, ETSI GS QKD 004 push mode", about), paths)
}

fn status(statuses: Option<&[Status]>) -> Object {
    let meanings: Vec<String> = statuses
        .unwrap_or_default()
        .iter()
        .map(|status| format!("{}: {}", u32::from(*status), status.meaning()))
        .collect();
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .enum_values(statuses.map(|statuses| statuses.iter().map(|status| u32::from(*status))))
        .description(Some(format!("Status of the interface. {}", meanings.join("; ")).trim_end()))
        .build()
}

fn request() -> Object {
    ObjectBuilder::new()
        .property("status", status(Some(&STATUSES)))
        .property(
            "index",
            number(
                0,
                "The chunk's place in the key stream: the low 32 bits of it. A notice has the next chunk's, and uses none up.",
            ),
        )
        .property(
            "key_buffer",
            ObjectBuilder::new()
                .schema_type(Type::String)
                .content_encoding("base64")
                .description(Some("The key chunk; empty in a notice."))
                .build(),
        )
        .property("metadata", metadata())
        .required("status")
        .required("index")
        .required("key_buffer")
        .build()
}

fn metadata() -> Object {
    let buffer = ObjectBuilder::new()
        .property("key_stream_id", stream_id("ID of the key stream."))
        .required("key_stream_id")
        .build();
    let size = format!(
        "Characters of buffer as it stands on the wire; this module writes one space after the colon: {METADATA_SIZE}."
    );
    ObjectBuilder::new()
        .property("size", number(0, &size))
        .property("buffer", buffer)
        .required("size")
        .required("buffer")
        .description(Some("Which key stream it is. This module always sends it."))
        .build()
}

fn answer() -> Object {
    ObjectBuilder::new()
        .property("status", status(None))
        .property("metadata", ObjectBuilder::new().description(Some("Not looked at.")).build())
        .required("status")
        .build()
}
