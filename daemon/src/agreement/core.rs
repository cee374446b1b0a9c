//! The core: its state, and which part of it handles which event.

use super::durable::Durable;
use super::event::{Event, Now, Output};
use super::settings::{Capacity, Settings};
use super::status::{Counters, Status, StreamStatus};

/// The key agreement of one end.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    durable: Durable,
}

impl Core {
    /// A core that goes on from `durable`. Its first event is [`Event::Start`].
    #[must_use]
    pub fn new(settings: Settings, durable: Durable) -> Self {
        Self { settings, durable }
    }

    /// Handles one event and adds to `out` what is to be done.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Output) {
        let _ = (&self.settings, &self.durable, now, event, out);
    }

    /// When the core wants the next [`Event::Tick`], in boot time; `None`: not before another event.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        None
    }
}

impl Core {
    /// How the core stands. Cheap: nothing is counted anew.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            role: self.settings.role,
            epoch: self.durable.epoch,
            last: self.durable.last,
            agreed: self.durable.peer_applied,
            connected: false,
            in_step: false,
            mark: self.durable.mark,
            held: Capacity { bytes: 0, blocks: 0 },
            pinned: Capacity { bytes: 0, blocks: 0 },
            streams: self.durable.streams.len(),
            closed_ids: self.durable.forbidden.len(),
            counters: Counters::default(),
        }
    }

    /// How every stream stands, in no order.
    pub fn streams(&self) -> impl Iterator<Item = StreamStatus<'_>> {
        std::iter::empty()
    }
}
