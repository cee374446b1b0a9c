//! The leader's side of the log: appending, sending, and what the follower reports.

use std::collections::BTreeSet;

use super::check::{ENTRIES_MAX, EXTENTS_IN_MESSAGE_MAX, LINES_MAX, PeerFault};
use super::core::Core;
use super::entry::{Decision, Entry};
use super::event::{Level, Now, Output};
use super::message::{FollowerLine, LeaderLine, Log, Message, Report};
use super::names::{BlockName, position_limit};
use super::ranges::BlockRanges;
use super::record::Record;
use super::scheduler::Scheduler;
use super::settings::Capacity;
use super::timers::Timer;
use crate::interface::KeyStreamId;

/// What only the leader keeps.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) scheduler: Scheduler,
    /// Streams whose KMS at one end wants a later position than the next.
    pub(super) skips: BTreeSet<KeyStreamId>,
    /// Blocks that the follower holds.
    pub(super) peer_have: BlockRanges,
    /// Below this it holds, held or has lost every block.
    pub(super) peer_complete: BlockName,
    /// Its room for key.
    pub(super) peer_room: Option<Capacity>,
    /// Taken of that, by its last report.
    pub(super) peer_pinned: Capacity,
    /// Its secret key rate, and whether its link distils.
    pub(super) peer_link: Option<(u64, bool)>,
    /// Key granted in entries that it has not applied, as far as reported.
    pub(super) unapplied: Capacity,
    /// The ledger does not know yet what it has applied.
    pub(super) applied_unwritten: bool,
    /// Settled entries of which the ledger does not know yet that it has applied them.
    pub(super) settled: BTreeSet<u64>,
    /// Last entry sent on this connection.
    sent: u64,
    /// Last report heard on this connection.
    heard: u64,
    /// Streams of which it must be told.
    pub(super) lines: BTreeSet<KeyStreamId>,
    /// Where telling all streams in turn has got to.
    turn: Option<KeyStreamId>,
    /// A log message must be sent even with nothing in it.
    pub(super) log_due: bool,
    /// It is worth looking whether something can be granted.
    pub(super) granting: bool,
    /// When that was last done.
    pub(super) granted_ms: u64,
    /// Sum of min_bps over streams open at both ends.
    pub(super) reserved_bps: u64,
}

impl Default for Leading {
    fn default() -> Self {
        let nothing = Capacity { bytes: 0, blocks: 0 };
        Self {
            scheduler: Scheduler::default(),
            skips: BTreeSet::new(),
            peer_have: BlockRanges::default(),
            peer_complete: BlockName::new(0, 0),
            peer_room: None,
            peer_pinned: nothing,
            peer_link: None,
            unapplied: nothing,
            applied_unwritten: false,
            settled: BTreeSet::new(),
            sent: 0,
            heard: 0,
            lines: BTreeSet::new(),
            turn: None,
            log_due: false,
            granting: false,
            granted_ms: 0,
            reserved_bps: 0,
        }
    }
}

/// Octets of JSON that a log message aims to stay below; the frame's limit is well above.
const LOG_BYTES: usize = 600 << 10;
/// Streams told in turn with each sign of life.
const TURN_LINES: usize = 64;

impl Leading {
    pub(super) fn connection_ended(&mut self) {
        self.peer_have = BlockRanges::default();
        self.peer_complete = BlockName::new(0, 0);
        self.peer_link = None;
        self.sent = 0;
        self.heard = 0;
        self.granting = false;
    }

    pub(super) fn epoch_ended(&mut self) {
        self.scheduler = Scheduler::default();
        self.skips.clear();
        self.unapplied = Capacity { bytes: 0, blocks: 0 };
        self.settled.clear();
        self.lines.clear();
        self.sent = 0;
        self.reserved_bps = 0;
    }
}

impl Core {
    /// Appends an entry and applies it here.
    pub(super) fn append(&mut self, now: Now, decision: Decision, out: &mut Output) {
        let number = self.durable.last.saturating_add(1);
        let entry = Entry::chained(&self.durable.hash, number, decision);
        self.apply(now, entry, out);
    }

    /// Entries that the follower is not known to have applied.
    pub(super) fn in_flight(&self) -> u64 {
        self.durable.last.saturating_sub(self.durable.peer_applied)
    }

    /// What the leader does after each event.
    pub(super) fn lead(&mut self, now: Now, out: &mut Output) {
        if self.peer.in_step && self.leading.granting {
            self.grant(now, out);
        }
        self.send_log(now, out);
    }

