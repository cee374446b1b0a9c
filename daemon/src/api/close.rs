//! close: no further key on a key stream.

use super::member::{Described, Member, StreamId};
use super::reply::Reply;
use super::schema::Members;
use crate::calls::{Answer, Call, Close};
use crate::config::Profile;
use crate::interface::Status;

/// Status of a request that breaks the schema.
pub(super) const REFUSAL: Status = Status::KeyStreamIdInUse;

/// Statuses of a request that is as it must be, and that the key agreement refuses.
pub(super) const FAILURES: &[Status] = &[Status::KeyStreamIdInUse, Status::Timeout];

/// The members of the request.
pub(super) const BODY: &[&dyn Described] = &[&KEY_STREAM_ID];

const KEY_STREAM_ID: Member<StreamId> =
    Member { name: "key_stream_id", kind: StreamId, about: "ID of the key stream." };

/// Reads the request into a call.
pub(super) fn call(kms: Option<String>, mut body: Members) -> Result<Call, Reply> {
    let stream = body.stream_id(&KEY_STREAM_ID).map_err(|why| Reply::bad_request(REFUSAL, why))?;
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
