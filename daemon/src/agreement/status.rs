//! Read-only views of the core, for status and metrics.

use super::event::LossCause;
use super::names::{Mark, Position};
use super::settings::{Capacity, Role};
use crate::interface::{KeyStreamId, Qos};

/// How the core stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This end's role.
    pub role: Role,
    /// Epoch; 0 for none yet.
    pub epoch: u64,
    /// Number of the last log entry here.
    pub last: u64,
    /// At the leader: number of the last entry that the follower has applied; at the follower the same as `last`.
    pub agreed: u64,
    /// A connection to the other end stands.
    pub connected: bool,
    /// The handshake with the other end is done.
    pub in_step: bool,
    /// Everything below is used up.
    pub mark: Mark,
    /// Blocks in the vault.
    pub held: Capacity,
    /// Of these, blocks of which something granted is not settled yet.
    pub pinned: Capacity,
    /// Key streams that live.
    pub streams: usize,
    /// IDs of closed streams that are remembered.
    pub closed_ids: usize,
    /// Counters since the core started.
    pub counters: Counters,
}

/// Counters since the core started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Grants made (leader) or applied (follower).
    pub grants: u64,
    /// Octets granted.
    pub granted_bytes: u64,
    /// Octets given to push.
    pub delivered_bytes: u64,
    /// Octets held at this end that were burnt: known to be missing at one end, or of an epoch before.
    pub burnt_bytes: u64,
    /// Chunks lost, by cause in the order of [`LossCause::ALL`].
    pub lost_chunks: [u64; LossCause::ALL.len()],
    /// Epochs begun.
    pub epochs: u64,
    /// Messages of the other end that broke the protocol.
    pub peer_faults: u64,
}

/// How a stream stands at this end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamStatus<'a> {
    /// Key stream.
    pub stream: KeyStreamId,
    /// One KMS.
    pub source: &'a str,
    /// The other.
    pub destination: &'a str,
    /// As registered.
    pub qos: &'a Qos,
    /// This end's KMS has opened it.
    pub opened: bool,
    /// The other end's KMS has opened it.
    pub peer_opened: bool,
    /// This end's KMS has sent get-key.
    pub wanted: bool,
    /// This end is closed.
    pub closed: bool,
    /// Push waits for the KMS's next get-key.
    pub suspended: bool,
    /// Everything below is settled at this end.
    pub position: Position,
    /// Everything below has been granted or skipped.
    pub next: Position,
    /// Nothing is granted because of the KMS at the other end.
    pub held_up: Option<HeldUp>,
    /// Chunks lost at this end, by cause in the order of [`LossCause::ALL`].
    pub lost: [u64; LossCause::ALL.len()],
}

/// A stream whose KMS at this end has accepted all that was granted, while the one at the other end has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldUp {
    /// Chunks that it has yet to accept, by what was last heard.
    pub chunks: u64,
    /// Since when nothing was granted, boot time in ms.
    pub since_ms: u64,
}
