//! From grants to chunks for push: delivery, loss, acceptance and the end of the time to live.

use super::core::Core;
use super::entry::{Decision, Grant};
use super::event::{Action, Delivery, Level, LossCause, Now, Output};
use super::holdings::{Holdings, Presence};
use super::names::{BlockName, Extent, Position};
use super::record::Record;
use super::timers::Timer;
use crate::interface::{KeyStreamId, Status};

/// Part of what may be pinned that the KMSs may have accepted without the ledger's being told.
const UNWRITTEN_OF_PINNED: u64 = 4;
/// Key that the KMSs have accepted and that is worth writing down when something else is.
const WORTH_WRITING_BYTES: u64 = 256 << 10;

/// What comes next of a grant.
#[derive(Debug, PartialEq, Eq)]
enum Run {
    /// This many chunks can be delivered.
    Here(u64),
    /// This many chunks are lost.
    Lost(u64),
    /// The next chunk is made of this block, which may still come.
    Awaited(BlockName),
}

impl Core {
    /// Gives push everything of `stream` that is committed at both ends and here.
    pub(super) fn deliver(&mut self, now: Now, stream: KeyStreamId, out: &mut Output) {
        loop {
            let Some(state) = self.durable.streams.get(&stream) else { return };
            let Some(live) = self.streams.get_mut(&stream) else { return };
            if state.closed || !state.wanted {
                return;
            }
            let Some(number) = live.undelivered.front().copied() else { return };
            if self.settings.role == super::settings::Role::Leader && number > self.durable.peer_applied {
                return;
            }
            let Some(grant) = self.durable.log.get(&number).and_then(|logged| match &logged.entry.decision {
                Decision::Grant(grant) => Some(grant),
                _ => None,
            }) else {
                live.undelivered.pop_front();
                continue;
            };
            let from = live.issued.max(grant.first);
            if from >= grant.end() {
                live.undelivered.pop_front();
                continue;
            }
            let chunk_size = state.qos.key_chunk_size;
            let run = if from < state.wish {
                Run::Lost(state.wish.min(grant.end()) - from)
            } else {
                next_run(&self.holdings, grant, from, u64::from(chunk_size))
            };
            match run {
                Run::Awaited(block) => {
                    self.awaiting.entry(block).or_default().insert(stream);
                    return;
                }
                Run::Here(count) => {
                    let Ok(count32) = u32::try_from(count) else { return };
                    let size = u64::from(chunk_size);
                    let extents = cut(&grant.extents, (from - grant.first) * size, count * size);
                    live.issued = from.saturating_add(count);
                    self.counters.delivered_bytes =
                        self.counters.delivered_bytes.saturating_add(count * size);
                    let delivery = Delivery { stream, first: from, count: count32, chunk_size, extents };
                    out.actions.push(Action::Deliver(delivery));
                }
                Run::Lost(count) => {
                    // Counted only once everything before is settled: what the ledger calls settled has no holes.
                    if live.position < from {
                        return;
                    }
                    let cause = if from < state.wish { LossCause::Skipped } else { LossCause::BlockLost };
                    self.lose(now, stream, from.saturating_add(count), cause, out);
                }
            }
        }
    }

