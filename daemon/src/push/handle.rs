//! How the engine steers the pushing of one key stream.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::counters::{Counters, CountersSnapshot, Latencies, LatencySnapshot};
use super::reins::Reins;
use super::report::Stopped;
use crate::interface::{KeyStreamId, Status};
use crate::vault::KeyExtent;

/// Most extents that wait for one stream. The key agreement's window keeps far below it.
pub const MOST_EXTENTS: usize = 262_144;
/// Places in the queue of commands beside those of deliveries.
const CONTROL_PLACES: usize = 256;

/// Key for chunks in a row.
#[derive(Debug)]
pub struct Delivery {
    /// Position of the first chunk.
    pub first: u64,
    /// Chunks, at least 1.
    pub count: u32,
    /// The key: end to end, `count` times the chunk size in octets.
    pub key: Vec<KeyExtent>,
}

/// Why a delivery is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryFault {
    /// Key and count do not agree.
    #[error("the key has {octets} octets, but its chunks need {needed}")]
    WrongLength {
        /// Octets there are.
        octets: u64,
        /// Octets there must be; 0 when the count is 0, which is never right.
        needed: u64,
    },
    /// A position would be delivered again.
    #[error("the delivery begins at position {first}, but positions below {next} were delivered before")]
    Behind {
        /// First position of the delivery.
        first: u64,
        /// Lowest position that may come.
        next: u64,
    },
    /// Beyond the last position whose octets can be numbered with 64 bits.
    #[error("position {first} and what follows is beyond what a key stream can hold")]
    TooFar {
        /// First position of the delivery.
        first: u64,
    },
    /// See [`MOST_EXTENTS`].
    #[error("more than {MOST_EXTENTS} extents would wait for the KMS")]
    Full,
    /// The stream is no longer pushed.
    #[error("the key stream is no longer pushed")]
    Ended,
}

/// A refused delivery, given back whole.
#[derive(Debug, thiserror::Error)]
#[error("delivery refused: {why}")]
pub struct Refused {
    /// What was refused.
    pub delivery: Delivery,
    /// Why.
    pub why: DeliveryFault,
}

/// A command did not reach the stream's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Too many commands wait.
    #[error("too many commands wait for the key stream's task; try again")]
    Busy,
    /// The stream is no longer pushed.
    #[error("the key stream is no longer pushed")]
    Ended,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopHow {
    /// At once: the connection is cut, and what has not reached the KMS is taken back.
    Now,
    /// No key chunk is sent any more. Chunks on their way are settled and waiting notices tried once, for at most
    /// the answer deadline; then as [`StopHow::Now`].
    AfterInFlight,
}

/// The stream's task has ended without a word, which only a panic or the runtime's end can cause. Everything it held
/// is wiped and its connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key stream's task has ended before it could confirm its stop")]
pub struct StopUnconfirmed;

#[derive(Debug)]
pub(super) enum Command {
    Deliver(Delivery),
    Discard(u64),
    Resume,
    Notice(Status, u64),
}

#[derive(Debug)]
pub(super) struct StopOrder {
    pub(super) how: StopHow,
    pub(super) confirm: oneshot::Sender<Stopped>,
}

/// What handle and task share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) counters: Counters,
    pub(super) latencies: Latencies,
    /// Extents delivered and not wiped yet.
    pub(super) extents: AtomicUsize,
}

/// Reads the counters of one key stream's pushing.
#[derive(Clone, Debug)]
pub struct Meter(Arc<Shared>);

impl Meter {
    /// Counters and latencies of this moment.
    #[must_use]
    pub fn read(&self) -> (CountersSnapshot, LatencySnapshot) {
        (self.0.counters.snapshot(), self.0.latencies.snapshot())
    }
}

/// Steers the pushing of one key stream. Dropped without [`PushHandle::stop`], it stops as with [`StopHow::Now`].
#[derive(Debug)]
pub struct PushHandle {
    stream: KeyStreamId,
    chunk_size: u32,
    next: u64,
    commands: mpsc::Sender<Command>,
    stop: oneshot::Sender<StopOrder>,
    shared: Arc<Shared>,
}

impl PushHandle {
    pub(super) fn new(stream: KeyStreamId, chunk_size: u32, first: u64) -> (Self, Reins) {
        let (commands, receiver) = mpsc::channel(MOST_EXTENTS + CONTROL_PLACES);
        let (stop, stop_receiver) = oneshot::channel();
        let shared = Arc::new(Shared::default());
        let reins = Reins::new(receiver, stop_receiver, Arc::clone(&shared));
        (Self { stream, chunk_size, next: first, commands, stop, shared }, reins)
    }

