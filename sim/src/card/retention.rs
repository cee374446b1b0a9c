//! What a card keeps until it is acknowledged (clauses RET).

use std::collections::BTreeMap;
use std::ops::Bound;

use super::block::{Block, Name};

/// The blocks that a card retains, oldest first, within its two limits.
#[derive(Debug)]
pub(crate) struct Retention {
    blocks: BTreeMap<Name, Block>,
    bytes: u64,
    bytes_max: u64,
    blocks_max: u32,
}

/// Retention is full; the block comes back and its key is wiped by whoever drops it.
#[derive(Debug)]
pub(crate) struct Full(pub(crate) Block);

impl Retention {
    pub(crate) fn new(bytes_max: u64, blocks_max: u32) -> Self {
        Self { blocks: BTreeMap::new(), bytes: 0, bytes_max, blocks_max }
    }

    /// Keeps a block, or refuses it when it does not fit: the newest is refused, never an older one dropped.
    pub(crate) fn keep(&mut self, block: Block) -> Result<(), Full> {
        let length = block.key.len() as u64;
        if self.blocks.len() >= self.blocks_max as usize || self.bytes + length > self.bytes_max {
            return Err(Full(block));
        }
        self.bytes += length;
        if let Some(replaced) = self.blocks.insert(block.name, block) {
            self.bytes -= replaced.key.len() as u64;
        }
        Ok(())
    }

    /// Erases every block from `first` to `last`, both included. The work is that of the blocks erased.
    pub(crate) fn erase(&mut self, first: Name, last: Name) {
        if first > last {
            return;
        }
        while let Some((&name, _)) = self.blocks.range(first..=last).next() {
            if let Some(erased) = self.blocks.remove(&name) {
                self.bytes -= erased.key.len() as u64;
            }
        }
    }

    /// Erases everything.
    pub(crate) fn erase_all(&mut self) {
        self.blocks.clear();
        self.bytes = 0;
    }

    /// The block of that name, if it is retained.
    pub(crate) fn get(&self, name: Name) -> Option<&Block> {
        self.blocks.get(&name)
    }

    /// The oldest block after `cursor`, or the oldest of all.
    pub(crate) fn after(&self, cursor: Option<Name>) -> Option<&Block> {
        let from = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        self.blocks.range((from, Bound::Unbounded)).next().map(|(_, block)| block)
    }

    /// The oldest block that is not before `name`.
    pub(crate) fn at_or_after(&self, name: Name) -> Option<&Block> {
        self.blocks.range(name..).next().map(|(_, block)| block)
    }

    /// Name of the newest block.
    pub(crate) fn newest(&self) -> Option<Name> {
        self.blocks.last_key_value().map(|(&name, _)| name)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn count(&self) -> u32 {
        // `keep` holds the count below a 32-bit limit.
        u32::try_from(self.blocks.len()).unwrap_or(u32::MAX)
    }
}
