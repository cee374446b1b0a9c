//! The leader's grants: which stream gets the next key that both ends hold, and what is burnt.

use super::core::Core;
use super::entry::{Decision, Grant};
use super::event::{Level, Now, Output};
use super::limiter::Bucket;
use super::names::{BlockName, Mark, Position};
use super::room::TURN_BYTES;
use super::scheduler::Claim;
use super::supply::{Supply, first_not_missing};
use super::timers::Timer;
use crate::interface::KeyStreamId;

/// Shortest time between two rounds of granting that found key.
const ROUND_MS: u64 = 2;
/// With rivals, a turn is no less than this part of a second's key, so that entries stay few, ...
const TURNS_PER_SECOND: u64 = 64;
/// ... but no more than the greater of these for that reason: an entry costs what some chunks do.
const SHORT_TURN_BYTES: u64 = 8 << 10;
const SHORT_TURN_CHUNKS: u64 = 16;
/// A stream of a limited rate waits no longer than this part of a second for more than a chunk.
const WAITS_PER_SECOND: u64 = 4;
/// Weights are whole numbers: service among the minima is counted in this part of an octet by bit/s.
const MINIMUM_SCALE: u128 = 1 << 32;

impl Core {
    /// Finds `stream` its place among those that could be served now.
    pub(super) fn place(&mut self, now: Now, stream: KeyStreamId) {
        if !self.leads() {
            return;
        }
        self.timers.clear(Timer::Tokens(stream));
        let room = self.room(stream);
        let (Some(state), Some(live)) = (self.durable.streams.get(&stream), self.streams.get_mut(&stream))
        else {
            return;
        };
        if state.wish.max(live.peer.wish) > state.next {
            self.leading.skips.insert(stream);
            self.leading.granting = true;
        }
        let scheduler = &mut self.leading.scheduler;
        let Some(room) = room else {
            scheduler.remove(stream);
            return;
        };
        let qos = &state.qos;
        let chunk = u64::from(qos.key_chunk_size);
        // A limiter is waited for until a turn is worth an entry, but not until it is full: it would spill.
        let waited = (u64::from(qos.max_bps) / 8 / WAITS_PER_SECOND).min(SHORT_TURN_BYTES);
        let worth = room.bytes.min(waited);
        let worth = |bucket: &Bucket| worth.min(bucket.depth() / 2).max(chunk);
        if let Some(limit) = &mut live.turn.limit
            && limit.available(now.boot_ms) < worth(limit)
        {
            scheduler.remove(stream);
            if let Some(at) = limit.ready_at(worth(limit), now.boot_ms) {
                self.timers.set(Timer::Tokens(stream), at);
            }
            return;
        }
        scheduler.set_hungry(stream, room.hungry);
        live.turn.rest_service = scheduler.insert(Claim::Rest, stream, qos.priority, live.turn.rest_service);
        if let Some(minimum) = &mut live.turn.minimum {
            if minimum.available(now.boot_ms) >= worth(minimum) {
                live.turn.minimum_service =
                    scheduler.insert(Claim::Minimum, stream, qos.priority, live.turn.minimum_service);
            } else {
                scheduler.withdraw(Claim::Minimum, stream);
                if let Some(at) = minimum.ready_at(worth(minimum), now.boot_ms) {
                    self.timers.set(Timer::Tokens(stream), at);
                }
            }
        }
        self.leading.granting = true;
    }

    /// Grants what can be granted, and burns what is missing.
    pub(super) fn grant(&mut self, now: Now, out: &mut Output) {
        let next_round = self.leading.granted_ms.saturating_add(ROUND_MS);
        if next_round > now.boot_ms && self.leading.granted_ms > 0 {
            self.timers.set_earlier(Timer::Grant, next_round);
            self.leading.granting = false;
            return;
        }
        self.leading.granting = false;
        self.skip(now, out);
        if self.in_flight() >= self.settings.most_entries_in_flight {
            // Nothing can be granted or burnt before the follower has applied something, and says so.
            return;
        }
        if !self.leading.scheduler.is_any_hungry() {
            self.burn(now, out);
            return;
        }
        let leading = &self.leading;
        let mut supply =
            Supply::gather(self.durable.mark, &self.holdings, &leading.peer_have, leading.peer_complete);
        // A round without key costs little, as when a block has come here and not there yet; the next one does not wait for it.
        if supply.bytes() > 0 {
            self.leading.granted_ms = now.boot_ms;
        }
        let mut granted = false;
        let mut too_coarse = Vec::new();
        let mut crowded = Vec::new();
        while self.in_flight() < self.settings.most_entries_in_flight {
            let Some((claim, stream)) = self.leading.scheduler.first() else { break };
            match self.turn(now, claim, stream, &supply, !crowded.is_empty()) {
                Turned::Gets(bytes) => {
                    self.serve(now, claim, stream, bytes, &mut supply, out);
                    granted = true;
                }
                Turned::Nothing => self.leading.scheduler.remove(stream),
                Turned::TooCoarse => {
                    self.leading.scheduler.remove(stream);
                    too_coarse.push(stream);
                }
                Turned::NoRoom => {
                    self.leading.scheduler.remove(stream);
                    crowded.push(stream);
                }
                Turned::KeyIsShort => break,
            }
        }
        for stream in crowded {
            self.place(now, stream);
            // There is room when something is accepted, here or there, and not before.
            self.leading.granting = false;
        }
        for stream in too_coarse {
            out.say(
                Level::Warn,
                format!("key stream {stream}: its chunks span more blocks than an entry can name"),
            );
            self.place(now, stream);
        }
        if granted {
            // There may be more than one round looks at.
            self.leading.granting = self.leading.scheduler.first().is_some()
                && supply.bytes() == 0
                && self.in_flight() < self.settings.most_entries_in_flight;
            if self.leading.granting {
                self.timers.set_earlier(Timer::Grant, now.boot_ms.saturating_add(ROUND_MS));
                self.leading.granting = false;
            }
        }
        self.burn(now, out);
    }

