//! Leads each key stream through its life: open, hand over the ID, get-key, close.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uuid::Uuid;

use super::handover::{self, Ids};
use super::module::{Failure, Module};
use super::receiver::{Receiver, Slot};

/// First and longest wait before a call is made again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Longest time that closing a stream may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked whether trouble of the KMS's own is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// With `reopen`: a stream that has been silent for so long is asked for again, which tells whether it is still there.
const SILENT_FOR: Duration = Duration::from_secs(2);
/// With `reopen`: a stream that has received, and whose get-key finds none for so long, is taken for one that has ended.
const UNKNOWN_FOR: Duration = Duration::from_secs(3);
/// With `reopen`: the same for a stream that was joined and to which nobody came. Its ID may be an old one.
const NO_PEER_FOR: Duration = Duration::from_secs(8);

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Opening,
    WaitingForPeer,
    Receiving,
    Closed,
    Failed,
}

/// One stream as the rest of the KMS sees it.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) stage: Stage,
    pub(super) id: Option<Uuid>,
    pub(super) slot: Option<Arc<Slot>>,
}

/// How a stream has ended.
enum End {
    /// The KMS has closed it.
    Closed,
    /// The modules have.
    Lost,
}

/// All streams of the KMS, in the order of the command line.
pub(super) struct Seats(Mutex<Vec<Seat>>);

impl Seats {
    pub(super) fn new(count: usize) -> Self {
        Self(Mutex::new(vec![Seat { stage: Stage::Opening, id: None, slot: None }; count]))
    }

    /// A copy for looking at.
    pub(super) fn all(&self) -> Vec<Seat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, number: usize, change: impl FnOnce(&mut Seat)) {
        if let Some(seat) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number) {
            change(seat);
        }
    }
}

