//! The leader's grants: which stream gets the next key that both ends hold, and what is burnt.

use super::core::Core;
use super::entry::{Decision, Grant};
use super::event::{Level, Now, Output};
use super::names::{Mark, Position};
use super::scheduler::Claim;
use super::supply::{Supply, first_not_missing};
use super::timers::Timer;
use crate::interface::KeyStreamId;

/// Shortest time between two rounds of granting.
const ROUND_MS: u64 = 2;
/// Most octets that a stream gets in one turn.
const TURN_BYTES: u64 = 128 << 10;
/// With rivals, a turn is no less than this part of a second's key, so that entries stay few, ...
const TURNS_PER_SECOND: u64 = 64;
/// ... but no more than this for that reason.
const SHORT_TURN_BYTES: u64 = 8 << 10;
/// Weights are whole numbers: service among the minima is counted in this part of an octet by bit/s.
const MINIMUM_SCALE: u128 = 1 << 32;

impl Core {
    /// Whether `stream` can take key now, in chunks of how many octets, and how many octets more.
    fn room(&self, stream: KeyStreamId) -> Option<u64> {
        let state = self.durable.streams.get(&stream)?;
        let live = self.streams.get(&stream)?;
        let open = state.wanted && live.peer.wanted && !state.closed && !live.peer.closed;
        let skip_due = state.wish.max(live.peer.wish) > state.next;
        if !open || skip_due || !self.peer.in_step {
            return None;
        }
        let size = u64::from(state.qos.key_chunk_size);
        let share = self.pin_limit().bytes / (self.streams.len().max(1) as u64);
        let window = (self.settings.window_bytes.min(share) / size).min(self.settings.window_chunks).max(2);
        let out = state.next.saturating_sub(live.position.min(live.peer.position));
        let chunks = window.saturating_sub(out).min(u64::MAX - state.next);
        (chunks > 0).then_some(chunks.saturating_mul(size))
    }

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
        // A limiter is waited for until a turn is worth an entry.
        let worth = room.min(chunk.max(SHORT_TURN_BYTES / 4));
        if let Some(limit) = &mut live.turn.limit
            && limit.available(now.boot_ms) < chunk
        {
            scheduler.remove(stream);
            if let Some(at) = limit.ready_at(worth, now.boot_ms) {
                self.timers.set(Timer::Tokens(stream), at);
            }
            return;
        }
        live.turn.rest_service = scheduler.insert(Claim::Rest, stream, qos.priority, live.turn.rest_service);
        if let Some(minimum) = &mut live.turn.minimum {
            if minimum.available(now.boot_ms) >= chunk {
                live.turn.minimum_service =
                    scheduler.insert(Claim::Minimum, stream, qos.priority, live.turn.minimum_service);
            } else {
                scheduler.withdraw(Claim::Minimum, stream);
                if let Some(at) = minimum.ready_at(worth, now.boot_ms) {
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
        self.leading.granted_ms = now.boot_ms;
        self.skip(now, out);
        let leading = &self.leading;
        let mut supply =
            Supply::gather(self.durable.mark, &self.holdings, &leading.peer_have, leading.peer_complete);
        let mut granted = false;
        let mut too_coarse = Vec::new();
        while self.in_flight() < self.settings.most_entries_in_flight {
            let Some((claim, stream)) = self.leading.scheduler.first() else { break };
            match self.turn(now, claim, stream, &supply) {
                Turned::Gets(bytes) => {
                    if !self.may_pin(&supply, bytes) {
                        break;
                    }
                    self.serve(now, claim, stream, bytes, &mut supply, out);
                    granted = true;
                }
                Turned::Nothing => self.leading.scheduler.remove(stream),
                Turned::TooCoarse => {
                    self.leading.scheduler.remove(stream);
                    too_coarse.push(stream);
                }
                Turned::KeyIsShort => break,
            }
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

    fn turn(&mut self, now: Now, claim: Claim, stream: KeyStreamId, supply: &Supply) -> Turned {
        let Some(room) = self.room(stream) else { return Turned::Nothing };
        let (Some(state), Some(live)) = (self.durable.streams.get(&stream), self.streams.get_mut(&stream))
        else {
            return Turned::Nothing;
        };
        let chunk = u64::from(state.qos.key_chunk_size);
        let mut most = room.min(TURN_BYTES.max(chunk));
        if let Some(limit) = &mut live.turn.limit {
            most = most.min(limit.available(now.boot_ms));
        }
        if let (Claim::Minimum, Some(minimum)) = (claim, &mut live.turn.minimum) {
            most = most.min(minimum.available(now.boot_ms));
        }
        let rivals = self.leading.scheduler.rivals(claim) as u64;
        if rivals > 1 {
            let second = self.link.rate_bps / 8;
            let short = (second / TURNS_PER_SECOND).min(SHORT_TURN_BYTES);
            most = most.min((supply.bytes() / rivals).max(short).max(chunk));
        }
        if most < chunk {
            return Turned::Nothing;
        }
        let chunks = most.min(supply.bytes()) / chunk;
        if chunks == 0 {
            return if supply.is_crumbs() { Turned::TooCoarse } else { Turned::KeyIsShort };
        }
        Turned::Gets(chunks * chunk)
    }

    /// Whether both ends may keep the blocks of the next `bytes` until they are settled. One grant is always allowed.
    fn may_pin(&self, supply: &Supply, bytes: u64) -> bool {
        let limit = self.pin_limit();
        let blocks = supply.blocks_for(bytes);
        let here = self.holdings.pinned();
        let there = self.leading.peer_pinned;
        let there_bytes = there.bytes.saturating_add(self.leading.unapplied.bytes);
        let there_blocks = there.blocks.saturating_add(self.leading.unapplied.blocks);
        let fits_here = here.blocks == 0
            || here.bytes.saturating_add(bytes) <= limit.bytes
                && here.blocks.saturating_add(blocks) <= limit.blocks;
        let fits_there = there_blocks == 0
            || there_bytes.saturating_add(bytes) <= limit.bytes
                && there_blocks.saturating_add(blocks) <= limit.blocks;
        fits_here && fits_there
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

    /// Burns what is known to be missing at one end, and the rest of a block before it where nothing will join that to
    /// what follows: no stream takes key, or too many blocks are kept from being released behind it.
    fn burn(&mut self, now: Now, out: &mut Output) {
        if self.in_flight() >= self.settings.most_entries_in_flight {
            return;
        }
        let mark = self.durable.mark;
        let (there, complete) = (&self.leading.peer_have, self.leading.peer_complete);
        let target = first_not_missing(mark.block, &self.holdings, there, complete);
        if target > mark.block {
            self.append(now, Decision::Burn { to: Mark::at(target) }, out);
            return;
        }
        let after = mark.block.next();
        let held = self.holdings.length(mark.block).is_some() && there.contains(mark.block);
        if mark.offset == 0 || !held {
            return;
        }
        let target = first_not_missing(after, &self.holdings, there, complete);
        if target <= after {
            return;
        }
        let enough = (self.pin_limit().blocks / 4).max(1);
        let kept = self
            .holdings
            .count_between(after, target, enough)
            .max(there.count_between(after, target, enough));
        let taken = self.durable.streams.iter().any(|(id, s)| {
            s.wanted && !s.closed && self.streams.get(id).is_some_and(|l| l.peer.wanted && !l.peer.closed)
        });
        if kept >= enough || !taken {
            self.append(now, Decision::Burn { to: Mark::at(target) }, out);
        }
    }
}

/// What a stream gets in its turn.
enum Turned {
    /// So many octets, whole chunks.
    Gets(u64),
    /// It cannot take any.
    Nothing,
    /// It could, but there is less than a chunk. Nobody is served before it: its turn would never come.
    KeyIsShort,
    /// The blocks are so small that none of its chunks fits an entry.
    TooCoarse,
}
