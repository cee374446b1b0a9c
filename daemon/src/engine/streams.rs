//! The pushers of this end's key streams.

use std::collections::{HashMap, HashSet};

use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

use super::tally::{Tally, Totals};
use crate::agreement::{Delivery, Event, Position};
use crate::config::KmsEndpoint;
use crate::interface::{KeyStreamId, Status};
use crate::push::{self, CommandError, DeliveryFault, PushHandle, Pusher, Report, StopHow, StreamPush};
use crate::vault::KeyExtent;

/// A pusher did not take what it must take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushFault {
    /// The local KMS of a stream is not in the configuration.
    #[error("key stream {stream} belongs to KMS {kms}, which is not configured")]
    UnknownKms {
        /// Key stream.
        stream: KeyStreamId,
        /// The KMS.
        kms: String,
    },
    /// The key agreement named a stream that has not begun.
    #[error("key stream {0} is not known to push")]
    Missing(KeyStreamId),
    /// A delivery was refused.
    #[error("key stream {stream}: {fault}")]
    Delivery {
        /// Key stream.
        stream: KeyStreamId,
        /// Why.
        fault: DeliveryFault,
    },
    /// A command that must not get lost was refused.
    #[error("key stream {stream}: {fault}")]
    Command {
        /// Key stream.
        stream: KeyStreamId,
        /// Why.
        fault: CommandError,
    },
}

/// Time between two attempts to start pushers for which there was no memory.
const START_AGAIN: Duration = Duration::from_secs(1);

/// One key stream at this end.
enum Pushing {
    /// It has no pusher yet: nothing was to be sent, or there was no memory for it. What comes waits in the vault, as
    /// much as the agreement's window allows.
    Waiting { what: StreamPush, deliveries: Vec<push::Delivery>, discard: Position },
    /// It has one, which was made of this.
    Running { handle: PushHandle, what: StreamPush },
}

/// Pushers by key stream.
pub(super) struct Streams {
    pusher: Pusher,
    endpoints: HashMap<String, KmsEndpoint>,
    streams: HashMap<KeyStreamId, Pushing>,
    /// Streams whose pusher could not be started, and when to try again.
    unstarted: HashSet<KeyStreamId>,
    start_again: Instant,
    stopped: mpsc::UnboundedSender<(KeyStreamId, Position)>,
    wiped: mpsc::UnboundedSender<()>,
    tally: Tally,
}

impl Streams {
    /// `stopped` gets each stream that has been stopped, with the first position never sent; as many messages as
    /// there were stops. `wiped` gets one message for each pusher of [`Streams::wipe_all`].
    pub(super) fn new(
        pusher: Pusher,
        endpoints: HashMap<String, KmsEndpoint>,
        stopped: mpsc::UnboundedSender<(KeyStreamId, Position)>,
        wiped: mpsc::UnboundedSender<()>,
    ) -> Self {
        Self {
            pusher,
            endpoints,
            streams: HashMap::new(),
            unstarted: HashSet::new(),
            start_again: Instant::now(),
            stopped,
            wiped,
            tally: Tally::default(),
        }
    }

