//! What the two daemons say to each other: JSON objects, one in each frame of the peer link.

use qkd_contract::state::LinkState;
use serde::{Deserialize, Serialize};

use super::check::{
    KMS_MAX, MESSAGE_BYTES_MAX, PeerFault, check_log, check_qos, check_report, excerpt, few, short,
};
use super::entry::{Digest, Entry};
use super::names::{BlockName, Position};
use super::settings::{Capacity, Role};
use crate::interface::{KeyStreamId, Qos, QosRequest, Status};

/// Version of the peer protocol.
pub const PROTOCOL_VERSION: u32 = 1;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// First of each connection, both ways.
    Hello(Hello),
    /// The sender will not work with the other end.
    Refuse {
        /// Why, in words.
        reason: String,
    },
    /// From the leader: entries, and how its streams stand.
    Log(Log),
    /// From the follower: how far it is, what it has.
    Report(Report),
    /// From the follower: one of its KMSs opens a key stream.
    OpenRequest(OpenRequest),
    /// From the leader: what became of it.
    OpenReply(OpenReply),
}

/// Who one is and how far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the protocol.
    pub version: u32,
    /// The sender's role.
    pub role: Role,
    /// The sender's name.
    pub module: String,
    /// Epoch; 0 for a ledger that knows nothing.
    pub epoch: u64,
    /// Number of the last entry.
    pub last: u64,
    /// Its hash.
    pub hash: Digest,
    /// Serial number of the sender's card.
    pub card: u64,
    /// Serial number of the card at the other end, as the sender's card names it.
    pub peer_card: u64,
    /// URIs of the sender's KMSs.
    pub kms: Vec<String>,
    /// The sender has heard the other end's greeting on this connection.
    #[serde(default)]
    pub heard: bool,
}

/// From the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Epoch.
    pub epoch: u64,
    /// `serial` of the last report that the leader has heard on this connection, 0 for none.
    pub heard: u64,
    /// Entries with rising numbers without gaps.
    pub entries: Vec<Entry>,
    /// How streams stand at the leader: those that changed, and others in turn.
    pub streams: Vec<LeaderLine>,
}

/// How a stream stands at the leader. What has become true stays true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderLine {
    /// Key stream.
    pub stream: KeyStreamId,
    /// The leader's KMS has opened it.
    pub opened: bool,
    /// It has sent get-key.
    pub wanted: bool,
    /// The leader's end is closed.
    pub closed: bool,
    /// Chunks that the leader's KMS has yet to accept, where they are more than half of the window. Told for those who watch;
    /// nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<u64>,
}

/// From the follower. All of it but `streams` is the whole truth at the time of `serial`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Epoch.
    pub epoch: u64,
    /// Counts the reports of a run of the follower from 1; one that is not newer than the last that was heard on this
    /// connection is not heeded.
    pub serial: u64,
    /// The follower waits for a log message that has heard this report.
    pub urgent: bool,
    /// Number of the last entry applied, durably.
    pub applied: u64,
    /// Its hash.
    pub hash: Digest,
    /// Blocks that the follower holds and that are not wholly used up.
    pub have: Vec<Range>,
    /// Every block below this one the follower has, had, or has lost for good.
    pub complete: BlockName,
    /// How streams stand at the follower: those that changed, and others in turn.
    pub streams: Vec<FollowerLine>,
    /// State of the QKD link as in the card's register, see [`LinkState`].
    pub link: u32,
    /// Secret key rate in bit/s.
    pub secret_key_rate_bps: u64,
    /// Room for key at the follower.
    pub capacity: Capacity,
    /// Of that, taken by blocks of which something granted is not accepted yet.
    pub pinned: Capacity,
}

impl Report {
    /// Whether the follower's link distils key.
    #[must_use]
    pub fn distilling(&self) -> bool {
        self.link == LinkState::Distilling.value()
    }
}

