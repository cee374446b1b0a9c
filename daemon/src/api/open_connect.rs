//! open-connect: which KMS opens, and what it asks for.

use super::reply::Reply;
use super::schema::{Members, SchemaError};
use super::server::Settings;
use crate::calls::{Answer, Call, Open};
use crate::config::Profile;
use crate::interface::{KeyStreamId, QosRequest, Status};

/// Status of a request that breaks the schema.
pub(super) const REFUSAL: Status = Status::KeyStreamIdInUse;

/// Reads the request into a call.
pub(super) fn call(settings: &Settings, caller: Option<String>, body: Members) -> Result<Call, Reply> {
    let request = Request::read(body).map_err(|why| Reply::bad_request(REFUSAL, why))?;
    let kms = opening_kms(settings, caller.as_deref(), &request.source, &request.destination)
        .map_err(|why| Reply::bad_request(REFUSAL, why))?;
    let Request { source, destination, stream, qos } = request;
    Ok(Call::Open(Open { kms, source, destination, stream, qos }))
}

/// Puts the key agreement's answer into the interface's words.
pub(super) fn reply(profile: Profile, answer: Answer) -> Reply {
    match answer {
        Answer::Opened { stream, source, destination, qos, status } => match status {
            Status::Successful | Status::PeerNotConnected => {
                Reply::opened(profile, (source, destination), stream, qos, status)
            }
            other => {
                log::error!(
                    id = "agreement.contradiction"; "the key agreement opened key stream {stream} with status {other:?}, which means failure"
                );
                Reply::contradiction()
            }
        },
        Answer::Refused { status, detail, counter_proposal } => {
            Reply::failed(status, detail, counter_proposal)
        }
        Answer::Done => {
            log::error!(id = "agreement.contradiction"; "the key agreement answered open-connect as if it were another call");
            Reply::contradiction()
        }
    }
}

struct Request {
    source: String,
    destination: String,
    stream: Option<KeyStreamId>,
    qos: QosRequest,
}

impl Request {
    fn read(mut body: Members) -> Result<Self, SchemaError> {
        let source = body.uri("source")?;
        let destination = body.uri("destination")?;
        let stream = body.key_stream_id_or_null()?;
        let mut qos = body.object("qos", "qos.")?;
        let request = QosRequest {
            key_chunk_size: qos.optional_u32("key_chunk_size", 1)?,
            max_bps: qos.optional_u32("max_bps", 0)?,
            min_bps: qos.optional_u32("min_bps", 0)?,
            jitter: qos.optional_u32("jitter", 0)?,
            priority: qos.optional_u32("priority", 0)?,
            timeout: qos.optional_u32("timeout", 0)?,
            ttl: qos.optional_u32("ttl", 0)?,
            // Any string means application/json, so that two requests do not differ by it.
            metadata_mimetype: qos.optional_text("metadata_mimetype")?.and(None),
        };
        Ok(Self { source, destination, stream, qos: request })
    }
}

/// The KMS at this end that opens: one of `source` and `destination` is configured at this end, and the other one at
/// the other end. Their order does not matter. A `caller` that is known opens for itself only, and of the other KMSs at this
/// end it learns nothing.
fn opening_kms(
    settings: &Settings,
    caller: Option<&str>,
    source: &str,
    destination: &str,
) -> Result<String, &'static str> {
    let is_here =
        |uri: &str| settings.kms.iter().any(|kms| kms == uri) && caller.is_none_or(|caller| caller == uri);
    let is_there = |uri: &str| settings.peer_kms.iter().any(|kms| kms == uri);
    match (is_here(source), is_here(destination)) {
        (true, false) if is_there(destination) => Ok(source.to_owned()),
        (false, true) if is_there(source) => Ok(destination.to_owned()),
        (true, false) => {
            Err("destination must be a KMS at the other end of the QKD link; it is none of the configured")
        }
        (false, true) => {
            Err("source must be a KMS at the other end of the QKD link; it is none of the configured")
        }
        (true, true) => Err("source and destination are both KMSs at this end; one must be at the other end"),
        (false, false) if caller.is_some() => {
            Err("neither source nor destination is the KMS that this client's certificate stands for")
        }
        (false, false) => Err("neither source nor destination is a KMS of this QKD module"),
    }
}