    /// Everything of `stream` from its position to `end` is lost, and counted.
    pub(super) fn lose(
        &mut self,
        now: Now,
        stream: KeyStreamId,
        end: Position,
        cause: LossCause,
        out: &mut Output,
    ) {
        let Some(live) = self.streams.get(&stream) else { return };
        let first = live.position;
        if end <= first {
            return;
        }
        let holes: u64 =
            live.holes.iter().map(|(from, to)| (*to).min(end).saturating_sub((*from).max(first))).sum();
        let count = (end - first).saturating_sub(holes);
        let issued = live.issued;
        // Runs between holes are counted one by one, so that no position that was never granted is called lost.
        let mut runs = Vec::new();
        let mut at = first;
        for (from, to) in live.holes.iter().copied().filter(|(from, _)| *from < end) {
            runs.push((at, from));
            at = to;
        }
        runs.push((at, end));
        for (from, to) in runs.into_iter().filter(|(from, to)| from < to) {
            let count = to - from;
            self.write(Record::Lost { stream, first: from, count, cause }, out);
            out.actions.push(Action::Lost { stream, first: from, count, cause });
        }
        if let Some(counter) = self.counters.lost_chunks.get_mut(cause as usize) {
            *counter = counter.saturating_add(count);
        }
        // The engine tells the operator, in one line for a whole stretch.
        out.say(
            Level::Debug,
            format!("key stream {stream}: {count} chunks below position {end} are lost: {cause:?}"),
        );
        if issued > first {
            out.actions.push(Action::Discard { stream, up_to: end, cause });
        }
        if let Some(live) = self.streams.get_mut(&stream) {
            live.advance(end);
            // Who has skipped or closed knows.
            let told = matches!(cause, LossCause::Skipped | LossCause::Closed);
            if !told && !std::mem::replace(&mut live.told.lost, true) {
                self.notice(stream, Status::InsufficientKey, out);
            }
        }
        self.progressed(now, stream);
        self.write_progress_of(stream, out);
    }

    pub(super) fn accepted(&mut self, now: Now, stream: KeyStreamId, up_to: Position, out: &mut Output) {
        let Some(live) = self.streams.get_mut(&stream) else { return };
        let (before, up_to) = (live.position, up_to.min(live.issued));
        if !live.advance(up_to) {
            return;
        }
        live.told.lost = false;
        let chunks = live.position.saturating_sub(before);
        self.progressed(now, stream);
        self.unwritten_progress(now, stream);
        self.unwritten_key(now, stream, chunks);
        self.deliver(now, stream, out);
    }

    /// The ledger must be told of progress, before long.
    pub(super) fn unwritten_progress(&mut self, now: Now, stream: KeyStreamId) {
        self.unwritten.insert(stream);
        self.write_before_long(now);
    }

    /// Something must be written that nothing waits for.
    pub(super) fn write_before_long(&mut self, now: Now) {
        if !self.timers.is_set(Timer::Progress) {
            self.timers.set(Timer::Progress, now.boot_ms.saturating_add(self.settings.progress_interval_ms));
        }
    }

    /// Key stays pinned until the ledger knows that it was accepted: much of it does not wait.
    fn unwritten_key(&mut self, now: Now, stream: KeyStreamId, chunks: u64) {
        let size = self.durable.streams.get(&stream).map_or(0, |state| state.qos.key_chunk_size);
        self.unwritten_bytes = self.unwritten_bytes.saturating_add(chunks.saturating_mul(size.into()));
        if self.unwritten_bytes >= self.pin_limit().bytes / UNWRITTEN_OF_PINNED {
            self.timers.set_earlier(Timer::Progress, now.boot_ms);
        }
    }

    /// The ledger is written to now: what is worth it goes with it, and need not be written for itself.
    pub(super) fn write_progress_along(&mut self, out: &mut Output) {
        if self.unwritten_bytes >= WORTH_WRITING_BYTES {
            self.write_progress(out);
        }
    }

    /// More of the stream is settled here: its window has room.
    fn progressed(&mut self, now: Now, stream: KeyStreamId) {
        self.watch_for_dryness(now, stream);
        if self.leads() {
            self.place(now, stream);
            self.leading.granting = true;
        } else {
            self.report_progress(now, stream);
        }
    }

    /// Blocks below `bound` have come or never will: what waits for them need not wait any more.
    pub(super) fn deliver_awaiting(&mut self, now: Now, bound: BlockName, out: &mut Output) {
        while let Some(entry) = self.awaiting.first_entry() {
            if *entry.key() >= bound {
                return;
            }
            for stream in entry.remove() {
                self.deliver(now, stream, out);
            }
        }
    }

    pub(super) fn write_progress(&mut self, out: &mut Output) {
        for stream in std::mem::take(&mut self.unwritten) {
            self.write_progress_of(stream, out);
        }
        self.unwritten_bytes = 0;
        self.write_applied(out);
        self.timers.clear(Timer::Progress);
        self.holdings_changed();
    }

