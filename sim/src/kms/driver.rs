//! Leads each key stream through its life: open, hand over the ID, get-key, close.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uuid::Uuid;

use super::handover;
use super::module::{Failure, Module};
use super::receiver::{Receiver, Slot};

/// First and longest wait before a call is made again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Longest time that closing a stream may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked whether trouble of the KMS's own is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);

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
    pub(super) index: Option<u32>,
    /// Longest time until a stream must be receiving.
    pub(super) patience: Duration,
    /// True when the KMS is to close its streams.
    pub(super) stop: watch::Receiver<bool>,
}

impl Driver {
    /// Leads stream `number` through its life. `id`: `None` lets the module choose.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub(super) async fn run(&self, number: usize, id: Option<Uuid>, joins: bool) -> Result<(), StreamError> {
        let result = self.live(number, id, joins).await;
        let stage = if result.is_ok() { Stage::Closed } else { Stage::Failed };
        self.seats.change(number, |seat| seat.stage = stage);
        result
    }

    async fn live(&self, number: usize, id: Option<Uuid>, joins: bool) -> Result<(), StreamError> {
        let until = Instant::now() + self.patience;
        let journal = &self.receiver.journal;
        let Some(granted) = self.patiently(until, || self.module.open(number, id, journal)).await? else {
            return Ok(());
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
        let asked = self.patiently(until, || self.module.get_key(granted.stream, self.index, journal)).await;
        if matches!(asked, Ok(Some(()))) {
            self.seats.change(number, |seat| seat.stage = Stage::Receiving);
            self.receive(granted.stream, &slot).await;
        }
        // Whatever happened, the stream is not left open at the module.
        let closed = self.close(granted.stream).await;
        if closed.is_ok() {
            slot.lock().closed();
        }
        asked?;
        Ok(closed?)
    }

    /// Waits until the KMS is to stop. A stream that the KMS has suspended by refusing a chunk is asked for again, once
    /// the trouble is over.
    async fn receive(&self, id: Uuid, slot: &Slot) {
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                // An error means that nobody is there to say it any more.
                _ = stop.wait_for(|stop| *stop) => return,
                () = slot.suspended() => {}
            }
            while self.receiver.trouble().is_some() && !*stop.borrow() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            let until = Instant::now() + self.patience;
            match self.patiently(until, || self.module.get_key(id, None, &self.receiver.journal)).await {
                Ok(Some(())) => log::info!("stream {id}: asked for key again"),
                Ok(None) => return,
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
