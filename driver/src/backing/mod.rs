//! What a card is reached through.
//!
//! A [`Backing`] is all that differs between a card in a slot ([`vfio`], the kernel's VFIO), a simulated card on
//! a vfio-user socket ([`vfio_user`]) and a card model inside the process ([`model`]). Nothing above it knows which.

pub mod model;
mod signals;
pub mod vfio;
pub mod vfio_user;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::dma::DmaMemory;
use crate::mmio::Mmio;

/// Offset of the command register in configuration space.
pub(crate) const COMMAND: u16 = 0x04;
/// Where extended capabilities begin in configuration space.
const EXTENDED_CAPABILITIES: u16 = 0x100;
/// Extended capability: device serial number (PCI-7).
const DEVICE_SERIAL_NUMBER: u16 = 0x0003;
/// More capabilities than fit in configuration space: a chain that goes in circles.
const CAPABILITIES_MAX: usize = 960;
/// Lets the function answer memory accesses.
const MEMORY_SPACE: u16 = 1 << 1;
/// Lets the function issue DMA.
const BUS_MASTER: u16 = 1 << 2;

/// Vendor and device identifier from configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciIdentity {
    /// Vendor identifier.
    pub vendor: u16,
    /// Device identifier.
    pub device: u16,
}

/// What woke a [`Backing::wait`]. All false: the time is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// The event vector was raised (INT-1).
    pub event: bool,
    /// The control vector was raised (INT-5).
    pub control: bool,
    /// The caller's descriptor is readable.
    pub waker: bool,
    /// The platform asks for the card to be given back: it is about to be removed.
    pub removal_requested: bool,
    /// The platform reports that the card is gone or in error.
    pub gone: bool,
}

impl Signals {
    /// Whether anything woke the wait.
    #[must_use]
    pub const fn any(self) -> bool {
        self.event || self.control || self.waker || self.removal_requested || self.gone
    }
}

/// The way to a card failed.
#[derive(Debug, thiserror::Error)]
pub enum BackingError {
    /// Nobody is there any more.
    #[error("{what}: the card is gone")]
    Gone {
        /// What was being done.
        what: &'static str,
    },
    /// An answer did not come in time.
    #[error("{what}: no answer within {ms} ms; is the card's server alive?")]
    Timeout {
        /// What was being done.
        what: &'static str,
        /// The time allowed, in milliseconds.
        ms: u64,
    },
    /// The other side refused.
    #[error("{what}: refused with errno {errno} ({})", io::Error::from_raw_os_error(*errno))]
    Refused {
        /// What was being done.
        what: &'static str,
        /// The reason it gave.
        errno: i32,
    },
    /// The other side broke the protocol; the connection is not used any more.
    #[error("{what}: {problem}; the connection cannot be trusted any more")]
    Protocol {
        /// What was being done.
        what: &'static str,
        /// What was wrong.
        problem: String,
    },
    /// The card lacks something that the contract demands.
    #[error("{what}: {problem}")]
    Unsuitable {
        /// What was being done.
        what: &'static str,
        /// What is missing.
        problem: String,
    },
    /// The kernel does not give the card.
    #[error(transparent)]
    Vfio(#[from] vfio::VfioError),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Its reason.
        source: io::Error,
    },
}

impl BackingError {
    pub(crate) fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// A way to one card.
///
/// Dropping it gives the card up. The [`crate::Card`] has by then stopped the card and unmapped its memory, in that
/// order; a backing does not repeat it.
pub trait Backing {
    /// How registers are accessed.
    type Registers: Mmio;

    /// Where the card is, for log lines: an address or a path.
    fn location(&self) -> String;

    /// Reads configuration space.
    ///
    /// # Errors
    /// When the card cannot be reached, or the range is not in configuration space.
    fn read_config(&mut self, offset: u16, into: &mut [u8]) -> Result<(), BackingError>;

    /// Writes configuration space.
    ///
    /// # Errors
    /// When the card cannot be reached, or the range is not in configuration space.
    fn write_config(&mut self, offset: u16, from: &[u8]) -> Result<(), BackingError>;

    /// The register BAR (PCI-3), of at least the contract's size.
    fn registers(&self) -> &Self::Registers;

    /// Allocates zeroed memory of at least `length` bytes and maps it for the card, readable and writable.
    ///
    /// # Errors
    /// When memory, locked memory or address space has run out, or the mapping is refused.
    fn map_dma(&mut self, length: usize) -> Result<DmaMemory, BackingError>;

