//! close: no further key on a key stream.

use super::reply::Reply;
use super::schema::Members;
use crate::calls::{Answer, Call, Close};
use crate::config::Profile;
use crate::interface::Status;

/// Status of a request that breaks the schema.
pub(super) const REFUSAL: Status = Status::KeyStreamIdInUse;

/// Reads the request into a call.
pub(super) fn call(kms: Option<String>, mut body: Members) -> Result<Call, Reply> {
    let stream = body.key_stream_id().map_err(|why| Reply::bad_request(REFUSAL, why))?;
    Ok(Call::Close(Close { kms, stream }))
}

/// Puts the key agreement's answer into the interface's words.
pub(super) fn reply(profile: Profile, answer: Answer) -> Reply {
    match answer {
        Answer::Done => Reply::closed(profile),
        Answer::Refused { status, detail, counter_proposal } => {
            Reply::failed(status, detail, counter_proposal)
        }
        Answer::Opened { .. } => {
            log::error!(id = "agreement.contradiction"; "the key agreement answered close as if it were open-connect");
            Reply::contradiction()
        }
    }
}
