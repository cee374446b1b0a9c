//! Pushes key chunks to a KMS: POST key-material, one connection per key stream, several requests in flight.
//!
//! A chunk stays in the vault until the KMS has accepted it, and is encoded straight from there into a send buffer of
//! the same kind of memory. What is sent again is therefore the same octets under the same index.
//!
//! `sender` decides what is sent and what an answer means; it knows neither sockets nor clocks. `task` gives it
//! both.

mod answer;
mod backoff;
mod buffer;
mod connect;
mod connection;
mod counters;
mod excerpt;
mod flight;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handle;
#[cfg(feature = "measuring")]
pub mod measuring;
mod notices;
mod outbox;
mod queue;
mod reins;
mod report;
mod request;
mod sender;
mod task;
mod window;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::config;
use crate::interface::KeyStreamId;
use crate::tls::Tls;
use crate::vault::{Locking, VaultError};

use self::buffer::Pool;
use self::connect::Transport;

pub use self::answer::AnswerError;
pub use self::counters::{CountersSnapshot, LATENCY_BOUNDS_US, LatencySnapshot};
pub use self::handle::{
    CommandError, Delivery, DeliveryFault, MOST_EXTENTS, Meter, PushHandle, Refused, StopHow, StopUnconfirmed,
};
pub use self::report::{Failure, Report, Stopped};

/// Largest chunk that can be pushed, in octets.
pub const LARGEST_CHUNK: u32 = 1 << 20;

/// One key stream to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPush {
    /// Key stream.
    pub stream: KeyStreamId,
    /// Where its KMS takes key material, from the configuration and never from a request.
    pub endpoint: config::KmsEndpoint,
    /// Octets per chunk, 1 to [`LARGEST_CHUNK`].
    pub chunk_size: u32,
    /// Position of the first chunk.
    pub first: u64,
}

/// A key stream cannot be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// The chunk size is 0 or beyond [`LARGEST_CHUNK`].
    #[error("chunks of {0} bytes cannot be pushed: 1 to {LARGEST_CHUNK} can")]
    ChunkSize(u32),
    /// No memory for the send buffer, which holds key.
    #[error("no send buffer for the key stream: {0}")]
    Memory(#[from] VaultError),
}

/// Starts the tasks that push key streams.
#[derive(Clone, Debug)]
pub struct Pusher {
    settings: config::Push,
    transport: Transport,
    pool: Arc<Pool>,
    reports: mpsc::Sender<Report>,
}

impl Pusher {
    /// KMSs whose endpoints are https are reached with `tls`. All streams report to `reports`. A full queue delays reports, which are merged meanwhile, and nothing else.
    #[must_use]
    pub fn new(
        settings: config::Push,
        transport: &config::Transport,
        tls: Option<Arc<Tls>>,
        locking: Locking,
        reports: mpsc::Sender<Report>,
    ) -> Self {
        let beyond_loopback = transport.plain_text_beyond_loopback_gives_keys_away;
        let pool = Arc::new(Pool::new(locking));
        Self { settings, transport: Transport { beyond_loopback, tls }, pool, reports }
    }

    /// Starts the task of one key stream; call it within a tokio runtime. Nothing is connected before there is
    /// something to send.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub fn spawn(&self, what: StreamPush) -> Result<PushHandle, SpawnError> {
        if !(1..=LARGEST_CHUNK).contains(&what.chunk_size) {
            return Err(SpawnError::ChunkSize(what.chunk_size));
        }
        let (handle, reins) = PushHandle::new(what.stream, what.chunk_size, what.first);
        tokio::spawn(task::Task::new(self, what, reins)?.run());
        Ok(handle)
    }
}