    fn send_log(&mut self, now: Now, out: &mut Output) {
        if !self.peer.greeted {
            return;
        }
        self.leading.sent = self.leading.sent.max(self.durable.peer_applied);
        loop {
            let (entries, more) = self.entries_to_send();
            let streams = self.lines_to_send();
            if entries.is_empty() && streams.is_empty() && !self.leading.log_due {
                return;
            }
            if let Some(last) = entries.last() {
                self.leading.sent = last.number;
                self.timers.set_earlier(Timer::Resend, now.boot_ms.saturating_add(self.settings.resend_ms));
            }
            self.leading.log_due = false;
            let log = Log { epoch: self.durable.epoch, heard: self.leading.heard, entries, streams };
            self.say_to_peer(now, Message::Log(log), out);
            if !more && self.leading.lines.is_empty() {
                return;
            }
        }
    }

    fn entries_to_send(&self) -> (Vec<Entry>, bool) {
        let mut entries = Vec::new();
        let (mut bytes, mut extents) = (0, 0);
        for logged in self.durable.log.range(self.leading.sent.saturating_add(1)..).map(|(_, logged)| logged)
        {
            let (more_bytes, more_extents) = size(&logged.entry);
            bytes += more_bytes;
            extents += more_extents;
            let full = entries.len() >= ENTRIES_MAX || bytes > LOG_BYTES || extents > EXTENTS_IN_MESSAGE_MAX;
            if full && !entries.is_empty() {
                return (entries, true);
            }
            entries.push(logged.entry.clone());
        }
        (entries, false)
    }

    fn lines_to_send(&mut self) -> Vec<LeaderLine> {
        let mut lines = Vec::new();
        while lines.len() < LINES_MAX {
            let Some(stream) = self.leading.lines.pop_first() else { break };
            let Some(state) = self.durable.streams.get(&stream) else { continue };
            let behind = self.streams.get(&stream).and_then(|live| self.behind(state, live.position));
            lines.push(LeaderLine {
                stream,
                opened: state.opened.is_some(),
                wanted: state.wanted,
                closed: state.closed,
                behind: behind.map(|behind| behind.chunks),
            });
            if let Some(live) = self.streams.get_mut(&stream) {
                live.told_behind = behind.map(|behind| behind.next);
            }
        }
        lines
    }

    /// Some more streams are told of, changed or not: a message may have been lost. Those as well whose KMS has fallen behind or
    /// has caught up since they were told of.
    pub(super) fn turn_leader_lines(&mut self) {
        let news = self.durable.streams.iter().filter_map(|(id, state)| {
            let live = self.streams.get(id)?;
            let behind = self.behind(state, live.position).map(|behind| behind.next);
            (behind != live.told_behind).then_some(*id)
        });
        let news: Vec<KeyStreamId> = news.collect();
        self.leading.lines.extend(news);
        let (streams, turn) = next_in_turn(self.streams.keys(), self.leading.turn, TURN_LINES);
        self.leading.lines.extend(streams);
        self.leading.turn = turn;
    }

    pub(super) fn resend(&mut self, now: Now) {
        if self.leading.sent > self.durable.peer_applied {
            self.leading.sent = self.durable.peer_applied;
            self.timers.set(Timer::Resend, now.boot_ms.saturating_add(self.settings.resend_ms));
        }
    }

    pub(super) fn heed_report(
        &mut self,
        now: Now,
        report: Report,
        out: &mut Output,
    ) -> Result<(), PeerFault> {
        if report.epoch != self.durable.epoch {
            // The handshake has settled the epoch; the follower takes it over with the next log message.
            return Ok(());
        }
        self.heed_applied(now, &report, out)?;
        self.peer.in_step = true;
        for line in &report.streams {
            self.heed_follower_line(now, line, out);
        }
        if report.urgent {
            self.leading.lines.extend(report.streams.iter().map(|line| line.stream));
        }
        if report.serial > self.leading.heard {
            self.leading.heard = report.serial;
            self.leading.log_due |= report.urgent;
            self.leading.peer_link = Some((report.secret_key_rate_bps, report.distilling()));
            self.leading.peer_room = Some(report.capacity);
            self.leading.peer_pinned = report.pinned;
            self.leading.peer_complete = report.complete;
            self.leading.peer_have = report.have.into_iter().collect();
            self.leading.granting = true;
        }
        Ok(())
    }

