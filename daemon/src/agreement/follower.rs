//! The follower's side of the log: applying it, and reporting.

use std::collections::BTreeSet;

use super::check::{LINES_MAX, PeerFault, RANGES_MAX};
use super::core::Core;
use super::entry::{Decision, Entry, Grant};
use super::event::{Now, Output};
use super::leader::next_in_turn;
use super::message::{FollowerLine, LeaderLine, Log, Message, Report};
use super::names::{Mark, Position, position_limit};
use super::stream::Behind;
use super::timers::Timer;
use crate::interface::KeyStreamId;

/// What only the follower keeps.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// Serial of the last report. It goes on over connections: a report that was held up until there was a new one must not
    /// pass for newer than what comes after it.
    serial: u64,
    /// Last report that the leader has heard.
    pub(super) heard: u64,
    /// The next report asks for an answer at once.
    urgent: bool,
    /// Streams of which the leader must be told.
    pub(super) lines: BTreeSet<KeyStreamId>,
    /// Where telling all streams in turn has got to.
    turn: Option<KeyStreamId>,
    /// When the next report is due by itself, were all reports so far an interval apart.
    paced_ms: u64,
}

impl Following {
    pub(super) fn connection_ended(&mut self) {
        self.heard = 0;
        self.urgent = false;
    }

    pub(super) fn epoch_ended(&mut self) {
        self.lines.clear();
        self.turn = None;
    }
}

/// Streams told in turn with each sign of life.
const TURN_LINES: usize = 64;
/// Reports that may come before their time after a pause: what is known of a block and that an entry is applied follow each other
/// closely where little happens, and nobody's key should wait for an interval in between.
const AHEAD: u64 = 2;
/// Reports that only say that some more was accepted wait this many intervals for company.
const PATIENCE: u64 = 10;

impl Core {
    /// The leader should hear soon.
    pub(super) fn report_soon(&mut self) {
        if !self.leads() && self.peer.in_step {
            let ahead = self.settings.report_interval_ms.saturating_mul(AHEAD);
            self.timers.set_earlier(Timer::Report, self.following.paced_ms.saturating_sub(ahead));
        }
    }

    /// The leader should hear of `stream` soon.
    pub(super) fn report_stream(&mut self, stream: KeyStreamId) {
        if !self.leads() {
            self.following.lines.insert(stream);
            self.report_soon();
        }
    }

    /// More of `stream` is settled. The leader waits for it only where the window may be closed.
    pub(super) fn report_progress(&mut self, now: Now, stream: KeyStreamId) {
        if self.leads() {
            return;
        }
        self.following.lines.insert(stream);
        let next = self.durable.streams.get(&stream).map_or(0, |s| s.next);
        let Some(live) = self.streams.get(&stream) else { return };
        let news = live.position.saturating_sub(live.reported);
        let rest = next.saturating_sub(live.position);
        if news >= rest / 2 {
            self.report_soon();
        } else if self.peer.in_step {
            let patience = self.settings.report_interval_ms.saturating_mul(PATIENCE);
            self.timers.set_earlier(Timer::Report, now.boot_ms.saturating_add(patience));
        }
    }

    /// Asks how `stream` stands at the leader. Returns the serial of a report that is still to come; the answer is a log
    /// message that has heard it.
    pub(super) fn ask_leader(&mut self, stream: KeyStreamId) -> u64 {
        self.following.urgent = true;
        self.report_stream(stream);
        self.following.serial.saturating_add(1)
    }

    pub(super) fn turn_follower_lines(&mut self) {
        let (streams, turn) = next_in_turn(self.streams.keys(), self.following.turn, TURN_LINES);
        self.following.lines.extend(streams);
        self.following.turn = turn;
    }

    pub(super) fn report(&mut self, now: Now, out: &mut Output) {
        if self.leads() || !self.peer.in_step {
            return;
        }
        loop {
            let (have, complete) = self.holdings.report(RANGES_MAX);
            self.following.serial = self.following.serial.saturating_add(1);
            let report = Report {
                epoch: self.durable.epoch,
                serial: self.following.serial,
                urgent: std::mem::take(&mut self.following.urgent),
                applied: self.durable.last,
                hash: self.durable.hash,
                have,
                complete,
                streams: self.follower_lines(),
                link: self.link.state.value(),
                secret_key_rate_bps: self.link.rate_bps,
                capacity: self.settings.capacity(),
                pinned: self.holdings.pinned(),
            };
            self.say_to_peer(now, Message::Report(report), out);
            if self.following.lines.is_empty() {
                break;
            }
        }
        let paced = self.following.paced_ms.max(now.boot_ms);
        self.following.paced_ms = paced.saturating_add(self.settings.report_interval_ms);
        self.timers.clear(Timer::Report);
    }

    fn follower_lines(&mut self) -> Vec<FollowerLine> {
        let mut lines = Vec::new();
        while lines.len() < LINES_MAX {
            let Some(stream) = self.following.lines.pop_first() else { break };
            let Some(state) = self.durable.streams.get(&stream) else { continue };
            let Some(live) = self.streams.get_mut(&stream) else { continue };
            live.reported = live.position;
            lines.push(FollowerLine {
                stream,
                opened: state.opened.is_some(),
                wanted: state.wanted,
                closed: state.closed,
                position: live.position,
                wish: state.wish,
            });
        }
        lines
    }

