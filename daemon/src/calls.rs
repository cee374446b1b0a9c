//! Calls that the API hands to the engine, and their answers.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::interface::{KeyStreamId, Qos, QosRequest, Status};

/// One call of a KMS, with syntax and configuration already checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// OPEN_CONNECT.
    Open(Open),
    /// GET_KEY.
    GetKey(GetKey),
    /// CLOSE.
    Close(Close),
}

/// OPEN_CONNECT by a configured KMS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// URI of the local KMS that opens, one of the configured ones and either `source` or `destination`.
    pub kms: String,
    /// As in the request.
    pub source: String,
    /// As in the request.
    pub destination: String,
    /// `None`: the QKD module chooses.
    pub stream: Option<KeyStreamId>,
    /// As in the request.
    pub qos: QosRequest,
}

/// GET_KEY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetKey {
    /// URI of the local KMS that asks, where its certificate says so. Then another KMS's key stream is unknown to it.
    pub kms: Option<String>,
    /// Key stream.
    pub stream: KeyStreamId,
    /// Low 32 bits of the first position wanted; `None` says nothing.
    pub index: Option<u32>,
}

/// CLOSE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// As in [`GetKey::kms`].
    pub kms: Option<String>,
    /// Key stream.
    pub stream: KeyStreamId,
}

/// What the engine answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// OPEN_CONNECT succeeded: status 0 or 1.
    Opened {
        /// Key stream ID, given or chosen.
        stream: KeyStreamId,
        /// As registered.
        source: String,
        /// As registered.
        destination: String,
        /// As registered.
        qos: Qos,
        /// `Successful` or `PeerNotConnected`.
        status: Status,
    },
    /// GET_KEY or CLOSE succeeded.
    Done,
    /// The call failed and left everything as it was.
    Refused {
        /// Why, as a status of the interface.
        status: Status,
        /// Why, as a sentence for the KMS's operator. Never holds key.
        detail: String,
        /// With `QosNotMet`: what could be met.
        counter_proposal: Option<Qos>,
    },
}

/// The engine did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Too many calls wait already.
    #[error("too many calls are waiting for the key agreement; try again later")]
    Busy,
    /// No answer within the deadline.
    #[error("the key agreement gave no answer in time")]
    Late,
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

impl CallError {
    /// Each of them once.
    pub const EVERY: [Self; 3] = [Self::Busy, Self::Late, Self::Stopping];
}

/// A call on its way to the engine.
#[derive(Debug)]
pub struct Pending {
    /// The call.
    pub call: Call,
    /// Where its answer goes; dropped unanswered only when the daemon stops.
    pub reply: oneshot::Sender<Answer>,
}

/// The API's end of the bounded queue of calls.
#[derive(Clone, Debug)]
pub struct CallPort {
    queue: mpsc::Sender<Pending>,
}

impl CallPort {
    /// Makes a queue that holds at most `depth` calls.
    #[must_use]
    pub fn new(depth: usize) -> (Self, mpsc::Receiver<Pending>) {
        let (queue, receiver) = mpsc::channel(depth);
        (Self { queue }, receiver)
    }

    /// Hands `call` to the engine and waits for its answer, at most `deadline` long. The engine itself answers with
    /// status 6 at the stream's timeout, so `deadline` is the greatest timeout that the configuration allows, and some.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn ask(&self, call: Call, deadline: Duration) -> Result<Answer, CallError> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Pending { call, reply }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => CallError::Busy,
            mpsc::error::TrySendError::Closed(_) => CallError::Stopping,
        })?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(CallError::Stopping),
            Err(_) => Err(CallError::Late),
        }
    }
}
