//! open-connect: which KMS opens, and what it asks for.

use super::member::{Described, Member, Number, Object, StreamIdOrNull, Text, Uri};
use super::reply::Reply;
use super::schema::{Members, SchemaError};
use super::server::Settings;
use crate::calls::{Answer, Call, Open};
use crate::config::Profile;
use crate::interface::{KeyStreamId, QosRequest, Status};

/// Status of a request that breaks the schema.
pub(super) const REFUSAL: Status = Status::KeyStreamIdInUse;

/// Statuses of a request that is as it must be, and that the key agreement refuses.
pub(super) const FAILURES: &[Status] =
    &[Status::NoQkdConnection, Status::KeyStreamIdInUse, Status::Timeout, Status::QosNotMet];

/// The members of the request.
pub(super) const BODY: &[&dyn Described] = &[&SOURCE, &DESTINATION, &KEY_STREAM_ID, &QOS];

const SOURCE: Member<Uri> = Member { name: "source", kind: Uri, about: "URI of one of the two KMSs." };
const DESTINATION: Member<Uri> =
    Member { name: "destination", kind: Uri, about: "URI of the other of the two KMSs." };
const KEY_STREAM_ID: Member<StreamIdOrNull> = Member {
    name: "key_stream_id",
    kind: StreamIdOrNull,
    about: "ID of the key stream; null has the QKD module choose one.",
};
const QOS: Member<Object> = Member {
    name: "qos",
    kind: Object {
        required: true,
        prefix: "qos.",
        members: &[
            &KEY_CHUNK_SIZE,
            &MAX_BPS,
            &MIN_BPS,
            &JITTER,
            &PRIORITY,
            &TIMEOUT,
            &TTL,
            &METADATA_MIMETYPE,
        ],
    },
    about: "Quality of service; what is absent or null is left to the QKD module. Once a key stream is registered, what the \
            second KMS asks for is ignored.",
};
const KEY_CHUNK_SIZE: Member<Number> =
    Member { name: "key_chunk_size", kind: Number { least: 1 }, about: "Octets per key chunk." };
const MAX_BPS: Member<Number> =
    Member { name: "max_bps", kind: Number { least: 0 }, about: "Greatest rate in bit/s of key." };
const MIN_BPS: Member<Number> =
    Member { name: "min_bps", kind: Number { least: 0 }, about: "Smallest rate in bit/s of key." };
const JITTER: Member<Number> = Member {
    name: "jitter",
    kind: Number { least: 0 },
    about: "Greatest deviation from the agreed rate in bit/s.",
};
const PRIORITY: Member<Number> =
    Member { name: "priority", kind: Number { least: 0 }, about: "Larger is served first." };
const TIMEOUT: Member<Number> = Member {
    name: "timeout",
    kind: Number { least: 0 },
    about: "Milliseconds after which a call on the key stream is aborted with an error.",
};
const TTL: Member<Number> = Member {
    name: "ttl",
    kind: Number { least: 0 },
    about: "Seconds after which keys of the key stream are erased.",
};
const METADATA_MIMETYPE: Member<Text> =
    Member { name: "metadata_mimetype", kind: Text, about: "Always taken as application/json." };

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
        let source = body.uri(&SOURCE)?;
        let destination = body.uri(&DESTINATION)?;
        let stream = body.stream_id_or_null(&KEY_STREAM_ID)?;
        let mut qos = body.object(&QOS)?;
        let request = QosRequest {
            key_chunk_size: qos.number(&KEY_CHUNK_SIZE)?,
            max_bps: qos.number(&MAX_BPS)?,
            min_bps: qos.number(&MIN_BPS)?,
            jitter: qos.number(&JITTER)?,
            priority: qos.number(&PRIORITY)?,
            timeout: qos.number(&TIMEOUT)?,
            ttl: qos.number(&TTL)?,
            // Any string means application/json, so that two requests do not differ by it.
            metadata_mimetype: qos.text(&METADATA_MIMETYPE)?.and(None),
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
