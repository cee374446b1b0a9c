//! The core: its state, and which part of it handles which event.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use qkd_contract::state::LinkState;

use super::calls::Waiting;
use super::durable::Durable;
use super::event::{Action, Event, Level, Now, Output};
use super::follower::Following;
use super::holdings::Holdings;
use super::leader::Leading;
use super::message::Message;
use super::names::BlockName;
use super::peer::Peer;
use super::record::{Record, Stamp};
use super::settings::{Capacity, Role, Settings};
use super::status::{Counters, Status, StreamStatus};
use super::stream::Live;
use super::timers::{Timer, Timers};
use crate::interface::KeyStreamId;

/// The key agreement of one end.
#[derive(Debug)]
pub struct Core {
    pub(super) settings: Settings,
    /// Equal to what the ledger holds once the writes given out so far are durable; only what the follower has applied may be
    /// known here first.
    pub(super) durable: Durable,
    pub(super) holdings: Holdings,
    pub(super) link: Link,
    pub(super) streams: HashMap<KeyStreamId, Live>,
    /// Streams whose progress is not written yet.
    pub(super) unwritten: BTreeSet<KeyStreamId>,
    /// Key that was accepted since the ledger was last told of all progress.
    pub(super) unwritten_bytes: u64,
    /// Streams whose next chunk is made of a block that may still come.
    pub(super) awaiting: BTreeMap<BlockName, BTreeSet<KeyStreamId>>,
    pub(super) peer: Peer,
    pub(super) leading: Leading,
    pub(super) following: Following,
    pub(super) timers: Timers,
    pub(super) waiting: HashMap<u64, Waiting>,
    pub(super) counters: Counters,
}

/// The QKD link at this end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) state: LinkState,
    pub(super) rate_bps: u64,
}

impl Link {
    pub(super) fn distilling(self) -> bool {
        self.state == LinkState::Distilling
    }
}

impl Core {
    /// A core that goes on from `durable`. Its first event is [`Event::Start`].
    #[must_use]
    pub fn new(settings: Settings, durable: Durable) -> Self {
        let holdings = Holdings::new(durable.mark, settings.card.newest);
        Self {
            settings,
            durable,
            holdings,
            link: Link { state: LinkState::Off, rate_bps: 0 },
            streams: HashMap::new(),
            unwritten: BTreeSet::new(),
            unwritten_bytes: 0,
            awaiting: BTreeMap::new(),
            peer: Peer::default(),
            leading: Leading::default(),
            following: Following::default(),
            timers: Timers::default(),
            waiting: HashMap::new(),
            counters: Counters::default(),
        }
    }

