//! The OpenAPI 3.1 documents: what the API takes, from the list of members that it checks requests by, and what it answers,
//! from the answers that it makes. Texts aside, nothing is written here a second time.

mod answers;
mod kms;

use serde_json::{Value, json};
use utoipa::openapi::path::{Operation, OperationBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::{
    Content, ContentBuilder, Info, InfoBuilder, License, OpenApi, PathItem, Paths, RefOr, Required, Schema,
};

use super::endpoint::Endpoint;
use super::member::object;
use crate::config::Profile;

/// Where the API serves the document of its own profile.
pub(super) const PATH: &str = "/api/v1/kms/etsi004/openapi.json";

/// A document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// The QKD module's API as the interface has it, profile `openapi`.
    Module,
    /// The same with profile `ok`.
    ModuleOk,
    /// As [`Document::Module`], with POST on get-key and close, which is an extension.
    ModuleExtended,
    /// What the KMS serves: key-material.
    Kms,
}

impl Document {
    /// Each of them, with its name.
    pub const ALL: [(&'static str, Self); 4] = [
        ("module", Self::Module),
        ("module-ok", Self::ModuleOk),
        ("module-extended", Self::ModuleExtended),
        ("kms", Self::Kms),
    ];

    /// The document of an API with that profile.
    #[must_use]
    pub fn of(profile: Profile) -> Self {
        match profile {
            Profile::OpenApi => Self::Module,
            Profile::Ok => Self::ModuleOk,
        }
    }
}

/// The document as text, with a line's end at its end.
#[must_use]
pub fn json(document: Document) -> String {
    let api = match document {
        Document::Module => module(Profile::OpenApi, false),
        Document::ModuleOk => module(Profile::Ok, false),
        Document::ModuleExtended => module(Profile::OpenApi, true),
        Document::Kms => kms::document(),
    };
    // Strings, numbers and maps with strings for keys: there is nothing in it that JSON cannot say.
    api.to_pretty_json().map(|text| text + "\n").unwrap_or_default()
}

fn module(profile: Profile, extended: bool) -> OpenApi {
    let mut about = "What a key management system (KMS) asks of a QKD module: ETSI GS QKD 004, push mode. Key comes to the KMS's \
                     own key-material endpoint. With TLS, a client needs a certificate that stands for a KMS. Every answer with \
                     a body has `status` in it; members beyond those named here are ignored, and whole numbers are \
                     written without fraction and exponent. A method that a path does not take \
                     is answered with 405 and `Allow`, an unknown path with 404 and status 4."
        .to_owned();
    match (profile, extended) {
        (Profile::Ok, _) => about += " This is profile `ok`: success is 200 with a body.",
        (Profile::OpenApi, true) => {
            about +=
                " POST on get-key and close is an extension, for clients that cannot send a body with GET.";
        }
        (Profile::OpenApi, false) => {}
    }
    let ids = |is_extension| [Endpoint::GetKey, Endpoint::Close].map(|endpoint| id(endpoint, is_extension));
    let mut follows = ids(false).to_vec();
    if extended {
        follows.extend(ids(true));
    }
    let mut paths = Paths::new();
    for endpoint in Endpoint::ALL {
        let mut item = PathItem::default();
        for (number, method) in endpoint.methods().enumerate() {
            let is_extension = number > 0;
            if !is_extension || extended {
                put(&mut item, method, operation(endpoint, profile, is_extension, &follows));
            }
        }
        paths.paths.insert(endpoint.path().to_owned(), item);
    }
    OpenApi::new(info("QKD module, ETSI GS QKD 004 push mode", &about), paths)
}

/// Title, description, version and licence.
fn info(title: &str, about: &str) -> Info {
    let licence = License::builder().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build();
    InfoBuilder::new()
        .title(title)
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(about))
        .license(Some(licence))
        .build()
}

/// Sets an operation under its method's name.
fn put(item: &mut PathItem, method: &str, operation: Operation) {
    let place = match method {
        "GET" => &mut item.get,
        "PUT" => &mut item.put,
        _ => &mut item.post,
    };
    *place = Some(operation);
}

fn id(endpoint: Endpoint, is_extension: bool) -> String {
    format!("{}{}", words(endpoint).0, if is_extension { "-by-post" } else { "" })
}

fn operation(endpoint: Endpoint, profile: Profile, is_extension: bool, follows: &[String]) -> Operation {
    let body = RequestBodyBuilder::new()
        .content(JSON, content(object(endpoint.body(), "The call.").into(), Some(request(endpoint))))
        .required(Some(Required::True))
        .build();
    OperationBuilder::new()
        .operation_id(Some(id(endpoint, is_extension)))
        .description(Some(words(endpoint).1))
        .request_body(Some(body))
        .responses(answers::responses(endpoint, profile, follows))
        .build()
}

const JSON: &str = "application/json";

fn content(schema: RefOr<Schema>, example: Option<Value>) -> Content {
    ContentBuilder::new().schema(Some(schema)).example(example).build()
}

fn words(endpoint: Endpoint) -> (&'static str, &'static str) {
    match endpoint {
        Endpoint::OpenConnect => (
            "open-connect",
            "Opens a key stream, or joins one that the other KMS has opened. It never waits for the other KMS.",
        ),
        Endpoint::GetKey => (
            "get-key",
            "Has the QKD module push the key stream's key from now on, once both KMSs have asked for it.",
        ),
        Endpoint::Close => (
            "close",
            "Ends a key stream at this end: no further key is granted. Closing one that this KMS has closed succeeds as well.",
        ),
    }
}

const STREAM: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";

/// A request such as a KMS sends.
fn request(endpoint: Endpoint) -> Value {
    match endpoint {
        Endpoint::OpenConnect => json!({
            "source": "kms://a", "destination": "kms://b", "key_stream_id": null, "qos": {"key_chunk_size": 32, "max_bps": 64000},
        }),
        Endpoint::GetKey | Endpoint::Close => json!({"key_stream_id": STREAM}),
    }
}
