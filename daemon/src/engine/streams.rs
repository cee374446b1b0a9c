//! The pushers of this end's key streams.

use std::collections::HashMap;

use tokio::sync::mpsc;

use crate::agreement::{Delivery, Event, Position, StopHow};
use crate::config::KmsEndpoint;
use crate::interface::{KeyStreamId, Status};
use crate::push::{self, CommandError, DeliveryFault, PushHandle, Pusher, Report, SpawnError, StreamPush};
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
    /// No pusher could be made.
    #[error("key stream {stream} cannot be pushed: {fault}")]
    Spawn {
        /// Key stream.
        stream: KeyStreamId,
        /// Why.
        fault: SpawnError,
    },
    /// There is no pusher where there must be one.
    #[error("key stream {0} has no pusher")]
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

/// Pushers by key stream.
pub(super) struct Streams {
    pusher: Pusher,
    endpoints: HashMap<String, KmsEndpoint>,
    handles: HashMap<KeyStreamId, PushHandle>,
    stopped: mpsc::UnboundedSender<(KeyStreamId, Position)>,
}

impl Streams {
    /// `stopped` gets each stream that has been stopped, with the first position never sent; as many messages as
    /// there were stops.
    pub(super) fn new(
        pusher: Pusher,
        endpoints: HashMap<String, KmsEndpoint>,
        stopped: mpsc::UnboundedSender<(KeyStreamId, Position)>,
    ) -> Self {
        Self { pusher, endpoints, handles: HashMap::new(), stopped }
    }

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
        let handle = self
            .pusher
            .spawn(StreamPush { stream, endpoint, chunk_size, first })
            .map_err(|fault| PushFault::Spawn { stream, fault })?;
        self.handles.insert(stream, handle);
        Ok(())
    }

    pub(super) fn deliver(&mut self, delivery: &Delivery, key: Vec<KeyExtent>) -> Result<(), PushFault> {
        let stream = delivery.stream;
        let handle = self.handles.get_mut(&stream).ok_or(PushFault::Missing(stream))?;
        handle
            .deliver(push::Delivery { first: delivery.first, count: delivery.count, key })
            .map_err(|refused| PushFault::Delivery { stream, fault: refused.why })
    }

    pub(super) fn discard(&self, stream: KeyStreamId, up_to: Position) -> Result<(), PushFault> {
        self.command(stream, |handle| handle.discard(up_to))
    }

    pub(super) fn resume(&self, stream: KeyStreamId) -> Result<(), PushFault> {
        self.command(stream, PushHandle::resume)
    }

    /// A notice is worth a try and no more.
    pub(super) fn notice(&self, stream: KeyStreamId, status: Status, position: Position) {
        if let Err(fault) = self.command(stream, |handle| handle.notice(status, position)) {
            log::warn!("notice {status:?} is not sent: {fault}");
        }
    }

    fn command(
        &self,
        stream: KeyStreamId,
        give: impl FnOnce(&PushHandle) -> Result<(), CommandError>,
    ) -> Result<(), PushFault> {
        let handle = self.handles.get(&stream).ok_or(PushFault::Missing(stream))?;
        give(handle).map_err(|fault| PushFault::Command { stream, fault })
    }

    /// Stops a stream; what comes of it is told by itself.
    pub(super) fn stop(&mut self, stream: KeyStreamId, how: StopHow) {
        let Some(handle) = self.handles.remove(&stream) else {
            // No pusher, so nothing was sent since the daemon started.
            let _ = self.stopped.send((stream, 0));
            return;
        };
        let how = match how {
            StopHow::Now => push::StopHow::Now,
            StopHow::AfterNotices => push::StopHow::AfterInFlight,
        };
        // Should the pusher not confirm, everything it was given counts as sent.
        let given = handle.next_position();
        let confirmed = handle.stop(how);
        let stopped = self.stopped.clone();
        tokio::spawn(async move {
            let sent_up_to = match confirmed.await {
                Ok(end) => end.sent_up_to,
                Err(e) => {
                    log::error!("key stream {stream}: {e}");
                    given
                }
            };
            let _ = stopped.send((stream, sent_up_to));
        });
    }

    /// Stops every stream at once; answers how many confirmations come.
    pub(super) fn stop_all(&mut self) -> usize {
        let all: Vec<KeyStreamId> = self.handles.keys().copied().collect();
        for stream in &all {
            self.stop(*stream, StopHow::Now);
        }
        all.len()
    }
}

/// What a report means for the key agreement; the rest is for the log.
pub(super) fn event_of(report: Report) -> Option<Event> {
    match report {
        Report::Sent { stream, up_to } => Some(Event::Sent { stream, up_to }),
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
            log::warn!("key stream {stream}: {why}; trying again, for {seconds} s now");
            None
        }
        Report::Recovered { stream, after } => {
            log::info!("key stream {stream}: the KMS takes key again after {} ms", after.as_millis());
            None
        }
        // The key agreement has counted them itself, and a stop is confirmed to who ordered it.
        Report::Discarded { .. } | Report::Stopped(_) => None,
    }
}