    /// Makes the stream's progress durable, and settles what it has passed.
    pub(super) fn write_progress_of(&mut self, stream: KeyStreamId, out: &mut Output) {
        self.unwritten.remove(&stream);
        let (Some(live), Some(state)) = (self.streams.get(&stream), self.durable.streams.get(&stream)) else {
            return;
        };
        let position = live.position;
        if position > state.position {
            self.write(Record::Progress { stream, position }, out);
        }
        while let Some(live) = self.streams.get_mut(&stream) {
            let Some(grant) = live.grants.front().copied().filter(|grant| grant.end <= position) else {
                break;
            };
            live.grants.pop_front();
            if live.undelivered.front() == Some(&grant.number) {
                live.undelivered.pop_front();
            }
            self.settle_grant(grant.number, out);
        }
        self.arm_expiry(stream);
    }

    pub(super) fn arm_expiry(&mut self, stream: KeyStreamId) {
        match self.streams.get(&stream).and_then(|live| live.grants.front()) {
            Some(grant) => self.timers.set(Timer::Expire(stream), grant.expires_ms),
            None => self.timers.clear(Timer::Expire(stream)),
        }
    }

    /// The oldest key of the stream is at the end of its time to live.
    pub(super) fn expire(&mut self, now: Now, stream: KeyStreamId, out: &mut Output) {
        let Some(live) = self.streams.get(&stream) else { return };
        let end = live.grants.iter().take_while(|g| g.expires_ms <= now.boot_ms).last().map(|g| g.end);
        if let Some(end) = end {
            if end > live.position {
                self.lose(now, stream, end, LossCause::Expired, out);
            } else {
                self.write_progress_of(stream, out);
            }
            self.deliver(now, stream, out);
        }
        self.arm_expiry(stream);
    }
}

/// What comes next of `grant` from position `from` on.
fn next_run(holdings: &Holdings, grant: &Grant, from: Position, chunk_size: u64) -> Run {
    let chunks = grant.end() - from;
    let start = (from - grant.first) * chunk_size;
    let mut at: u64 = 0;
    let mut lost_chunks: u64 = 0;
    for extent in &grant.extents {
        let begin = at;
        at += u64::from(extent.length);
        if at <= start {
            continue;
        }
        // Chunks, counted from `from`, that this extent touches: first, and first after.
        let first = begin.saturating_sub(start) / chunk_size;
        let after = (at - start).div_ceil(chunk_size);
        if lost_chunks > 0 && first >= lost_chunks {
            break;
        }
        match holdings.presence(extent.block, extent.offset.saturating_add(extent.length)) {
            Presence::Here => {}
            Presence::Lost if first > 0 && lost_chunks == 0 => return Run::Here(first),
            Presence::Lost => lost_chunks = after,
            Presence::Awaited if lost_chunks > 0 => {}
            Presence::Awaited if first > 0 => return Run::Here(first),
            Presence::Awaited => return Run::Awaited(extent.block),
        }
    }
    if lost_chunks > 0 { Run::Lost(lost_chunks.min(chunks)) } else { Run::Here(chunks) }
}

/// `bytes` octets from the octet `start` of `extents` on.
pub(super) fn cut(extents: &[Extent], start: u64, bytes: u64) -> Vec<Extent> {
    let mut parts = Vec::new();
    let (mut at, end) = (0_u64, start.saturating_add(bytes));
    for extent in extents {
        let begin = at;
        at = at.saturating_add(u64::from(extent.length));
        let (from, to) = (start.max(begin), end.min(at));
        if from >= to {
            continue;
        }
        // Both lie within the extent, whose length has 32 bits.
        let (Ok(skip), Ok(length)) = (u32::try_from(from - begin), u32::try_from(to - from)) else {
            continue;
        };
        parts.push(Extent { block: extent.block, offset: extent.offset.saturating_add(skip), length });
    }
    parts
}
