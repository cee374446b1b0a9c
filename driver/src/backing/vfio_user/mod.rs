//! A card served over a vfio-user socket: BAR and DMA memory are shared memory, interrupts are eventfds.

mod client;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod region;
mod socket;
mod wire;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::stat::fstat;
use qkd_contract::pci::{CONTROL_VECTOR, EVENT_VECTOR, REGISTER_BAR, REGISTER_BAR_BYTES, VECTORS};

use super::signals::Eventfds;
use super::{Backing, BackingError, Signals};
use crate::dma::{DmaMemory, IovaAllocator, MemoryFile, round_up};
use crate::mmio::MappedBar;
use crate::shared_memory::SharedMemory;
use client::Client;
use wire::{CONFIG_REGION, IRQ_ERROR, IRQ_MSIX, IRQ_REQUEST, REGION_MAPPABLE};

const MAPPING_BAR: &str = "mapping the register BAR";
const WIRING: &str = "wiring interrupts";

/// Backing of a card behind a vfio-user socket.
///
/// The server is trusted as far as a card is, but for one thing that shared memory cannot prevent: a server that shrinks
/// the file behind the BAR ends this process by a signal at the next register access.
#[derive(Debug)]
pub struct VfioUser {
    path: PathBuf,
    client: Client,
    registers: MappedBar,
    iovas: IovaAllocator,
    eventfds: Eventfds,
    since: Instant,
}

impl VfioUser {
    /// Connects to the server at `path`. `timeout` bounds every answer that the server owes, from here on.
    ///
    /// # Errors
    /// When nobody serves there, the server breaks the protocol, or what it serves cannot be a QKD card.
    pub fn connect(path: impl AsRef<Path>, timeout: Duration) -> Result<Self, BackingError> {
        let path = path.as_ref().to_owned();
        let client = Client::connect(&path, timeout)?;
        Self::over(path, client)
    }

    fn over(path: PathBuf, mut client: Client) -> Result<Self, BackingError> {
        let registers = map_bar(&mut client)?;
        Ok(Self {
            path,
            client,
            registers,
            iovas: IovaAllocator::new(),
            eventfds: Eventfds::new().map_err(BackingError::io(WIRING))?,
            since: Instant::now(),
        })
    }
}

/// Maps the register BAR from the descriptor that the server gives.
fn map_bar(client: &mut Client) -> Result<MappedBar, BackingError> {
    let unsuitable = |problem: String| BackingError::Unsuitable { what: MAPPING_BAR, problem };
    let region = client.region(MAPPING_BAR, REGISTER_BAR)?;
    if region.size < REGISTER_BAR_BYTES {
        return Err(unsuitable(format!(
            "it has {} bytes, the contract says {REGISTER_BAR_BYTES}",
            region.size
        )));
    }
    let covers = |areas: &Vec<wire::SparseArea>| {
        areas.iter().any(|area| area.offset == 0 && area.size >= REGISTER_BAR_BYTES)
    };
    if region.flags & REGION_MAPPABLE == 0 || !region.areas.as_ref().is_none_or(covers) {
        return Err(unsuitable("the server does not let it be mapped as a whole".to_owned()));
    }
    let descriptor: OwnedFd =
        region.descriptor.ok_or_else(|| unsuitable("the server sent no descriptor for it".to_owned()))?;
    // A mapping beyond the end of its file would end this process at the first access.
    let status =
        fstat(&descriptor).map_err(|errno| BackingError::Io { what: MAPPING_BAR, source: errno.into() })?;
    let end = region.offset.checked_add(REGISTER_BAR_BYTES).and_then(|end| i64::try_from(end).ok());
    if end.is_none_or(|end| end > status.st_size) {
        return Err(unsuitable(format!("its file has only {} bytes", status.st_size)));
    }
    let length = usize::try_from(REGISTER_BAR_BYTES).map_err(|error| unsuitable(error.to_string()))?;
    let memory = SharedMemory::of_file(descriptor.as_fd(), region.offset, length)
        .map_err(BackingError::io(MAPPING_BAR))?;
    Ok(MappedBar::new(memory))
}