    fn heed_applied(&mut self, now: Now, report: &Report, out: &mut Output) -> Result<(), PeerFault> {
        let before = self.durable.peer_applied;
        let number = report.applied;
        if number < before {
            return Ok(());
        }
        let known = if number == before {
            Some(self.durable.peer_hash)
        } else {
            self.durable.log.get(&number).map(|logged| logged.entry.hash)
        };
        if known != Some(report.hash) {
            return Err(PeerFault::WrongEntry {
                number,
                why: "the follower says that it has applied it, but it is not an entry of this log",
            });
        }
        if number == before {
            return Ok(());
        }
        self.durable.apply(&Record::PeerApplied { number, hash: report.hash });
        self.leading.applied_unwritten = true;
        self.write_before_long(now);
        self.timers.clear(Timer::Resend);
        if self.leading.sent > number {
            self.timers.set(Timer::Resend, now.boot_ms.saturating_add(self.settings.resend_ms));
        }
        let mut reached = BTreeSet::new();
        for (_, logged) in self.durable.log.range(before.saturating_add(1)..=number) {
            if let Decision::Grant(grant) = &logged.entry.decision {
                reached.insert(grant.stream);
                let unapplied = &mut self.leading.unapplied;
                unapplied.bytes = unapplied.bytes.saturating_sub(grant.bytes());
                unapplied.blocks = unapplied.blocks.saturating_sub(grant.extents.len() as u64);
            }
        }
        for stream in reached {
            self.deliver(now, stream, out);
        }
        Ok(())
    }

    /// The ledger is written to now: what the follower has applied goes with it. Nothing has to wait for that: after a crash the
    /// follower says it again, and what it does not say any more it is given again, the same.
    pub(super) fn write_applied(&mut self, out: &mut Output) {
        if !std::mem::take(&mut self.leading.applied_unwritten) {
            return;
        }
        let (number, hash) = (self.durable.peer_applied, self.durable.peer_hash);
        self.write(Record::PeerApplied { number, hash }, out);
        let settled_above = self.leading.settled.split_off(&number.saturating_add(1));
        for settled in std::mem::replace(&mut self.leading.settled, settled_above) {
            self.write(Record::Trimmed { number: settled }, out);
        }
    }

    fn heed_follower_line(&mut self, now: Now, line: &FollowerLine, out: &mut Output) {
        let stream = line.stream;
        let Some(state) = self.durable.streams.get(&stream) else { return };
        let news = line.opened && !state.peer_opened;
        let Some(live) = self.streams.get_mut(&stream) else { return };
        live.peer.wanted |= line.wanted;
        live.peer.wish = live.peer.wish.max(line.wish.min(position_limit(state.qos.key_chunk_size)));
        // What is not granted cannot be settled.
        live.peer.position = live.peer.position.max(line.position.min(state.next));
        let closes = line.closed && !live.peer.closed;
        if news {
            self.peer_has_opened(stream, out);
        }
        if closes {
            self.peer_has_closed(now, stream, out);
        }
        self.end_if_both_closed(now, stream, out);
        self.place(now, stream);
    }

    /// The other end's KMS has opened the stream: from now on its rate is reserved.
    pub(super) fn peer_has_opened(&mut self, stream: KeyStreamId, out: &mut Output) {
        self.write(Record::PeerOpened { stream }, out);
        self.reserve();
    }

    /// Sums up what is reserved. Streams open and close rarely.
    pub(super) fn reserve(&mut self) {
        self.leading.reserved_bps = self
            .durable
            .streams
            .iter()
            .filter(|(id, s)| {
                let peer_closed = self.streams.get(id).is_some_and(|live| live.peer.closed);
                s.opened.is_some() && s.peer_opened && !s.closed && !peer_closed
            })
            .map(|(_, s)| u64::from(s.qos.min_bps))
            .sum();
    }

    pub(super) fn end_if_both_closed(&mut self, now: Now, stream: KeyStreamId, out: &mut Output) {
        let closed = self.durable.streams.get(&stream).is_some_and(|s| s.closed)
            && self.streams.get(&stream).is_some_and(|live| live.peer.closed);
        if closed {
            out.say(Level::Info, format!("key stream {stream} is closed at both ends and over"));
            self.append(now, Decision::End { stream }, out);
        }
    }
}

/// Octets of JSON, roughly and not too few, and extents of an entry.
fn size(entry: &Entry) -> (usize, usize) {
    match &entry.decision {
        Decision::Open(open) => (1_024 + 2 * (open.source.len() + open.destination.len()), 0),
        Decision::Grant(grant) => (512 + 72 * grant.extents.len(), grant.extents.len()),
        Decision::Skip { .. } | Decision::Burn { .. } | Decision::End { .. } => (512, 0),
    }
}

/// The next `most` of `all` after `turn`, in the order of their IDs, and where the next turn begins.
pub(super) fn next_in_turn<'a>(
    all: impl Iterator<Item = &'a KeyStreamId> + Clone,
    turn: Option<KeyStreamId>,
    most: usize,
) -> (Vec<KeyStreamId>, Option<KeyStreamId>) {
    let mut chosen: BTreeSet<KeyStreamId> = BTreeSet::new();
    for id in all.filter(|id| turn.is_none_or(|turn| **id > turn)) {
        chosen.insert(*id);
        if chosen.len() > most {
            chosen.pop_last();
        }
    }
    let turn = if chosen.len() < most { None } else { chosen.last().copied() };
    (chosen.into_iter().collect(), turn)
}