    /// What all pushers have counted, those that have ended included.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = self.tally.totals();
        for pushing in self.streams.values() {
            if let Pushing::Running { handle, what } = pushing {
                totals.add(&handle.meter(), what.chunk_size);
            }
        }
        totals
    }

    /// Everything of a stream below this was handed to its pusher; `None`: it has none.
    pub(super) fn delivered(&self, stream: KeyStreamId) -> Option<Position> {
        match self.streams.get(&stream)? {
            Pushing::Running { handle, .. } => Some(handle.next_position()),
            Pushing::Waiting { .. } => None,
        }
    }

    /// A stream lives at this end. Its pusher, which costs memory, is started when there is something to send.
    pub(super) fn begin(
        &mut self,
        stream: KeyStreamId,
        kms: &str,
        chunk_size: u32,
        first: Position,
    ) -> Result<(), PushFault> {
        let endpoint = self
            .endpoints
            .get(kms)
            .cloned()
            .ok_or_else(|| PushFault::UnknownKms { stream, kms: kms.into() })?;
        let what = StreamPush { stream, endpoint, chunk_size, first };
        self.streams.insert(stream, Pushing::Waiting { what, deliveries: Vec::new(), discard: 0 });
        Ok(())
    }

    pub(super) fn deliver(&mut self, delivery: &Delivery, key: Vec<KeyExtent>) -> Result<(), PushFault> {
        let stream = delivery.stream;
        let delivery = push::Delivery { first: delivery.first, count: delivery.count, key };
        match self.streams.get_mut(&stream).ok_or(PushFault::Missing(stream))? {
            Pushing::Running { handle, .. } => give(handle, delivery),
            Pushing::Waiting { deliveries, .. } => {
                deliveries.push(delivery);
                self.start(stream)
            }
        }
    }

    /// Starts the pusher of a stream that waits. Where there is no memory for it, the stream goes on waiting: it must
    /// not end the others.
    fn start(&mut self, stream: KeyStreamId) -> Result<(), PushFault> {
        let Some(Pushing::Waiting { what, deliveries, discard }) = self.streams.get_mut(&stream) else {
            return Ok(());
        };
        match self.pusher.spawn(what.clone()) {
            Ok(mut handle) => {
                let (deliveries, discard, what) = (std::mem::take(deliveries), *discard, what.clone());
                if discard > 0 {
                    handle.discard(discard).map_err(|fault| PushFault::Command { stream, fault })?;
                }
                deliveries.into_iter().try_for_each(|delivery| give(&mut handle, delivery))?;
                self.streams.insert(stream, Pushing::Running { handle, what });
                self.unstarted.remove(&stream);
            }
            Err(fault) => {
                if self.unstarted.insert(stream) {
                    log::error!(id = "stream.waits"; "key stream {stream} waits: {fault}; trying again");
                }
                self.start_again = Instant::now() + START_AGAIN;
            }
        }
        Ok(())
    }

    /// When [`Streams::start_waiting`] is due, if at all.
    pub(super) fn next_start(&self) -> Option<Instant> {
        (!self.unstarted.is_empty()).then_some(self.start_again)
    }

    /// Tries again to start pushers for which there was no memory.
    pub(super) fn start_waiting(&mut self) -> Result<(), PushFault> {
        if self.next_start().is_some_and(|due| Instant::now() >= due) {
            let waiting: Vec<KeyStreamId> = self.unstarted.iter().copied().collect();
            waiting.into_iter().try_for_each(|stream| self.start(stream))?;
        }
        Ok(())
    }

    pub(super) fn discard(&mut self, stream: KeyStreamId, up_to: Position) -> Result<(), PushFault> {
        match self.streams.get_mut(&stream).ok_or(PushFault::Missing(stream))? {
            Pushing::Running { handle, .. } => {
                handle.discard(up_to).map_err(|fault| PushFault::Command { stream, fault })
            }
            // The pusher that comes is told before it gets the deliveries.
            Pushing::Waiting { discard, .. } => {
                *discard = up_to.max(*discard);
                Ok(())
            }
        }
    }

    pub(super) fn resume(&self, stream: KeyStreamId) -> Result<(), PushFault> {
        match self.streams.get(&stream).ok_or(PushFault::Missing(stream))? {
            Pushing::Running { handle, .. } => {
                handle.resume().map_err(|fault| PushFault::Command { stream, fault })
            }
            Pushing::Waiting { .. } => Ok(()),
        }
    }

    /// A notice is worth a try and no more.
    pub(super) fn notice(
        &mut self,
        stream: KeyStreamId,
        status: Status,
        position: Position,
    ) -> Result<(), PushFault> {
        self.start(stream)?;
        if let Some(Pushing::Running { handle, .. }) = self.streams.get(&stream)
            && let Err(fault) = handle.notice(status, position)
        {
            log::warn!(id = "stream.notice_not_sent"; "key stream {stream}: notice {status:?} is not sent: {fault}");
        }
        Ok(())
    }

    /// Stops a stream; what comes of it is told by itself. What is on its way is settled first, so that a KMS finds no
    /// chunk behind the answer to its close.
    pub(super) fn stop(&mut self, stream: KeyStreamId) {
        self.end(stream, StopHow::AfterInFlight);
    }

    fn end(&mut self, stream: KeyStreamId, how: StopHow) {
        self.unstarted.remove(&stream);
        let Some(Pushing::Running { handle, what }) = self.streams.remove(&stream) else {
            // No pusher, so nothing was sent since the daemon started.
            let _ = self.stopped.send((stream, 0));
            return;
        };
        // Should the pusher not confirm, everything it was given counts as sent.
        let given = handle.next_position();
        let leaving = self.tally.leaves(handle.meter(), what.chunk_size);
        let confirmed = handle.stop(how);
        let stopped = self.stopped.clone();
        tokio::spawn(async move {
            let sent_up_to = match confirmed.await {
                Ok(end) => end.sent_up_to,
                Err(e) => {
                    log::error!(id = "stream.stop_unconfirmed"; "key stream {stream}: {e}");
                    given
                }
            };
            drop(leaving);
            let _ = stopped.send((stream, sent_up_to));
        });
    }

    /// Wipes all key: every pusher ends at once, and what waits for one is dropped. The streams stay, for notices. Answers how
    /// many pushers confirm by `wiped`.
    pub(super) fn wipe_all(&mut self) -> usize {
        let mut pushers = 0;
        for pushing in self.streams.values_mut() {
            let what = match pushing {
                Pushing::Waiting { what, .. } | Pushing::Running { what, .. } => what.clone(),
            };
            let (discard, chunk_size) = (what.first, what.chunk_size);
            let empty = Pushing::Waiting { what, deliveries: Vec::new(), discard };
            if let Pushing::Running { handle, .. } = std::mem::replace(pushing, empty) {
                pushers += 1;
                let leaving = self.tally.leaves(handle.meter(), chunk_size);
                let (confirmed, wiped) = (handle.stop(StopHow::Now), self.wiped.clone());
                tokio::spawn(async move {
                    // A pusher that ends without a word has dropped what it held, which wipes it; the vault tells.
                    let _ = confirmed.await;
                    drop(leaving);
                    let _ = wiped.send(());
                });
            }
        }
        pushers
    }

    /// Stops every stream at once; answers how many confirmations come.
    pub(super) fn stop_all(&mut self) -> usize {
        let all: Vec<KeyStreamId> = self.streams.keys().copied().collect();
        for stream in &all {
            self.end(*stream, StopHow::Now);
        }
        all.len()
    }
}