impl Backing for VfioUser {
    type Registers = MappedBar;

    fn location(&self) -> String {
        self.path.display().to_string()
    }

    fn read_config(&mut self, offset: u16, into: &mut [u8]) -> Result<(), BackingError> {
        self.client.read("reading configuration space", CONFIG_REGION, offset.into(), into)
    }

    fn write_config(&mut self, offset: u16, from: &[u8]) -> Result<(), BackingError> {
        self.client.write("writing configuration space", CONFIG_REGION, offset.into(), from)
    }

    fn registers(&self) -> &Self::Registers {
        &self.registers
    }

    fn map_dma(&mut self, length: usize) -> Result<DmaMemory, BackingError> {
        const WHAT: &str = "allocating DMA memory";
        let unsuitable = |problem: &str| BackingError::Unsuitable { what: WHAT, problem: problem.to_owned() };
        let length = round_up(length).ok_or_else(|| unsuitable("too much"))?;
        let iova = self.iovas.allocate(length).ok_or_else(|| unsuitable("no I/O address space is left"))?;
        let file = MemoryFile::create("qkd-dma", length).map_err(BackingError::io(WHAT))?;
        let memory = file.map().map_err(BackingError::io(WHAT))?;
        if let Err(error) = memory.protect_key_material() {
            log::warn!(
                id = "card.dma_unlocked"; "{}: {length} bytes of DMA memory are not locked ({error}): key in it may be swapped out; raise the \
                 limit on locked memory (RLIMIT_MEMLOCK, LimitMEMLOCK=)",
                self.location()
            );
        }
        let size = u64::try_from(length).map_err(|_| unsuitable("too much"))?;
        self.client.map_dma(file.as_fd(), iova, size)?;
        Ok(DmaMemory::new(Arc::new(memory), iova))
    }

    fn unmap_dma(&mut self, memory: &DmaMemory) -> Result<(), BackingError> {
        let size = u64::try_from(memory.length()).map_err(|error| BackingError::Unsuitable {
            what: "unmapping DMA memory",
            problem: error.to_string(),
        })?;
        self.client.unmap_dma(memory.iova(), size)
    }

    fn wire_interrupts(&mut self) -> Result<(), BackingError> {
        let vectors = self.client.interrupts(WIRING, IRQ_MSIX)?;
        if vectors < VECTORS {
            let problem = format!("the card has {vectors} MSI-X vectors, the contract says {VECTORS}");
            return Err(BackingError::Unsuitable { what: WIRING, problem });
        }
        // One vector a message: servers written for QEMU see nothing else.
        let [event, control] = self.eventfds.vectors();
        self.client.wire_interrupt(WIRING, (IRQ_MSIX, EVENT_VECTOR), event)?;
        self.client.wire_interrupt(WIRING, (IRQ_MSIX, CONTROL_VECTOR), control)?;
        for (index, eventfd) in [(IRQ_ERROR, self.eventfds.error()), (IRQ_REQUEST, self.eventfds.request())] {
            match self.client.interrupts(WIRING, index) {
                Ok(0) | Err(BackingError::Refused { .. }) => {}
                Ok(_) => self.client.wire_interrupt(WIRING, (index, 0), eventfd)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Duration, waker: Option<BorrowedFd<'_>>) -> Result<Signals, BackingError> {
        let (mut signals, socket_ready) = self.eventfds.wait(timeout, waker, Some(self.client.as_fd()))?;
        if socket_ready {
            match self.client.serve_unasked() {
                Ok(()) => {}
                Err(BackingError::Gone { .. }) => signals.gone = true,
                Err(other) => return Err(other),
            }
        }
        Ok(signals)
    }

    fn pause(&mut self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn reset_function(&mut self) -> Result<(), BackingError> {
        self.client.reset()?;
        // The reply tells that the reset is over; signals of before it mean nothing now.
        self.eventfds.forget();
        Ok(())
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }
}

#[cfg(test)]
mod tests;
