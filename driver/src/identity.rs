//! Who a card says it is, checked.

use qkd_contract::limits::BLOCK_BYTES_MAX;
use qkd_contract::registers::{
    BLOCK_MAX, FEATURES, MAGIC, MAGIC_VALUE, PEER_SERIAL, RETENTION_BLOCKS, RETENTION_BYTES, ROLE, SERIAL,
    VERSION, VERSION_VALUE, feature,
};
use qkd_contract::state::Role;

use crate::mmio::{Mmio, Registers};

/// What does not change while a card is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Serial number, never 0.
    pub serial: u64,
    /// Serial number of the card at the link's other end; `None` while it is unknown.
    pub peer_serial: Option<u64>,
    /// Which half of the link the card is.
    pub role: Role,
    /// Contract version (major, minor).
    pub version: (u16, u16),
    /// Largest payload of a block, in bytes.
    pub block_max: u32,
    /// Bytes of payload that the card can retain.
    pub retention_bytes: u64,
    /// Blocks that the card can retain.
    pub retention_blocks: u32,
    /// The card has the host-owned monotone cell.
    pub has_cell: bool,
    /// The card honours interrupt moderation.
    pub has_moderation: bool,
    /// Nothing that the card delivers is secret: positional test key.
    pub test_key: bool,
}

/// The registers that say who a card is make no sense, or not to this driver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// All ones (REG-8).
    #[error("no card answers: its registers read all ones")]
    Gone,
    /// Not a QKD card (ID-1).
    #[error("this is no QKD card: its magic is {found:#010x}, not {MAGIC_VALUE:#010x}")]
    WrongMagic {
        /// What `MAGIC` holds.
        found: u32,
    },
    /// A contract version that this driver does not know (ID-2).
    #[error(
        "the card speaks contract version {major}.{minor}, this driver {}.x; use a driver made for the card's version",
        VERSION_VALUE >> 16
    )]
    OtherVersion {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// Registers and configuration space name different cards (PCI-7).
    #[error(
        "SERIAL is {serial:#x}, and the Device Serial Number capability {capability:#x}; they must be equal (PCI-7)"
    )]
    OtherCapability {
        /// What `SERIAL` holds.
        serial: u64,
        /// What the capability holds, 0 if there is none.
        capability: u64,
    },
    /// A value outside the contract's limits.
    #[error("register {register} holds {value:#x}: {rule} ({clause})")]
    OutOfRange {
        /// Name of the register.
        register: &'static str,
        /// What it holds.
        value: u64,
        /// What the contract says.
        rule: &'static str,
        /// Clause of the contract.
        clause: &'static str,
    },
}

impl Identity {
    /// Checks that this is a QKD card of a version that this driver knows, and touches no other register (VER-1). Gives
    /// the version, (major, minor).
    pub(crate) fn check_version<M: Mmio>(registers: &M) -> Result<(u16, u16), IdentityError> {
        match registers.get32(MAGIC) {
            MAGIC_VALUE => {}
            u32::MAX => return Err(IdentityError::Gone),
            found => return Err(IdentityError::WrongMagic { found }),
        }
        let (major, minor) = halves(registers.get32(VERSION));
        // A newer minor version only adds to this one; another major version means something else by the same bits.
        if major == halves(VERSION_VALUE).0 {
            Ok((major, minor))
        } else {
            Err(IdentityError::OtherVersion { major, minor })
        }
    }

    /// Reads and checks it. The card has booted (REG-10).
    pub(crate) fn read<M: Mmio>(registers: &M) -> Result<Self, IdentityError> {
        let version = Self::check_version(registers)?;
        let features = registers.get64(FEATURES);
        let serial = registers.get64(SERIAL);
        let peer_serial = registers.get64(PEER_SERIAL);
        let role = registers.get32(ROLE);
        let block_max = registers.get32(BLOCK_MAX);
        let retention_bytes = registers.get64(RETENTION_BYTES);
        let retention_blocks = registers.get32(RETENTION_BLOCKS);
        // One look at the end: a card that vanished meanwhile has answered ones to all of these.
        if registers.get32(MAGIC) == u32::MAX {
            return Err(IdentityError::Gone);
        }
        let wrong = |register: &'static str, value: u64, rule, clause| IdentityError::OutOfRange {
            register,
            value,
            rule,
            clause,
        };
        if serial == 0 || serial == u64::MAX {
            return Err(wrong(
                SERIAL.name,
                serial,
                "a serial number is neither 0 nor all ones",
                SERIAL.clause,
            ));
        }
        if peer_serial == serial {
            return Err(wrong(
                PEER_SERIAL.name,
                peer_serial,
                "the two ends are two cards",
                PEER_SERIAL.clause,
            ));
        }
        let role = Role::try_from(role)
            .map_err(|_| wrong(ROLE.name, role.into(), "transmitter is 1, receiver is 2", ROLE.clause))?;
        if block_max == 0 || block_max > BLOCK_BYTES_MAX || !block_max.is_multiple_of(64) {
            let rule = "a multiple of 64 from 64 to 1048576";
            return Err(wrong(BLOCK_MAX.name, block_max.into(), rule, BLOCK_MAX.clause));
        }
        if retention_bytes < u64::from(block_max) {
            let rule = "at least one block can be retained";
            return Err(wrong(RETENTION_BYTES.name, retention_bytes, rule, RETENTION_BYTES.clause));
        }
        if retention_blocks == 0 {
            let rule = "at least one block can be retained";
            return Err(wrong(RETENTION_BLOCKS.name, 0, rule, RETENTION_BLOCKS.clause));
        }
        Ok(Self {
            serial,
            peer_serial: (peer_serial != 0).then_some(peer_serial),
            role,
            version,
            block_max,
            retention_bytes,
            retention_blocks,
            has_cell: features & feature::CELL != 0,
            has_moderation: features & feature::MODERATION != 0,
            test_key: features & feature::TEST_KEY != 0,
        })
    }

    /// Whether `other` is the same card on the same link. A peer may be unknown for a while, but never another one.
    pub(crate) fn same_card(&self, other: &Self) -> bool {
        let peer_serial = self.peer_serial.and(other.peer_serial);
        let of_both = |identity: &Self| Self { peer_serial, ..identity.clone() };
        let same_peer = peer_serial.is_none() || self.peer_serial == peer_serial;
        same_peer && of_both(self) == of_both(other)
    }
}

/// High and low half of a register.
pub(crate) const fn halves(value: u32) -> (u16, u16) {
    let [a, b, c, d] = value.to_be_bytes();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}
