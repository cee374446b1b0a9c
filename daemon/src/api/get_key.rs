//! get-key: from now on key is pushed.

use super::member::{Described, Member, Number, Object, StreamId, Text};
use super::reply::{METADATA_SIZE, Reply};
use super::schema::{Members, SchemaError};
use crate::calls::{Answer, Call, GetKey};
use crate::config::Profile;
use crate::interface::Status;

/// Status of a request that breaks the schema.
pub(super) const REFUSAL: Status = Status::PeerApplicationNotConnected;

/// Statuses of a request that is as it must be, and that the key agreement refuses.
pub(super) const FAILURES: &[Status] =
    &[Status::InsufficientKey, Status::PeerApplicationNotConnected, Status::Timeout];

/// The members of the request.
pub(super) const BODY: &[&dyn Described] = &[&KEY_STREAM_ID, &INDEX, &METADATA];

const KEY_STREAM_ID: Member<StreamId> =
    Member { name: "key_stream_id", kind: StreamId, about: "ID of the key stream." };
const INDEX: Member<Number> = Member {
    name: "index",
    kind: Number { least: 0 },
    about: "Index of the first key chunk wanted. Absent, the key stream starts at 0 or goes on where it stopped; the two ends \
            agree on the later one.",
};
const METADATA: Member<Object> = Member {
    name: "metadata",
    kind: Object { required: false, prefix: "metadata.", members: &[&SIZE, &BUFFER] },
    about: "What the KMS has room for in the metadata of key-material.",
};
const SIZE: Member<Number> = Member {
    name: "size",
    kind: Number { least: 0 },
    about: "Room in characters; 0 says nothing, and too little gets status 8.",
};
const BUFFER: Member<Text> = Member { name: "buffer", kind: Text, about: "Not looked at." };

/// Reads the request into a call.
pub(super) fn call(caller: Option<String>, body: Members) -> Result<Call, Reply> {
    let (get_key, room) = read(caller, body).map_err(|why| Reply::bad_request(REFUSAL, why))?;
    // 0 says nothing, like an absent size.
    if (1..METADATA_SIZE).contains(&room) {
        return Err(Reply::metadata_too_small());
    }
    Ok(Call::GetKey(get_key))
}

/// The call, and the room for metadata that the KMS has.
fn read(kms: Option<String>, mut body: Members) -> Result<(GetKey, u32), SchemaError> {
    let stream = body.stream_id(&KEY_STREAM_ID)?;
    let index = body.number(&INDEX)?;
    let mut metadata = body.object(&METADATA)?;
    let room = metadata.number(&SIZE)?.unwrap_or(0);
    metadata.text(&BUFFER)?;
    Ok((GetKey { kms, stream, index }, room))
}

/// Puts the key agreement's answer into the interface's words.
pub(super) fn reply(profile: Profile, answer: Answer) -> Reply {
    match answer {
        Answer::Done => Reply::key_follows(profile),
        Answer::Refused { status, detail, counter_proposal } => {
            Reply::failed(status, detail, counter_proposal)
        }
        Answer::Opened { .. } => {
            log::error!(id = "agreement.contradiction"; "the key agreement answered get-key as if it were open-connect");
            Reply::contradiction()
        }
    }
}
