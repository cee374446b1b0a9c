//! get-key: from now on key is pushed.

use super::reply::{METADATA_SIZE, Reply};
use super::schema::{Members, SchemaError};
use crate::calls::{Answer, Call, GetKey};
use crate::config::Profile;
use crate::interface::Status;

/// Status of a request that breaks the schema.
pub(super) const REFUSAL: Status = Status::PeerApplicationNotConnected;

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
    let stream = body.key_stream_id()?;
    let index = body.optional_u32("index", 0)?;
    let mut room = 0;
    if let Some(mut metadata) = body.optional_object("metadata", "metadata.")? {
        room = metadata.optional_u32("size", 0)?.unwrap_or(0);
        metadata.optional_text("buffer")?;
    }
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