    /// Appends the skips that are due.
    fn skip(&mut self, now: Now, out: &mut Output) {
        let due: Vec<(KeyStreamId, Position)> = self
            .leading
            .skips
            .iter()
            .filter_map(|stream| {
                let state = self.durable.streams.get(stream)?;
                let live = self.streams.get(stream)?;
                let to = state.wish.max(live.peer.wish);
                let open = state.wanted && live.peer.wanted && !state.closed && !live.peer.closed;
                (open && to > state.next).then_some((*stream, to))
            })
            .collect();
        for (stream, to) in due {
            if self.in_flight() >= self.settings.most_entries_in_flight {
                return;
            }
            self.leading.skips.remove(&stream);
            self.append(now, Decision::Skip { stream, to }, out);
            self.place(now, stream);
        }
    }

    /// What `stream` gets in its turn. `crowded`: somebody before it found no room, and what is left is for idle streams.
    fn turn(
        &mut self,
        now: Now,
        claim: Claim,
        stream: KeyStreamId,
        supply: &Supply,
        crowded: bool,
    ) -> Turned {
        let Some(room) = self.room(stream) else { return Turned::Nothing };
        let (Some(state), Some(live)) = (self.durable.streams.get(&stream), self.streams.get_mut(&stream))
        else {
            return Turned::Nothing;
        };
        let chunk = u64::from(state.qos.key_chunk_size);
        let mut most = room.bytes.min(TURN_BYTES.max(chunk));
        if let Some(limit) = &mut live.turn.limit {
            most = most.min(limit.available(now.boot_ms));
        }
        if let (Claim::Minimum, Some(minimum)) = (claim, &mut live.turn.minimum) {
            most = most.min(minimum.available(now.boot_ms));
        }
        let rivals = self.leading.scheduler.rivals(claim) as u64;
        if rivals > 1 {
            let second = self.link.rate_bps / 8;
            let short = (second / TURNS_PER_SECOND).min(SHORT_TURN_BYTES.max(chunk * SHORT_TURN_CHUNKS));
            most = most.min((supply.bytes() / rivals).max(short).max(chunk));
        }
        if most < chunk {
            return Turned::Nothing;
        }
        let idle = live.position >= state.next && live.peer.position >= state.next;
        if crowded && !idle {
            return Turned::NoRoom;
        }
        let mut pinnable = self.pinnable(supply, chunk, false);
        if pinnable < chunk && idle {
            pinnable = self.pinnable(supply, chunk, true);
        }
        let chunks = most.min(supply.bytes()).min(pinnable) / chunk;
        if chunks == 0 {
            let crumbs = supply.is_crumbs() && supply.bytes() < chunk;
            let no_room = supply.bytes() >= chunk && !idle;
            return if crumbs {
                Turned::TooCoarse
            } else if no_room {
                Turned::NoRoom
            } else {
                Turned::KeyIsShort
            };
        }
        Turned::Gets(chunks * chunk)
    }