/// Why a stream has not run as it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// A call failed for good, or for too long.
    #[error(transparent)]
    Call(#[from] Failure),
    /// No new ID came for a stream that has ended.
    #[error("cannot learn the ID of a new key stream: {0}")]
    Ids(std::io::Error),
    /// The ID could not be handed over.
    #[error("cannot write the key stream ID to {path}: {source}")]
    HandOver {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What all streams of one KMS have in common.
pub(super) struct Driver {
    pub(super) module: Module,
    pub(super) receiver: Arc<Receiver>,
    pub(super) seats: Seats,
    pub(super) ids_out: Option<PathBuf>,
    /// Opens a new stream for one that the modules have ended.
    pub(super) reopen: bool,
    /// Where the IDs of new streams come from, if this KMS joins.
    pub(super) ids_in: Option<Ids>,
    /// IDs taken from there.
    pub(super) taken: AtomicUsize,
    pub(super) index: Option<u32>,
    /// Longest time until a stream must be receiving.
    pub(super) patience: Duration,
    /// True when the KMS is to close its streams.
    pub(super) stop: watch::Receiver<bool>,
}

impl Driver {
    /// Leads stream `number` through its life, and with `reopen` through the lives of those that follow it. `id`: `None`
    /// lets the module choose.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub(super) async fn run(
        &self,
        number: usize,
        mut id: Option<Uuid>,
        joins: bool,
    ) -> Result<(), StreamError> {
        let result = loop {
            match self.live(number, id, joins).await {
                Ok(End::Closed) => break Ok(()),
                Ok(End::Lost) if *self.stop.borrow() => break Ok(()),
                Err(error) if !self.reopen || *self.stop.borrow() => break Err(error),
                Ok(End::Lost) => {}
                Err(error) => log::warn!("stream {number}: {error}; trying a new one"),
            }
            self.seats.change(number, |seat| seat.stage = Stage::Opening);
            match self.new_id().await {
                Ok(new) => id = new,
                Err(_) if *self.stop.borrow() => break Ok(()),
                Err(error) => break Err(StreamError::Ids(error)),
            }
        };
        let stage = if result.is_ok() { Stage::Closed } else { Stage::Failed };
        self.seats.change(number, |seat| seat.stage = stage);
        result
    }

    /// The ID for a new stream; `None` where the module is to choose.
    async fn new_id(&self) -> std::io::Result<Option<Uuid>> {
        let Some(ids) = &self.ids_in else { return Ok(None) };
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let mut stop = self.stop.clone();
        let all = tokio::select! {
            all = handover::take(ids, before + 1, self.patience) => all?,
            // An error means that nobody is there to say it any more.
            _ = stop.wait_for(|stop| *stop) => return Err(std::io::ErrorKind::Interrupted.into()),
        };
        Ok(all.last().copied())
    }

    async fn live(&self, number: usize, id: Option<Uuid>, joins: bool) -> Result<End, StreamError> {
        let until = Instant::now() + self.patience;
        let journal = &self.receiver.journal;
        let Some(granted) = self.patiently(until, || self.module.open(number, id, journal)).await? else {
            return Ok(End::Closed);
        };
        let slot = self.receiver.expect(granted.stream, granted.chunk_size);
        log::info!(
            "stream {} is open: status {}, {} octets per chunk",
            granted.stream,
            granted.status,
            granted.chunk_size
        );
        self.seats.change(number, |seat| {
            *seat = Seat {
                stage: Stage::WaitingForPeer,
                id: Some(granted.stream),
                slot: Some(Arc::clone(&slot)),
            };
        });
        if let Some(path) = self.ids_out.as_ref().filter(|_| !joins) {
            handover::give(path, granted.stream)
                .map_err(|source| StreamError::HandOver { path: path.clone(), source })?;
        }
        slot.lock().asked();
        // An ID that comes late may be of a stream that has ended as well: then there is another one behind it.
        let until = if self.reopen && joins { Instant::now() + NO_PEER_FOR } else { until };
        let asked = self.patiently(until, || self.module.get_key(granted.stream, self.index, journal)).await;
        let mut end = End::Closed;
        if matches!(asked, Ok(Some(()))) {
            self.seats.change(number, |seat| seat.stage = Stage::Receiving);
            end = self.receive(granted.stream, &slot).await;
        }
        // Whatever happened, the stream is not left open at the module.
        let closed = self.close(granted.stream).await;
        if closed.is_ok() {
            slot.lock().closed();
        }
        asked?;
        match end {
            // The module may have no such stream any more.
            End::Lost => Ok(end),
            End::Closed => closed.map(|()| end).map_err(Into::into),
        }
    }

    /// Waits until the KMS is to stop, or with `reopen` until the stream has ended. A stream that the KMS has suspended by
    /// refusing a chunk is asked for again, once the trouble is over.
    async fn receive(&self, id: Uuid, slot: &Slot) -> End {
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                // An error means that nobody is there to say it any more.
                _ = stop.wait_for(|stop| *stop) => return End::Closed,
                () = slot.suspended() => {}
                () = slot.left_alone(), if self.reopen => {
                    log::warn!("stream {id} has ended: the module says that the other end is closed");
                    return End::Lost;
                }
                () = slot.silent(SILENT_FOR), if self.reopen => {}
            }
            while self.receiver.trouble().is_some() && !*stop.borrow() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            let journal = &self.receiver.journal;
            let patience = if self.reopen { UNKNOWN_FOR } else { self.patience };
            let until = Instant::now() + patience;
            match self.patiently(until, || self.module.get_key(id, None, journal)).await {
                Ok(Some(())) => log::info!("stream {id}: asked for key again"),
                Ok(None) => return End::Closed,
                Err(error) if self.reopen && error.knows_no_stream() => {
                    log::warn!("stream {id} has ended: {error}");
                    return End::Lost;
                }
                Err(error) => log::error!("stream {id} stays suspended: {error}"),
            }
        }
    }

    async fn close(&self, id: Uuid) -> Result<(), Failure> {
        let until = Instant::now() + CLOSE_WITHIN;
        let (_always, go_on) = watch::channel(false);
        again(until, go_on, || self.module.close(id, &self.receiver.journal)).await.map(|_| ())
    }

    /// Makes a call until it succeeds, fails for good, or `until` has passed. `None`: the KMS is to stop.
    async fn patiently<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        until: Instant,
        call: impl FnMut() -> F,
    ) -> Result<Option<T>, Failure> {
        again(until, self.stop.clone(), call).await
    }
}

/// A call that is under way is never dropped: the module may have done what it asks.
async fn again<T, F: Future<Output = Result<T, Failure>>>(
    until: Instant,
    mut stop: watch::Receiver<bool>,
    mut call: impl FnMut() -> F,
) -> Result<Option<T>, Failure> {
    let (mut wait, longest) = BACK_OFF;
    while !*stop.borrow() {
        match call().await {
            Err(failure) if failure.passes() && Instant::now() + wait < until => {
                log::debug!("{failure}; trying again in {} ms", wait.as_millis());
                // Whether the time or the stop comes first is seen above.
                let _ = tokio::time::timeout(wait, stop.wait_for(|stop| *stop)).await;
                wait = longest.min(wait * 2);
            }
            result => return result.map(Some),
        }
    }
    Ok(None)
}