/// Blocks of one session with consecutive numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u64)", into = "(u64, u64, u64)")]
pub struct Range {
    /// Session.
    pub session: u64,
    /// First sequence number.
    pub first: u64,
    /// Last sequence number.
    pub last: u64,
}

impl From<(u64, u64, u64)> for Range {
    fn from((session, first, last): (u64, u64, u64)) -> Self {
        Self { session, first, last }
    }
}

impl From<Range> for (u64, u64, u64) {
    fn from(r: Range) -> Self {
        (r.session, r.first, r.last)
    }
}

/// How a stream stands at the follower. Flags and positions only rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerLine {
    /// Key stream.
    pub stream: KeyStreamId,
    /// The follower's KMS has opened it.
    pub opened: bool,
    /// It has sent get-key.
    pub wanted: bool,
    /// The follower's end is closed.
    pub closed: bool,
    /// Everything below is accepted or lost at the follower.
    pub position: Position,
    /// First position that its KMS wants, 0 where it said nothing.
    pub wish: Position,
}

/// A KMS at the follower opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRequest {
    /// Names the call on this connection.
    pub call: u64,
    /// Key stream.
    pub stream: KeyStreamId,
    /// Whether the follower has chosen `stream` itself.
    pub chosen: bool,
    /// The KMS that opens.
    pub kms: String,
    /// As in the call.
    pub source: String,
    /// As in the call.
    pub destination: String,
    /// As in the call.
    pub qos: QosRequest,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenReply {
    /// As in the request.
    pub call: u64,
    /// As in the request.
    pub stream: KeyStreamId,
    /// `Successful` and `PeerNotConnected`: registered.
    pub status: Status,
    /// Why not, in words.
    pub detail: String,
    /// With `QosNotMet`: what could be met.
    pub counter_proposal: Option<Qos>,
}

impl Message {
    /// The message as JSON.
    ///
    /// # Errors
    /// [`PeerFault::TooLong`] where it exceeds [`MESSAGE_BYTES_MAX`]; the core never makes such a message.
    pub fn encode(&self) -> Result<Vec<u8>, PeerFault> {
        let json = serde_json::to_vec(self).map_err(|e| PeerFault::Malformed(e.to_string()))?;
        if json.len() > MESSAGE_BYTES_MAX { Err(PeerFault::TooLong(json.len())) } else { Ok(json) }
    }

    /// Reads a frame and holds it against the limits of the protocol.
    ///
    /// # Errors
    /// What is wrong with it. The caller ends the connection and sends [`Message::Refuse`] with these words first.
    pub fn decode(frame: &[u8]) -> Result<Self, PeerFault> {
        if frame.len() > MESSAGE_BYTES_MAX {
            return Err(PeerFault::TooLong(frame.len()));
        }
        let message: Self =
            serde_json::from_slice(frame).map_err(|e| PeerFault::Malformed(excerpt(&e.to_string())))?;
        message.check()?;
        Ok(message)
    }

    /// Holds the message against the limits of the protocol. The core does so with every message that it is given.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), PeerFault> {
        match self {
            Self::Hello(hello) => {
                few("KMS URIs", hello.kms.len(), KMS_MAX)?;
                hello.kms.iter().try_for_each(|uri| short("a KMS URI", uri))?;
                short("the module's name", &hello.module)
            }
            Self::Refuse { reason } => short("the reason", reason),
            Self::Log(log) => check_log(log),
            Self::Report(report) => check_report(report),
            Self::OpenRequest(request) => {
                short("the KMS's URI", &request.kms)?;
                short("the source", &request.source)?;
                short("the destination", &request.destination)?;
                short("the mimetype", request.qos.metadata_mimetype.as_deref().unwrap_or_default())
            }
            Self::OpenReply(reply) => {
                short("the detail", &reply.detail)?;
                reply.counter_proposal.as_ref().map_or(Ok(()), check_qos)
            }
        }
    }
}
