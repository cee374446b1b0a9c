//! The blocks of key that lie in the vault, by name.

use std::collections::HashMap;

use super::exit::KeyFault;
use crate::agreement::{BlockName, Extent};
use crate::vault::{KeyBlock, KeyExtent};

/// Every block held. Dropping it wipes all of it.
#[derive(Debug, Default)]
pub(super) struct Keys {
    blocks: HashMap<BlockName, KeyBlock>,
}

impl Keys {
    /// Takes a block in. `false`: a block of this name is held already, and the second copy has been wiped.
    pub(super) fn hold(&mut self, name: BlockName, key: KeyBlock) -> bool {
        match self.blocks.entry(name) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(key);
                true
            }
        }
    }

    /// Hands out the octets of `extents`, in their order.
    ///
    /// # Errors
    /// When an octet is not there or was handed out before. What had been taken of `extents` is wiped then: it could
    /// not be delivered any more in its place.
    pub(super) fn take(&mut self, extents: &[Extent]) -> Result<Vec<KeyExtent>, KeyFault> {
        extents
            .iter()
            .map(|extent| {
                let block = extent.block;
                let held = self.blocks.get_mut(&block).ok_or(KeyFault::Absent(block))?;
                held.take(extent.offset, extent.length).map_err(|fault| KeyFault::Taken { block, fault })
            })
            .collect()
    }

    /// Wipes what is left of a block.
    pub(super) fn release(&mut self, name: BlockName) {
        self.blocks.remove(&name);
    }

    /// Wipes everything.
    pub(super) fn clear(&mut self) {
        self.blocks.clear();
    }

    /// Blocks held.
    pub(super) fn count(&self) -> usize {
        self.blocks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::exit::KeyFault;
    use super::Keys;
    use crate::agreement::{BlockName, Extent};
    use crate::vault::{KeyBlock, Locking, Vault};

    fn block(vault: &Vault, octets: &[u8]) -> KeyBlock {
        let mut room = vault.reserve(u32::try_from(octets.len()).unwrap()).unwrap();
        room.as_mut_slice().copy_from_slice(octets);
        room.seal()
    }

    fn extent(sequence: u64, offset: u32, length: u32) -> Extent {
        Extent { block: BlockName::new(1, sequence), offset, length }
    }

    #[test]
    fn a_block_that_comes_again_never_replaces_the_first() {
        let vault = Vault::new(1 << 16, Locking::Preferred).unwrap();
        let mut keys = Keys::default();
        assert!(keys.hold(BlockName::new(1, 0), block(&vault, b"first")));
        assert!(!keys.hold(BlockName::new(1, 0), block(&vault, b"other")));
        let taken = keys.take(&[extent(0, 0, 5)]).unwrap();
        assert_eq!(taken[0].bytes(), b"first");
    }

    #[test]
    fn octets_leave_once_and_an_absent_block_gives_nothing() {
        let vault = Vault::new(1 << 16, Locking::Preferred).unwrap();
        let mut keys = Keys::default();
        assert!(keys.hold(BlockName::new(1, 0), block(&vault, b"abcdef")));
        assert!(keys.hold(BlockName::new(1, 1), block(&vault, b"ghijkl")));
        let chunk = keys.take(&[extent(0, 4, 2), extent(1, 0, 2)]).unwrap();
        assert_eq!(chunk.iter().map(|part| part.bytes().to_vec()).collect::<Vec<_>>().concat(), b"efgh");
        assert!(matches!(keys.take(&[extent(1, 1, 1)]), Err(KeyFault::Taken { .. })));
        assert!(matches!(keys.take(&[extent(2, 0, 1)]), Err(KeyFault::Absent(_))));
        keys.release(BlockName::new(1, 0));
        assert!(matches!(keys.take(&[extent(0, 0, 1)]), Err(KeyFault::Absent(_))));
        assert_eq!(keys.count(), 1);
    }
}