    pub(super) fn heed_log(&mut self, now: Now, log: Log, out: &mut Output) -> Result<(), PeerFault> {
        if log.epoch < self.durable.epoch {
            // The leader learns of the newer epoch from this end's greeting, and begins one above both.
            return Ok(());
        }
        if log.epoch > self.durable.epoch {
            self.take_over_epoch(now, log.epoch, out);
        }
        let first_step = !self.peer.in_step;
        self.peer.in_step = true;
        let before = self.durable.last;
        for entry in log.entries {
            let next = self.durable.last.saturating_add(1);
            if entry.number < next {
                continue;
            }
            if entry.number > next {
                break;
            }
            self.check_entry(&entry)?;
            self.apply(now, entry, out);
        }
        for line in &log.streams {
            self.heed_leader_line(now, line, out);
        }
        self.following.heard = self.following.heard.max(log.heard);
        if self.durable.last > before {
            self.report_soon();
        }
        if first_step {
            let all: Vec<KeyStreamId> = self.streams.keys().copied().collect();
            self.following.lines.extend(all);
            self.report(now, out);
        }
        self.look_at_waiting_calls(now, out);
        Ok(())
    }

    fn heed_leader_line(&mut self, now: Now, line: &LeaderLine, out: &mut Output) {
        let stream = line.stream;
        let Some(state) = self.durable.streams.get(&stream) else { return };
        let news = line.opened && !state.peer_opened;
        let Some(live) = self.streams.get_mut(&stream) else { return };
        live.peer.wanted |= line.wanted;
        let next = state.next;
        live.peer.behind = line.behind.map(|chunks| Behind { chunks, next });
        let closes = line.closed && !live.peer.closed;
        if news {
            self.write(super::record::Record::PeerOpened { stream }, out);
        }
        if closes {
            self.peer_has_closed(now, stream, out);
        }
    }

    /// Holds an entry against everything that is known here, before it has any effect.
    fn check_entry(&self, entry: &Entry) -> Result<(), PeerFault> {
        let wrong = |why| Err(PeerFault::WrongEntry { number: entry.number, why });
        if !entry.follows(&self.durable.hash) {
            return wrong("its hash does not follow from the entries before; the two logs differ");
        }
        match &entry.decision {
            Decision::Open(open) => {
                if self.durable.streams.contains_key(&open.stream) {
                    return wrong("it opens a key stream that is open");
                }
                if self.durable.streams.len() >= MOST_STREAMS_OF_A_LEADER {
                    return wrong("it opens more key streams than can be");
                }
            }
            Decision::Grant(grant) => {
                let Some(state) = self.durable.streams.get(&grant.stream) else {
                    return wrong("it grants to a key stream that is not open");
                };
                if let Err(why) = check_grant(grant, self.durable.mark, state.next, state.qos.key_chunk_size)
                {
                    return wrong(why);
                }
                let owed = self.holdings.owed_extents().saturating_add(grant.extents.len() as u64);
                if owed > self.most_owed_extents() {
                    return wrong("it grants more, in smaller parts, than this end keeps");
                }
            }
            Decision::Skip { stream, to } => match self.durable.streams.get(stream) {
                Some(state) if *to > position_limit(state.qos.key_chunk_size) => {
                    return wrong("it skips beyond what a key stream can have");
                }
                Some(state) if *to > state.next => {}
                _ => return wrong("it skips nothing"),
            },
            Decision::Burn { to } => {
                if !to.block.is_usable() {
                    return wrong("it burns beyond all blocks");
                }
            }
            Decision::End { stream } => {
                if !self.durable.streams.contains_key(stream) {
                    return wrong("it ends a key stream that is not open");
                }
            }
        }
        Ok(())
    }

    /// A bound on the parts of unsettled grants, far above what a leader that heeds this end's room makes: it pins half
    /// of the blocks, each once, and cuts one only where an entry ends, which is worth some kilobytes or a whole window.
    fn most_owed_extents(&self) -> u64 {
        let room = self.settings.capacity();
        (room.bytes / SMALL_PART).saturating_add(room.blocks).saturating_add(MOST_STREAMS_OF_A_LEADER as u64)
    }
}

/// Octets of a part of a block that is small for an entry.
const SMALL_PART: u64 = 1 << 10;
/// More streams than any leader should open: a bound on what a wrong leader can make this end keep.
const MOST_STREAMS_OF_A_LEADER: usize = 65_536;

/// Whether `grant` takes only octets above `mark`, each once, for exactly the chunks that come next.
fn check_grant(grant: &Grant, mark: Mark, next: Position, chunk_size: u32) -> Result<(), &'static str> {
    if grant.first != next {
        return Err("it does not go on where the key stream stands");
    }
    if grant.end() > position_limit(chunk_size) {
        return Err("its positions are beyond what a key stream can have");
    }
    if u64::from(grant.count).checked_mul(u64::from(chunk_size)) != Some(grant.bytes()) {
        return Err("its extents are not as long as its chunks");
    }
    let mut free = mark;
    for extent in &grant.extents {
        let end = extent.offset.checked_add(extent.length).filter(|_| extent.length > 0);
        let Some(end) = end.filter(|end| *end <= qkd_contract::limits::BLOCK_BYTES_MAX) else {
            return Err("an extent is empty or longer than a block");
        };
        if !extent.block.is_usable() || (Mark { block: extent.block, offset: extent.offset }) < free {
            return Err("an extent uses key that is used up");
        }
        free = Mark { block: extent.block, offset: end };
    }
    if grant.mark < free || !grant.mark.block.is_usable() {
        return Err("its mark is below its extents");
    }
    Ok(())
}
