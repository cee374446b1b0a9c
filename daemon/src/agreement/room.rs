//! How much key may be on its way to a stream's KMSs, and how much of it both ends may keep.

use super::core::Core;
use super::durable::StreamState;
use super::names::{Position, position_limit};
use super::status::HeldUp;
use super::stream::{Behind, Live};
use super::supply::Supply;
use crate::interface::KeyStreamId;

/// Most octets that a stream gets in one turn.
pub(super) const TURN_BYTES: u64 = 512 << 10;
/// So that entries stay few and a write of the ledger takes many of them, nobody is served while more than half of each
/// stream's window is on its way to its KMSs. Who is served then, is with those of whose windows this part is free.
const TURNS_PER_WINDOW: u64 = 4;

/// Whether no more than half of a stream's window is on its way to its KMSs.
const fn is_hungry(window: u64, out: u64) -> bool {
    out <= window / 2
}

/// How much key a stream can take.
pub(super) struct Room {
    /// Octets, whole chunks.
    pub(super) bytes: u64,
    /// No more than half of its window is on its way to its KMSs.
    pub(super) hungry: bool,
}

impl Core {
    /// Whether `stream` can take key now, and how much.
    pub(super) fn room(&self, stream: KeyStreamId) -> Option<Room> {
        let state = self.durable.streams.get(&stream)?;
        let live = self.streams.get(&stream)?;
        let open = state.wanted && live.peer.wanted && !state.closed && !live.peer.closed;
        let skip_due = state.wish.max(live.peer.wish) > state.next;
        if !open || skip_due || !self.peer.in_step {
            return None;
        }
        let size = u64::from(state.qos.key_chunk_size);
        let window = self.window(size);
        let out = state.next.saturating_sub(live.position.min(live.peer.position));
        let left = position_limit(state.qos.key_chunk_size).saturating_sub(state.next);
        let chunks = window.saturating_sub(out).min(left);
        let worth = (window / TURNS_PER_WINDOW).min(TURN_BYTES / size).min(left).max(1);
        let room = Room { bytes: chunks.saturating_mul(size), hungry: is_hungry(window, out) };
        (chunks >= worth).then_some(room)
    }

    /// Chunks of `size` octets that a stream may have on their way to its KMSs.
    fn window(&self, size: u64) -> u64 {
        // As much again is kept for what was accepted and is not written down yet, and for who has nothing.
        let share = self.pin_limit().bytes / 2 / (self.streams.len().max(1) as u64);
        (self.settings.window_bytes.min(share) / size).min(self.settings.window_chunks).max(2)
    }

    /// How far a KMS that has accepted everything below `position` is behind, where that is too much for its stream to be
    /// hungry.
    pub(super) fn behind(&self, state: &StreamState, position: Position) -> Option<Behind> {
        let next = state.next;
        let chunks = next.saturating_sub(position);
        (!is_hungry(self.window(state.qos.key_chunk_size.into()), chunks)).then_some(Behind { chunks, next })
    }

    /// Where all that was granted is accepted here, and nothing more is granted until the KMS at the other end has accepted
    /// some: how much it has yet to accept, by what was last heard, and since when nothing was granted.
    pub(super) fn held_up(&self, state: &StreamState, live: &Live) -> Option<HeldUp> {
        if !self.peer.in_step || live.position < state.next {
            return None;
        }
        let behind = if self.leads() {
            self.behind(state, live.peer.position)
        } else {
            live.peer.behind.filter(|behind| behind.next == state.next)
        };
        behind.map(|behind| HeldUp { chunks: behind.chunks, since_ms: live.granted_ms })
    }

    /// Octets of the supply whose blocks both ends may keep until they are settled. The last quarter of that room is for
    /// streams of which nothing is kept (`idle`), so that those whose KMSs take nothing leave something to the others.
    /// Where nothing at all is kept, one chunk always may be.
    pub(super) fn pinnable(&self, supply: &Supply, chunk: u64, idle: bool) -> u64 {
        let limit = self.pin_limit();
        let part = |all: u64| if idle { all } else { all - all / 4 };
        let here = self.holdings.pinned();
        let there = self.leading.peer_pinned;
        let unapplied = self.leading.unapplied;
        let bytes = here.bytes.max(there.bytes.saturating_add(unapplied.bytes));
        let blocks = here.blocks.max(there.blocks.saturating_add(unapplied.blocks));
        let free = supply
            .bytes_of_blocks(part(limit.blocks).saturating_sub(blocks))
            .min(part(limit.bytes).saturating_sub(bytes));
        if blocks == 0 {
            free.max(chunk)
        } else if idle {
            free.min(chunk)
        } else {
            free
        }
    }
}