    /// Handles one event and adds to `out` what is to be done.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Output) {
        match event {
            Event::Start => self.start(now, out),
            Event::BlockHeld { name, length, replayed: _ } => self.block_held(now, name, length, out),
            Event::BlockLost { name } => self.block_lost(now, name, out),
            Event::ReplayEnd => {
                self.holdings.replay_ends();
                self.holdings_changed();
                self.deliver_awaiting(now, BlockName::new(u64::MAX, u64::MAX), out);
            }
            Event::Session { session, previous_blocks: _ } => self.session(now, session, out),
            Event::CardReset => self.holdings.replay_begins(),
            Event::Zeroized => self.zeroized(now, out),
            Event::Newest { name } => self.holdings.announce(name),
            Event::Link { state, secret_key_rate_bps } => {
                self.link_changed(now, Link { state, rate_bps: secret_key_rate_bps }, out);
            }
            Event::PeerConnected => self.peer_connected(now, out),
            Event::PeerMessage(message) => self.peer_message(now, message, out),
            Event::PeerDisconnected => self.peer_disconnected(),
            Event::Call { id, call, fresh_stream } => self.call(now, id, call, fresh_stream, out),
            Event::Tick => {}
            Event::Accepted { stream, up_to } => self.accepted(now, stream, up_to, out),
            Event::Suspended { stream, why } => self.suspended(stream, &why, out),
            Event::Stopped { stream, sent_up_to: _ } => self.stopped(stream, out),
        }
        while let Some(timer) = self.timers.pop_due(now.boot_ms) {
            self.due(now, timer, out);
        }
        if self.settings.role == Role::Leader {
            self.lead(now, out);
            if !out.writes.is_empty() {
                self.write_applied(out);
            }
        }
        self.holdings.acknowledge(out);
    }

    fn due(&mut self, now: Now, timer: Timer, out: &mut Output) {
        match timer {
            Timer::KeepAlive => self.keep_alive(now, out),
            Timer::Report => self.report(now, out),
            Timer::Resend => self.resend(now),
            Timer::Grant => self.leading.granting = true,
            Timer::Progress => self.write_progress(out),
            Timer::Tokens(stream) => self.place(now, stream),
            Timer::Expire(stream) => self.expire(now, stream, out),
            Timer::HalfOpen(stream) => self.half_open_over(now, stream, out),
            Timer::Dry(stream) => self.perhaps_dry(now, stream, out),
            Timer::Linger(stream) => self.linger_over(now, stream, out),
            Timer::Call(id) => self.call_timed_out(id, out),
        }
    }

    /// When the core wants the next [`Event::Tick`], in boot time; `None`: not before another event.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.timers.first()
    }

    /// Changes what is durable, here and in the ledger.
    pub(super) fn write(&mut self, record: Record, out: &mut Output) {
        self.durable.apply(&record);
        out.writes.push(record);
    }

    pub(super) fn stamp(&self, now: Now) -> Stamp {
        Stamp { boot_id: self.settings.boot_id, boot_ms: now.boot_ms, wall_ms: now.wall_ms }
    }

    pub(super) fn leads(&self) -> bool {
        self.settings.role == Role::Leader
    }

    fn block_held(&mut self, now: Now, name: BlockName, length: u32, out: &mut Output) {
        if !name.is_usable() || length == 0 {
            out.say(
                Level::Error,
                format!("block {name} of {length} octets has a name or length that none may have"),
            );
            out.actions.push(Action::Release { block: name });
            return;
        }
        if !self.holdings.hold(name, length, out) {
            out.say(Level::Warn, format!("block {name} was reported twice; the second report is not heeded"));
        }
        self.holdings_changed();
        self.deliver_awaiting(now, name.next(), out);
    }

    fn block_lost(&mut self, now: Now, name: BlockName, out: &mut Output) {
        if !name.is_usable() {
            return;
        }
        out.say(Level::Warn, format!("block {name} is lost at this end"));
        self.holdings.lose(name);
        self.holdings_changed();
        self.deliver_awaiting(now, name.next(), out);
    }

    fn session(&mut self, now: Now, session: u64, out: &mut Output) {
        if !self.holdings.session(session) {
            out.say(
                Level::Error,
                format!("the card names session {session} after a later one, which its contract forbids"),
            );
        }
        self.holdings_changed();
        self.deliver_awaiting(now, BlockName::new(session, 0), out);
    }

    /// How the core stands. Cheap: nothing is counted anew.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            role: self.settings.role,
            epoch: self.durable.epoch,
            last: self.durable.last,
            agreed: if self.leads() { self.durable.peer_applied } else { self.durable.last },
            connected: self.peer.connected,
            in_step: self.peer.in_step,
            mark: self.durable.mark,
            held: self.holdings.held(),
            pinned: self.holdings.pinned(),
            streams: self.streams.len(),
            closed_ids: self.durable.forbidden.len(),
            counters: Counters { burnt_bytes: self.holdings.burnt_bytes(), ..self.counters },
        }
    }

    /// How every stream stands, in no order.
    pub fn streams(&self) -> impl Iterator<Item = StreamStatus<'_>> {
        self.durable.streams.iter().filter_map(|(id, state)| {
            let live = self.streams.get(id)?;
            Some(StreamStatus {
                stream: *id,
                source: &state.source,
                destination: &state.destination,
                qos: &state.qos,
                opened: state.opened.is_some(),
                peer_opened: state.peer_opened,
                wanted: state.wanted,
                closed: state.closed,
                suspended: live.suspended,
                position: live.position,
                next: state.next,
                held_up: self.held_up(state, live),
                lost: state.lost,
            })
        })
    }

    /// Half of the room that both ends have: what all streams together may pin.
    pub(super) fn pin_limit(&self) -> Capacity {
        let room = match self.leading.peer_room {
            Some(peer) => self.settings.capacity().smaller(peer),
            None => self.settings.capacity(),
        };
        Capacity { bytes: room.bytes / 2, blocks: room.blocks / 2 }
    }

    pub(super) fn fault(&mut self, fault: &super::check::PeerFault, out: &mut Output) {
        self.counters.peer_faults = self.counters.peer_faults.saturating_add(1);
        let reason = fault.to_string();
        out.say(Level::Error, format!("the other end broke the peer protocol: {reason}"));
        out.send(Message::Refuse { reason: super::check::excerpt(&reason) });
        self.hang_up(reason, out);
    }
}
