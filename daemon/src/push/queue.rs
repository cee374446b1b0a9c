//! The key that waits for the KMS, found by position.

use std::collections::VecDeque;

use super::handle::Delivery;
use crate::vault::KeyExtent;

/// Octets of a chunk that are fetched ahead: what lies behind them comes while they are encoded.
const MOST_FETCHED: usize = 4096;

/// Key of one stream, in order of position, with gaps where positions were skipped.
///
/// An octet's place is its position times the chunk size and its offset in the chunk; deliveries are checked to stay
/// within 64 bits.
#[derive(Debug)]
pub(super) struct KeyQueue {
    chunk_size: u64,
    pieces: VecDeque<Piece>,
}

#[derive(Debug)]
struct Piece {
    /// Place of the extent's first octet.
    place: u64,
    extent: KeyExtent,
}

impl Piece {
    fn end(&self) -> u64 {
        self.place + self.extent.length() as u64
    }
}

impl KeyQueue {
    pub(super) fn new(chunk_size: u32) -> Self {
        Self { chunk_size: u64::from(chunk_size), pieces: VecDeque::new() }
    }

    /// Takes a delivery that [`super::PushHandle::deliver`] has checked. Gives how many extents were empty.
    pub(super) fn push(&mut self, delivery: Delivery) -> usize {
        let mut place = delivery.first * self.chunk_size;
        let mut empty = 0;
        for extent in delivery.key {
            let piece = Piece { place, extent };
            if piece.extent.length() == 0 {
                empty += 1;
                continue;
            }
            place = piece.end();
            self.pieces.push_back(piece);
        }
        empty
    }

    /// The first position from `position` on whose key is here.
    pub(super) fn next_from(&self, position: u64) -> Option<u64> {
        let place = position.checked_mul(self.chunk_size)?;
        let piece = self.pieces.get(self.index_of(place))?;
        // A piece that begins later begins a chunk: gaps lie between whole chunks.
        Some(if piece.place <= place { position } else { piece.place / self.chunk_size })
    }

    /// The parts of one chunk, in order. Nothing when the chunk is not here.
    pub(super) fn parts(&self, position: u64) -> impl Iterator<Item = &[u8]> {
        let start = position.saturating_mul(self.chunk_size);
        let end = start.saturating_add(self.chunk_size);
        self.pieces.range(self.index_of(start)..).take_while(move |piece| piece.place < end).map(
            move |piece| {
                let from = octets(start.saturating_sub(piece.place));
                let to = octets(end.min(piece.end()) - piece.place);
                piece.extent.bytes().get(from..to).unwrap_or_default()
            },
        )
    }

    /// Has the processor fetch the beginning of the chunk at `position`, which is sent next.
    pub(super) fn fetch(&self, position: u64) {
        let start = position.saturating_mul(self.chunk_size);
        if let Some(piece) = self.pieces.get(self.index_of(start))
            && let Some(from) = start.checked_sub(piece.place).map(octets)
        {
            let to = octets(self.chunk_size).min(MOST_FETCHED).saturating_add(from);
            piece.extent.fetch(from..to.min(piece.extent.length()));
        }
    }

    /// How many chunks from `from` on and below `to` are here.
    pub(super) fn count(&self, from: u64, to: u64) -> u64 {
        let from = from.saturating_mul(self.chunk_size);
        let to = to.saturating_mul(self.chunk_size);
        let held = |piece: &Piece| piece.end().min(to).saturating_sub(piece.place.max(from));
        self.pieces.range(self.index_of(from)..).take_while(|piece| piece.place < to).map(held).sum::<u64>()
            / self.chunk_size
    }

    /// Wipes every chunk below `position`. Gives how many extents that ended.
    pub(super) fn wipe_below(&mut self, position: u64) -> usize {
        let place = position.saturating_mul(self.chunk_size);
        let mut ended = 0;
        while let Some(piece) = self.pieces.front_mut() {
            if piece.end() > place {
                let gone = place.saturating_sub(piece.place);
                piece.extent.wipe_front(octets(gone));
                piece.place += gone;
                break;
            }
            self.pieces.pop_front();
            ended += 1;
        }
        ended
    }

    /// Index of the first piece that ends after `place`.
    fn index_of(&self, place: u64) -> usize {
        // Nearly always the first: what is in flight is at the front.
        if self.pieces.front().is_some_and(|piece| piece.end() > place) {
            return 0;
        }
        self.pieces.partition_point(|piece| piece.end() <= place)
    }
}

/// Offsets within a piece, which fits memory.
fn octets(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