    /// Takes the memory away from the card: after success no DMA of the card can reach it.
    ///
    /// # Errors
    /// When that is not certain. The memory must then not be used for anything else.
    fn unmap_dma(&mut self, memory: &DmaMemory) -> Result<(), BackingError>;

    /// Gives memory up without freeing it, because the card may still write to it.
    fn leak(&mut self, memory: DmaMemory) {
        log::error!(
            id = "card.dma_leaked"; "{}: {} bytes of DMA memory are leaked, because the card could not be proven to have stopped",
            self.location(),
            memory.length()
        );
        memory.wipe_all();
        std::mem::forget(memory);
    }

    /// Connects both interrupt vectors (PCI-6). Done once, and again after a function reset.
    ///
    /// # Errors
    /// When the card has too few vectors or wiring is refused.
    fn wire_interrupts(&mut self) -> Result<(), BackingError>;

    /// Waits until an interrupt, the waker, or the platform signals something, at most `timeout`. Signals that it
    /// reports are consumed, the waker's excepted. Early returns without a signal are allowed.
    ///
    /// # Errors
    /// When waiting is not possible any more.
    fn wait(&mut self, timeout: Duration, waker: Option<BorrowedFd<'_>>) -> Result<Signals, BackingError>;

    /// Lets `duration` pass between two looks at a register.
    fn pause(&mut self, duration: Duration);

    /// Resets the function (FLR-1) and returns when it may be accessed again. The result is what really happened.
    /// Bus mastering is off afterwards, and registers may not answer before [`Backing::set_bus_mastering`].
    ///
    /// # Errors
    /// When the reset is not possible, was refused, or did not end.
    fn reset_function(&mut self) -> Result<(), BackingError>;

    /// Time since some fixed moment; never goes back. Virtual in the model.
    fn now(&self) -> Duration;

    /// Reads the card's PCI identity (PCI-1).
    ///
    /// # Errors
    /// As [`Backing::read_config`].
    fn pci_identity(&mut self) -> Result<PciIdentity, BackingError> {
        let mut octets = [0_u8; 4];
        self.read_config(0, &mut octets)?;
        let [v0, v1, d0, d1] = octets;
        Ok(PciIdentity { vendor: u16::from_le_bytes([v0, v1]), device: u16::from_le_bytes([d0, d1]) })
    }

    /// The serial number in the extended capability Device Serial Number (PCI-7); `None` if there is none.
    ///
    /// # Errors
    /// As [`Backing::read_config`].
    fn pci_serial(&mut self) -> Result<Option<u64>, BackingError> {
        let mut at = EXTENDED_CAPABILITIES;
        for _ in 0..CAPABILITIES_MAX {
            let mut header = [0_u8; 4];
            self.read_config(at, &mut header)?;
            let header = u32::from_le_bytes(header);
            let (id, next) = (header & 0xFFFF, header >> 20 & 0xFFC);
            if id == u32::from(DEVICE_SERIAL_NUMBER) && at <= 0xFF4 {
                let mut serial = [0_u8; 8];
                self.read_config(at + 4, &mut serial)?;
                return Ok(Some(u64::from_le_bytes(serial)));
            }
            match u16::try_from(next) {
                Ok(next) if next >= EXTENDED_CAPABILITIES => at = next,
                _ => break,
            }
        }
        Ok(None)
    }

    /// Allows or forbids DMA by the card (ST-4), and reads back that it took effect. Lets the card answer register
    /// accesses either way; a function reset undoes both.
    ///
    /// # Errors
    /// As [`Backing::write_config`], or when the bit did not change.
    fn set_bus_mastering(&mut self, on: bool) -> Result<(), BackingError> {
        const WHAT: &str = "switching bus mastering";
        let mut octets = [0_u8; 2];
        self.read_config(COMMAND, &mut octets)?;
        let command = u16::from_le_bytes(octets) & !BUS_MASTER | MEMORY_SPACE;
        let wanted = if on { command | BUS_MASTER } else { command };
        self.write_config(COMMAND, &wanted.to_le_bytes())?;
        self.read_config(COMMAND, &mut octets)?;
        if u16::from_le_bytes(octets) & BUS_MASTER == wanted & BUS_MASTER {
            Ok(())
        } else {
            Err(BackingError::Unsuitable {
                what: WHAT,
                problem: "the bit does not keep its value".to_owned(),
            })
        }
    }
}
