//! The vocabulary of the ETSI GS QKD 004 push mode interface: status values and quality of service.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Key stream ID.
pub type KeyStreamId = Uuid;

/// The `status` of an answer or a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
#[repr(u32)]
pub enum Status {
    /// Successful.
    Successful = 0,
    /// Connected, but the peer is not.
    PeerNotConnected = 1,
    /// GET_KEY failed: insufficient key.
    InsufficientKey = 2,
    /// GET_KEY failed: peer application not yet connected.
    PeerApplicationNotConnected = 3,
    /// No QKD connection available.
    NoQkdConnection = 4,
    /// OPEN_CONNECT failed: key stream ID in use.
    KeyStreamIdInUse = 5,
    /// Timeout.
    Timeout = 6,
    /// OPEN failed: QoS cannot be met, counter-proposal returned.
    QosNotMet = 7,
    /// GET_KEY failed: metadata field too small, needed size returned.
    MetadataTooSmall = 8,
}

impl Status {
    /// What it means, in the interface's words.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Successful => "successful",
            Self::PeerNotConnected => "connected, but the peer is not",
            Self::InsufficientKey => "GET_KEY failed: insufficient key",
            Self::PeerApplicationNotConnected => "GET_KEY failed: peer application not yet connected",
            Self::NoQkdConnection => "no QKD connection available",
            Self::KeyStreamIdInUse => "OPEN_CONNECT failed: key stream ID in use",
            Self::Timeout => "timeout",
            Self::QosNotMet => "OPEN failed: QoS cannot be met, counter-proposal returned",
            Self::MetadataTooSmall => "GET_KEY failed: metadata field too small, needed size returned",
        }
    }
}

impl From<Status> for u32 {
    fn from(status: Status) -> Self {
        status as Self
    }
}

/// A status value that the interface does not define.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("status {0} is not one of 0 to 8")]
pub struct UnknownStatus(pub u32);

impl TryFrom<u32> for Status {
    type Error = UnknownStatus;

    fn try_from(value: u32) -> Result<Self, UnknownStatus> {
        Ok(match value {
            0 => Self::Successful,
            1 => Self::PeerNotConnected,
            2 => Self::InsufficientKey,
            3 => Self::PeerApplicationNotConnected,
            4 => Self::NoQkdConnection,
            5 => Self::KeyStreamIdInUse,
            6 => Self::Timeout,
            7 => Self::QosNotMet,
            8 => Self::MetadataTooSmall,
            other => return Err(UnknownStatus(other)),
        })
    }
}

/// Quality of service as a KMS asks for it: what is absent or null is left to the QKD module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QosRequest {
    /// Octets per key chunk.
    pub key_chunk_size: Option<u32>,
    /// Greatest rate in bit/s of key.
    pub max_bps: Option<u32>,
    /// Smallest rate in bit/s of key.
    pub min_bps: Option<u32>,
    /// Greatest deviation from the agreed rate in bit/s.
    pub jitter: Option<u32>,
    /// Larger is served first.
    pub priority: Option<u32>,
    /// Milliseconds after which a call on the stream is aborted with an error.
    pub timeout: Option<u32>,
    /// Seconds after which keys of the stream are erased.
    pub ttl: Option<u32>,
    /// Always taken as `application/json`.
    pub metadata_mimetype: Option<String>,
}

/// Quality of service as it is registered for a key stream, at both ends the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qos {
    /// Octets per key chunk, at least 1.
    pub key_chunk_size: u32,
    /// Greatest rate in bit/s of key; `u32::MAX`: no limit.
    pub max_bps: u32,
    /// Smallest rate in bit/s of key.
    pub min_bps: u32,
    /// Greatest deviation from the agreed rate in bit/s.
    pub jitter: u32,
    /// Larger is served first.
    pub priority: u32,
    /// Milliseconds after which a call on the stream is aborted with an error.
    pub timeout: u32,
    /// Seconds after which keys of the stream are erased.
    pub ttl: u32,
    /// Always `application/json`.
    pub metadata_mimetype: String,
}

#[cfg(test)]
impl Qos {
    /// One that is allowed, for tests of something else.
    pub(crate) fn for_tests() -> Self {
        Self {
            key_chunk_size: 32,
            max_bps: 1,
            min_bps: 0,
            jitter: 0,
            priority: 0,
            timeout: 1,
            ttl: 1,
            metadata_mimetype: "application/json".into(),
        }
    }
}
