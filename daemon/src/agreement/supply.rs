//! The key that both ends hold and nobody has been granted, in order, and what is missing of it.

use std::collections::VecDeque;

use super::holdings::Holdings;
use super::names::{BlockName, Extent, Mark};
use super::ranges::BlockRanges;

/// Octets looked ahead for in one go.
const BYTES: u64 = 8 << 20;
/// Extents looked ahead for in one go.
const PIECES: usize = 4_096;

/// What can be granted now.
#[derive(Debug, Default)]
pub(crate) struct Supply {
    pieces: VecDeque<Extent>,
    bytes: u64,
}

impl Supply {
    /// What both ends hold from `mark` on, in order, up to the first block of which one end may still hear.
    pub(crate) fn gather(
        mark: Mark,
        here: &Holdings,
        there: &BlockRanges,
        there_complete: BlockName,
    ) -> Self {
        let mut supply = Self::default();
        let mut cursor = mark.block;
        while supply.bytes < BYTES && supply.pieces.len() < PIECES {
            // Blocks are held in rising order: what is below one that is held, and is not held, is lost here.
            let Some((name, length)) = here.next_held(cursor) else { break };
            if there.contains(name) {
                let offset = if name == mark.block { mark.offset } else { 0 };
                if let Some(rest) = length.checked_sub(offset).filter(|rest| *rest > 0) {
                    supply.pieces.push_back(Extent { block: name, offset, length: rest });
                    supply.bytes += u64::from(rest);
                }
            } else if name >= there_complete {
                break;
            }
            cursor = name.next();
        }
        supply
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether more pieces may not be had in one go, however small these are.
    pub(crate) fn is_crumbs(&self) -> bool {
        self.pieces.len() >= PIECES
    }

    /// Octets in the first `blocks` pieces.
    pub(crate) fn bytes_of_blocks(&self, blocks: u64) -> u64 {
        let most = usize::try_from(blocks).unwrap_or(usize::MAX);
        if most >= self.pieces.len() {
            return self.bytes;
        }
        self.pieces.iter().take(most).map(|piece| u64::from(piece.length)).sum()
    }

    /// Takes the first `bytes` octets, of which there must be as many; the mark is after them.
    pub(crate) fn take(&mut self, bytes: u64) -> (Vec<Extent>, Mark) {
        let mut extents = Vec::new();
        let mut left = bytes;
        let mut mark = Mark::ZERO;
        while left > 0 {
            let Some(piece) = self.pieces.pop_front() else { break };
            match u32::try_from(left) {
                Ok(part) if part < piece.length => {
                    let end = piece.offset.saturating_add(part);
                    extents.push(Extent { length: part, ..piece });
                    self.pieces.push_front(Extent {
                        block: piece.block,
                        offset: end,
                        length: piece.length - part,
                    });
                    mark = Mark { block: piece.block, offset: end };
                    left = 0;
                }
                _ => {
                    left -= u64::from(piece.length);
                    extents.push(piece);
                    mark = Mark::after(piece.block);
                }
            }
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        (extents, mark)
    }
}

/// The first block at or after `from` that is not known to be missing at one end.
pub(crate) fn first_not_missing(
    from: BlockName,
    here: &Holdings,
    there: &BlockRanges,
    there_complete: BlockName,
) -> BlockName {
    let mut at = from;
    loop {
        let mine = here.next_or_unknown(at);
        let theirs = there.next_from(at).unwrap_or_else(|| there_complete.max(at));
        let next = mine.max(theirs);
        if next == at || mine == theirs {
            return next;
        }
        at = next;
    }
}