fn give(handle: &mut PushHandle, delivery: push::Delivery) -> Result<(), PushFault> {
    let stream = handle.stream();
    handle.deliver(delivery).map_err(|refused| PushFault::Delivery { stream, fault: refused.why })
}

/// What a report means for the key agreement; the rest is for the log.
pub(super) fn event_of(report: Report) -> Option<Event> {
    match report {
        Report::Accepted { stream, up_to } => Some(Event::Accepted { stream, up_to }),
        Report::Suspended { stream, status, excerpt } => {
            let said = if excerpt.is_empty() { String::new() } else { format!(", saying {excerpt:?}") };
            Some(Event::Suspended {
                stream,
                why: format!("the KMS answered with HTTP status {status}{said}"),
            })
        }
        Report::Failing { stream, why, since } => {
            let seconds = since.elapsed().as_secs();
            log::warn!(id = "kms.failing"; "key stream {stream}: {why}; trying again, for {seconds} s now");
            None
        }
        Report::Recovered { stream, after } => {
            log::info!(id = "kms.recovered"; "key stream {stream}: the KMS takes key again after {} ms", after.as_millis());
            None
        }
        // Only acceptance counts, the key agreement has counted losses itself, and a stop is confirmed to who ordered it.
        Report::Discarded { .. } | Report::Stopped(_) => None,
    }
}