    fn serve(
        &mut self,
        now: Now,
        claim: Claim,
        stream: KeyStreamId,
        bytes: u64,
        supply: &mut Supply,
        out: &mut Output,
    ) {
        let (Some(state), Some(live)) = (self.durable.streams.get(&stream), self.streams.get_mut(&stream))
        else {
            return;
        };
        let (priority, first) = (state.qos.priority, state.next);
        let Ok(count) = u32::try_from(bytes / u64::from(state.qos.key_chunk_size)) else { return };
        let weight = u128::from(state.qos.min_bps.max(1));
        let turn = &mut live.turn;
        for bucket in [&mut turn.limit, &mut turn.minimum].into_iter().flatten() {
            bucket.take(bytes, now.boot_ms);
        }
        let before = match claim {
            Claim::Minimum => {
                let before = turn.minimum_service;
                turn.minimum_service += u128::from(bytes) * MINIMUM_SCALE / weight;
                before
            }
            Claim::Rest => {
                let before = turn.rest_service;
                turn.rest_service += u128::from(bytes);
                before
            }
        };
        self.leading.scheduler.served(claim, stream, priority, before);
        let (extents, mark) = supply.take(bytes);
        let grant = Grant { stream, first, count, extents, mark };
        let unapplied = &mut self.leading.unapplied;
        unapplied.bytes = unapplied.bytes.saturating_add(bytes);
        unapplied.blocks = unapplied.blocks.saturating_add(grant.extents.len() as u64);
        self.append(now, Decision::Grant(grant), out);
        self.place(now, stream);
    }

    /// Burns what is known to be missing at one end. What both ends hold before that is burnt with it only where it will
    /// not be joined to what follows: no stream takes key, or it is less than a chunk while too many blocks are kept from
    /// being released behind it.
    fn burn(&mut self, now: Now, out: &mut Output) {
        while self.in_flight() < self.settings.most_entries_in_flight {
            let Some(target) = self.burns_to() else { return };
            self.append(now, Decision::Burn { to: Mark::at(target) }, out);
        }
    }

    fn burns_to(&self) -> Option<BlockName> {
        let mark = self.durable.mark;
        let (there, complete) = (&self.leading.peer_have, self.leading.peer_complete);
        // What this end's card has not come to yet is burnt when it has, whatever the other end says of it.
        let not_missing = |from| {
            first_not_missing(from, &self.holdings, there, complete).min(self.holdings.complete().max(from))
        };
        let begin = not_missing(mark.block);
        if begin > mark.block {
            return Some(begin);
        }
        // Runs of what both hold and of what one lacks take turns.
        let (mut at, mut bytes) = (mark.block, 0);
        let mut kept: u64 = 0;
        let mut first_run = None;
        let mut needed = None;
        loop {
            while let Some(length) = self.holdings.length(at).filter(|_| there.contains(at)) {
                let used = if at == mark.block { mark.offset } else { 0 };
                bytes += u64::from(length.saturating_sub(used));
                at = at.next();
                if bytes >= u64::from(needed.unwrap_or(self.settings.largest_chunk_size)) {
                    return None;
                }
            }
            let next = not_missing(at);
            if next == at {
                return None;
            }
            if needed.is_none() {
                let wanted = self.largest_chunk_wanted();
                // A whole block waits for a stream to come; the rest of one does not.
                let whole = mark.offset == 0 || at > mark.block.next();
                let useful = if wanted > 0 { bytes >= u64::from(wanted) } else { whole };
                if useful {
                    return None;
                }
                needed = Some(wanted);
            }
            let enough = self.missing_enough();
            let more =
                self.holdings.count_between(at, next, enough).max(there.count_between(at, next, enough));
            kept = kept.saturating_add(more);
            let target = *first_run.get_or_insert(next);
            if needed == Some(0) || kept >= enough {
                return Some(target);
            }
            at = next;
        }
    }

    /// Octets of the largest chunk of a stream that takes key, 0 where none does.
    fn largest_chunk_wanted(&self) -> u32 {
        let takes = |id: &KeyStreamId| self.streams.get(id).is_some_and(|l| l.peer.wanted && !l.peer.closed);
        let takers = self.durable.streams.iter().filter(|(id, s)| s.wanted && !s.closed && takes(id));
        takers.map(|(_, s)| s.qos.key_chunk_size).max().unwrap_or(0)
    }

    /// Blocks that may be kept behind less than a chunk of what both hold: an eighth of the room.
    fn missing_enough(&self) -> u64 {
        let limit = self.pin_limit();
        let largest = u64::from(self.holdings.largest()).max(1);
        (limit.blocks / 4).min(limit.bytes / 4 / largest).max(1)
    }
}

/// What a stream gets in its turn.
enum Turned {
    /// So many octets, whole chunks.
    Gets(u64),
    /// It cannot take any.
    Nothing,
    /// It could, but there is less than a chunk, or no room for one. Nobody is served before it: its turn would never
    /// come.
    KeyIsShort,
    /// It could, but both ends keep as much as they may for those who have something already, and it is one of them. It
    /// steps aside for those of which nothing is kept; when its KMSs have taken what it has, it is one of those.
    NoRoom,
    /// The blocks are so small that none of its chunks fits an entry.
    TooCoarse,
}
