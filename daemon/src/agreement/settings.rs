//! What the core is told once, at its start.

use serde::{Deserialize, Serialize};

use super::names::BlockName;

/// Which end decides the key agreement. Fixed when the pair is set up; changing it starts a new epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Decides what is granted, in one ordered log.
    Leader,
    /// Applies the log.
    Follower,
}

impl Role {
    /// The role of the other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Leader => Self::Follower,
            Self::Follower => Self::Leader,
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
        })
    }
}

/// Room for key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Octets.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u64,
}

impl Capacity {
    /// The smaller of both in each measure.
    #[must_use]
    pub fn smaller(self, other: Self) -> Self {
        Self { bytes: self.bytes.min(other.bytes), blocks: self.blocks.min(other.blocks) }
    }
}

/// What the engine has read from the card before it makes the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardFacts {
    /// Serial number of this end's card.
    pub serial: u64,
    /// Serial number of the other end's card, as this card names it.
    pub peer_serial: u64,
    /// The host's monotone cell on the card. Ahead of the ledger's write number: the ledger is stale.
    pub cell: u64,
    /// Newest block that the card had announced when it was opened; `None` where it had announced none since its power
    /// came on. With a fresh ledger everything up to here is burnt.
    pub newest: Option<BlockName>,
    /// What the card keeps until it is acknowledged.
    pub retention: Capacity,
}

/// Settings of the core. Sizes are octets, times milliseconds unless named otherwise.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this module, for the log of the other end.
    pub module: String,
    /// This end's role.
    pub role: Role,
    /// The card.
    pub card: CardFacts,
    /// Names the run of the operating system (`/proc/sys/kernel/random/boot_id`): the boot time of another run says
    /// nothing about age.
    pub boot_id: u128,
    /// URIs of the KMSs at this end.
    pub local_kms: Vec<String>,
    /// Room in the vault.
    pub vault_bytes: u64,
    /// Chunk size of a stream that asks for none.
    pub default_chunk_size: u32,
    /// Largest chunk size.
    pub largest_chunk_size: u32,
    /// Timeout of a stream that asks for none, and of a call on no stream.
    pub default_timeout_ms: u32,
    /// Longest timeout; longer wishes are cut to it.
    pub greatest_timeout_ms: u32,
    /// Time to live in seconds of a stream that asks for none.
    pub default_ttl_s: u32,
    /// Longest time to live in seconds; longer wishes are cut to it. Also the longest that an end keeps what was granted
    /// after the other has closed.
    pub greatest_ttl_s: u32,
    /// Priority of a stream that asks for none.
    pub default_priority: u32,
    /// After this a stream ends that only one KMS has opened, or that nobody asked for key.
    pub half_open_expiry_ms: u64,
    /// Streams at once.
    pub most_streams: usize,
    /// Streams at once that one KMS has opened.
    pub most_streams_per_kms: usize,
    /// Streams at once that one KMS has opened and the other has not.
    pub most_half_open_per_kms: usize,
    /// IDs of closed streams that are remembered. When full, predefined IDs are refused.
    pub most_closed_ids: usize,
    /// Calls that may wait at once.
    pub most_waiting_calls: usize,
    /// Of these, calls of one KMS.
    pub most_waiting_calls_per_kms: usize,
    /// Key that may be granted to one stream and not yet be accepted at the slower end.
    pub window_bytes: u64,
    /// The same in chunks. At least 2 chunks are always allowed.
    pub window_chunks: u64,
    /// Log entries that the follower may not have applied yet.
    pub most_entries_in_flight: u64,
    /// Shortest time between two reports of the follower, but for the first few after a pause.
    pub report_interval_ms: u64,
    /// Longest time between two messages to the other end.
    pub keep_alive_ms: u64,
    /// After this without progress the log is sent again.
    pub resend_ms: u64,
    /// Longest time before what the KMS has accepted is written to the ledger.
    pub progress_interval_ms: u64,
    /// Whether the KMS is told of trouble.
    pub notices: bool,
}

impl Settings {
    /// Settings with the usual values, for a module `module` in `role` with `card` and `local_kms`.
    #[must_use]
    pub fn new(module: String, role: Role, card: CardFacts, boot_id: u128, local_kms: Vec<String>) -> Self {
        Self {
            module,
            role,
            card,
            boot_id,
            local_kms,
            vault_bytes: 64 << 20,
            default_chunk_size: 32,
            largest_chunk_size: 64 << 10,
            default_timeout_ms: 5_000,
            greatest_timeout_ms: 60_000,
            default_ttl_s: 3_600,
            greatest_ttl_s: 86_400,
            default_priority: 0,
            half_open_expiry_ms: 60_000,
            most_streams: 1_024,
            most_streams_per_kms: 512,
            most_half_open_per_kms: 64,
            most_closed_ids: 100_000,
            most_waiting_calls: 1_024,
            most_waiting_calls_per_kms: 256,
            window_bytes: 1 << 20,
            window_chunks: 16_384,
            most_entries_in_flight: 512,
            report_interval_ms: 5,
            keep_alive_ms: 500,
            resend_ms: 500,
            progress_interval_ms: 100,
            notices: true,
        }
    }

    /// Room for key at this end: the smaller of vault and card.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        Capacity {
            bytes: self.vault_bytes.min(self.card.retention.bytes),
            blocks: self.card.retention.blocks,
        }
    }
}
