//! What a card is: the values that do not change while it is powered.

use qkd_contract::limits::{BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES};
use qkd_contract::pci::DEVICE_ID;
use qkd_contract::registers::{VERSION_VALUE, feature};
use qkd_contract::state::Role;

/// Identity and sizes of one card (clauses ID).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Serial number, never 0.
    pub serial: u64,
    /// Serial number of the card at the other end.
    pub peer_serial: u64,
    /// Which half of the link it is.
    pub role: Role,
    /// Largest payload of a block in bytes, a multiple of 64.
    pub block_max: u32,
    /// Payload bytes it retains at most.
    pub retention_bytes: u64,
    /// Blocks it retains at most.
    pub retention_blocks: u32,
    /// Whether its key is positional test key.
    pub test_key: bool,
    /// Contract version it claims, major in bits 31..16.
    pub version: u32,
    /// PCI device identifier it claims.
    pub device_id: u16,
}

/// An identity that no card may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIdentity {
    /// Serial numbers are not 0 and differ.
    #[error("serial {serial} and peer serial {peer}: a serial is not 0, and the two ends differ")]
    Serial {
        /// Serial of this card.
        serial: u64,
        /// Serial of the other.
        peer: u64,
    },
    /// `block_max` is not a multiple of 64 within its limits.
    #[error("largest block {0} bytes: give a multiple of 64 from 64 to {BLOCK_BYTES_MAX}")]
    BlockMax(u32),
    /// Retention cannot hold a single block.
    #[error(
        "retention of {bytes} bytes and {blocks} blocks: it must hold at least two of the largest blocks"
    )]
    Retention {
        /// Bytes asked for.
        bytes: u64,
        /// Blocks asked for.
        blocks: u32,
    },
}

impl Identity {
    /// Default size of the largest block, in bytes.
    pub const BLOCK_MAX: u32 = 64 * 1024;
    /// Default retention, in bytes.
    pub const RETENTION_BYTES: u64 = 64 << 20;
    /// Default retention, in blocks.
    pub const RETENTION_BLOCKS: u32 = 65_536;

    /// A card of the usual sizes.
    #[must_use]
    pub fn new(serial: u64, peer_serial: u64, role: Role) -> Self {
        Self {
            serial,
            peer_serial,
            role,
            block_max: Self::BLOCK_MAX,
            retention_bytes: Self::RETENTION_BYTES,
            retention_blocks: Self::RETENTION_BLOCKS,
            test_key: false,
            version: VERSION_VALUE,
            device_id: DEVICE_ID,
        }
    }

    /// Checks what the contract asks of an identity.
    ///
    /// # Errors
    /// [`BadIdentity`] says which value is out of its limits.
    pub fn check(&self) -> Result<(), BadIdentity> {
        if self.serial == 0 || self.serial == self.peer_serial {
            return Err(BadIdentity::Serial { serial: self.serial, peer: self.peer_serial });
        }
        let step = BLOCK_HEADER_BYTES;
        if self.block_max == 0 || !self.block_max.is_multiple_of(step) || self.block_max > BLOCK_BYTES_MAX {
            return Err(BadIdentity::BlockMax(self.block_max));
        }
        if self.retention_bytes < 2 * u64::from(self.block_max) || self.retention_blocks < 2 {
            return Err(BadIdentity::Retention {
                bytes: self.retention_bytes,
                blocks: self.retention_blocks,
            });
        }
        Ok(())
    }

    /// Value of the FEATURES register.
    #[must_use]
    pub fn features(&self) -> u64 {
        let key = if self.test_key { feature::TEST_KEY } else { 0 };
        feature::CELL | feature::MODERATION | key
    }
}