    /// Key stream.
    #[must_use]
    pub fn stream(&self) -> KeyStreamId {
        self.stream
    }

    /// Lowest position that a delivery may begin with.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.next
    }

    /// Hands over key that may be sent. It begins where the last delivery ended, or later when positions are skipped.
    ///
    /// # Errors
    /// See [`DeliveryFault`]; the delivery comes back whole.
    pub fn deliver(&mut self, delivery: Delivery) -> Result<(), Refused> {
        let end = match self.check(&delivery) {
            Ok(end) => end,
            Err(why) => return Err(Refused { delivery, why }),
        };
        let permit = match self.commands.try_reserve() {
            Ok(permit) => permit,
            Err(mpsc::error::TrySendError::Full(())) => {
                return Err(Refused { delivery, why: DeliveryFault::Full });
            }
            Err(mpsc::error::TrySendError::Closed(())) => {
                return Err(Refused { delivery, why: DeliveryFault::Ended });
            }
        };
        self.shared.extents.fetch_add(delivery.key.len(), Ordering::Relaxed);
        permit.send(Command::Deliver(delivery));
        self.next = end;
        Ok(())
    }

    /// One past the delivery's last position.
    fn check(&self, delivery: &Delivery) -> Result<u64, DeliveryFault> {
        let first = delivery.first;
        let octets = delivery.key.iter().map(|extent| extent.length() as u64).sum::<u64>();
        let needed = u64::from(delivery.count) * u64::from(self.chunk_size);
        if octets != needed || needed == 0 {
            return Err(DeliveryFault::WrongLength { octets, needed });
        }
        if first < self.next {
            return Err(DeliveryFault::Behind { first, next: self.next });
        }
        let end = first
            .checked_add(u64::from(delivery.count))
            .filter(|end| end.checked_mul(u64::from(self.chunk_size)).is_some())
            .ok_or(DeliveryFault::TooFar { first })?;
        let waiting = self.shared.extents.load(Ordering::Relaxed);
        if waiting.saturating_add(delivery.key.len()) > MOST_EXTENTS {
            return Err(DeliveryFault::Full);
        }
        Ok(end)
    }

    /// Sends nothing below `up_to` any more, neither for the first time nor again, and wipes it. Requests on their way
    /// are still settled. Holds for deliveries to come as well.
    ///
    /// # Errors
    /// See [`CommandError`]; nothing is discarded then.
    pub fn discard(&self, up_to: u64) -> Result<(), CommandError> {
        self.command(Command::Discard(up_to))
    }

    /// Goes on after [`super::Report::Suspended`], from the same chunk.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn resume(&self) -> Result<(), CommandError> {
        self.command(Command::Resume)
    }

    /// Sends a notice: `status` with no key and the index of `position`, with nothing else on its way. Tried a few
    /// times; a KMS that does not take it gets its keys all the same.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn notice(&self, status: Status, position: u64) -> Result<(), CommandError> {
        self.command(Command::Notice(status, position))
    }

    /// Stops pushing and wipes what is left. The order is given by the call; the future gives the confirmation, after
    /// which nothing of the stream is on its way. [`super::Report::Stopped`] comes as well.
    ///
    /// The confirmation comes within the answer deadline, at once with [`StopHow::Now`].
    pub fn stop(
        self,
        how: StopHow,
    ) -> impl Future<Output = Result<Stopped, StopUnconfirmed>> + Send + 'static {
        let (confirm, confirmed) = oneshot::channel();
        // A task that is gone drops `confirm`, which the future reports.
        let _ = self.stop.send(StopOrder { how, confirm });
        async move { confirmed.await.map_err(|_| StopUnconfirmed) }
    }

    /// Counters of this moment.
    #[must_use]
    pub fn counters(&self) -> CountersSnapshot {
        self.shared.counters.snapshot()
    }

    /// What reads the counters, also after the stream has stopped.
    #[must_use]
    pub fn meter(&self) -> Meter {
        Meter(Arc::clone(&self.shared))
    }

    fn command(&self, command: Command) -> Result<(), CommandError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CommandError::Busy,
            mpsc::error::TrySendError::Closed(_) => CommandError::Ended,
        })
    }
}
