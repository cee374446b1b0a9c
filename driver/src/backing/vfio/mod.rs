//! A card in a PCI slot, taken from the kernel through VFIO.
//!
//! The card is opened by its PCI address, through iommufd where the kernel has it and through the IOMMU group and a container
//! elsewhere. Its register BAR is mapped, its DMA memory is this process's own, pinned by the kernel, and its interrupts come as
//! eventfds. Without an IOMMU, and with a foreign device in the card's IOMMU group, it is refused.

mod address;
mod error;
mod iommu;
mod kernel;
mod memory_lock;
mod topology;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qkd_contract::pci::{REGISTER_BAR, REGISTER_BAR_BYTES, VECTORS};
use vfio_ioctls::{VfioDevice, VfioRegionInfoCap};

use super::signals::Eventfds;
use super::{Backing, BackingError, PciIdentity, Signals};
use crate::dma::{DmaMemory, IovaAllocator, round_up};
use crate::mmio::MappedBar;
use crate::shared_memory::SharedMemory;
use iommu::Iommu;
use topology::Place;

pub use address::{BadPciAddress, PciAddress};
pub use error::VfioError;
pub use topology::Function;

/// VFIO's index of configuration space.
const CONFIG_REGION: u32 = 7;
/// A region may be mapped.
const REGION_MAPPABLE: u32 = 1 << 2;
/// How often a reset is tried again while the kernel has the device locked.
const RESET_TRIES: u32 = 20;
/// Between two tries.
const RESET_AGAIN: Duration = Duration::from_millis(50);

const MAPPING_BAR: &str = "mapping the register BAR";
const WIRING: &str = "wiring interrupts";

/// Backing of a card in a PCI slot.
///
/// A card that is pulled, or unbound from vfio-pci in spite of the request to give it back, ends this process by a signal
/// at the next register access: the kernel takes the mapping away.
pub struct Vfio {
    // The order of these fields is the order in which they are given up: the kernel closes a device when the last mapping and
    // descriptor of it are gone, and lets go of its group only after that.
    registers: MappedBar,
    device: Device,
    iommu: Iommu,
    address: PciAddress,
    config_offset: u64,
    iovas: IovaAllocator,
    eventfds: Eventfds,
    since: Instant,
}

impl std::fmt::Debug for Vfio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vfio")
            .field("address", &self.address)
            .field("iommu", &self.iommu)
            .finish_non_exhaustive()
    }
}

/// The open device. The kernel closes it when this is dropped, unless something of it is still mapped.
struct Device {
    /// A handle of our own. `None` only while this is being dropped.
    handle: Option<File>,
    library: Option<VfioDevice>,
    /// The kernel waits for the device to be closed, to take it away.
    leaving: bool,
}

impl Device {
    fn handle(&self) -> Result<&File, BackingError> {
        self.handle.as_ref().ok_or(BackingError::Gone { what: "using the card" })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.handle = None;
        match self.library.take() {
            // The library closes the device and then looks its group up in sysfs, where a device that leaves may be gone by
            // then, which it does not survive. The group and the container are left to the end of the process.
            Some(device) if self.leaving => kernel::close(device),
            device => drop(device),
        }
    }
}

impl Vfio {
    /// Takes the card at `address` from the kernel. `expected` is the identity that every device of its IOMMU group must
    /// have (bridges excepted).
    ///
    /// # Errors
    /// [`BackingError::Vfio`] with what the operator must do, when the card is not there, not bound to vfio-pci, without
    /// IOMMU, in a group with something else, in use, or may not be opened; [`BackingError::Unsuitable`] when what is there
    /// cannot be a QKD card.
    pub fn open(address: PciAddress, expected: PciIdentity) -> Result<Self, BackingError> {
        let place = Place::find(Path::new("/sys"), address, expected)?;
        let (iommu, device) = Iommu::open(&place)?;
        let handle = kernel::own_handle(&device).map_err(BackingError::io("opening the card"))?;
        let registers = map_bar(&device, &handle)?;
        log::info!(
            id = "card.taken"; "{address}: taken from the kernel through {}, IOMMU group {}",
            iommu.interface(),
            place.group
        );
        Ok(Self {
            registers,
            config_offset: device.get_region_offset(CONFIG_REGION),
            device: Device { handle: Some(handle), library: Some(device), leaving: false },
            iovas: IovaAllocator::within(iommu.ranges()),
            iommu,
            address,
            eventfds: Eventfds::new().map_err(BackingError::io(WIRING))?,
            since: Instant::now(),
        })
    }

    /// The PCI address of the card.
    #[must_use]
    pub const fn address(&self) -> PciAddress {
        self.address
    }

    fn vectors(&self, index: u32) -> u32 {
        self.device.library.as_ref().and_then(|device| device.get_irq_info(index)).map_or(0, |irq| irq.count)
    }
}

/// Maps the registers, as far as the kernel lets them be mapped.
fn map_bar(device: &VfioDevice, handle: &File) -> Result<MappedBar, BackingError> {
    let unsuitable = |problem: String| BackingError::Unsuitable { what: MAPPING_BAR, problem };
    let size = device.get_region_size(REGISTER_BAR);
    if size < REGISTER_BAR_BYTES {
        return Err(unsuitable(format!(
            "BAR {REGISTER_BAR} has {size} bytes, the contract says {REGISTER_BAR_BYTES}"
        )));
    }
    let sparse = device.get_region_caps(REGISTER_BAR).into_iter().find_map(|capability| match capability {
        VfioRegionInfoCap::SparseMmap(sparse) => Some(sparse.areas),
        _ => None,
    });
    let covered = sparse
        .is_none_or(|areas| areas.iter().any(|area| area.offset == 0 && area.size >= REGISTER_BAR_BYTES));
    if device.get_region_flags(REGISTER_BAR) & REGION_MAPPABLE == 0 || !covered {
        return Err(unsuitable("the kernel does not let it be mapped as a whole".to_owned()));
    }
    let length = usize::try_from(REGISTER_BAR_BYTES).map_err(|error| unsuitable(error.to_string()))?;
    let memory = SharedMemory::of_file(handle.as_fd(), device.get_region_offset(REGISTER_BAR), length)
        .map_err(BackingError::io(MAPPING_BAR))?;
    Ok(MappedBar::new(memory))
}

impl Backing for Vfio {
    type Registers = MappedBar;

    fn location(&self) -> String {
        self.address.to_string()
    }

    fn read_config(&mut self, offset: u16, into: &mut [u8]) -> Result<(), BackingError> {
        self.device
            .handle()?
            .read_exact_at(into, self.config_offset + u64::from(offset))
            .map_err(BackingError::io("reading configuration space"))
    }

    fn write_config(&mut self, offset: u16, from: &[u8]) -> Result<(), BackingError> {
        self.device
            .handle()?
            .write_all_at(from, self.config_offset + u64::from(offset))
            .map_err(BackingError::io("writing configuration space"))
    }

    fn registers(&self) -> &Self::Registers {
        &self.registers
    }

    fn map_dma(&mut self, length: usize) -> Result<DmaMemory, BackingError> {
        const WHAT: &str = "allocating DMA memory";
        let none = || VfioError::NoAddresses { length, offered: format!("{:x?}", self.iommu.ranges()) };
        let rounded = round_up(length).ok_or_else(none)?;
        let iova = self.iovas.allocate(rounded).ok_or_else(|| VfioError::NoAddresses {
            length,
            offered: format!("{:x?}", self.iommu.ranges()),
        })?;
        let memory = SharedMemory::anonymous(rounded).map_err(BackingError::io(WHAT))?;
        // Not locked as well: the kernel pins what is mapped for a device, and would count it twice against the limit.
        memory.keep_to_this_process().map_err(BackingError::io(WHAT))?;
        memory.prefer_huge_pages();
        self.iommu.map(iova, &memory)?;
        Ok(DmaMemory::new(Arc::new(memory), iova))
    }

    fn unmap_dma(&mut self, memory: &DmaMemory) -> Result<(), BackingError> {
        Ok(self.iommu.unmap(memory.iova(), memory.length())?)
    }

    fn wire_interrupts(&mut self) -> Result<(), BackingError> {
        let vectors = self.vectors(kernel::IRQ_MSIX);
        if vectors < VECTORS {
            let problem = format!("the card has {vectors} MSI-X vectors, the contract says {VECTORS}");
            return Err(BackingError::Unsuitable { what: WIRING, problem });
        }
        // From the start: after a reset the kernel may hold vectors for enabled that the card has forgotten.
        kernel::unwire(self.device.handle()?, kernel::IRQ_MSIX).map_err(BackingError::io(WIRING))?;
        let [event, control] = self.eventfds.vectors();
        kernel::wire(self.device.handle()?, kernel::IRQ_MSIX, &[event, control])
            .map_err(BackingError::io(WIRING))?;
        for (index, eventfd) in
            [(kernel::IRQ_ERROR, self.eventfds.error()), (kernel::IRQ_REQUEST, self.eventfds.request())]
        {
            if self.vectors(index) > 0 {
                kernel::wire(self.device.handle()?, index, &[eventfd]).map_err(BackingError::io(WIRING))?;
            }
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Duration, waker: Option<BorrowedFd<'_>>) -> Result<Signals, BackingError> {
        let (signals, _) = self.eventfds.wait(timeout, waker, None)?;
        self.device.leaving |= signals.removal_requested;
        Ok(signals)
    }

    fn pause(&mut self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn reset_function(&mut self) -> Result<(), BackingError> {
        // The kernel restores configuration space after the reset, as it was before.
        self.set_bus_mastering(false)?;
        let mut tries = 0;
        loop {
            tries += 1;
            match kernel::reset(self.device.handle()?) {
                Ok(()) => break,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && tries < RESET_TRIES => {
                    self.pause(RESET_AGAIN);
                }
                Err(source) => return Err(VfioError::ResetRefused { address: self.address, source }.into()),
            }
        }
        // Signals of before mean nothing now.
        self.eventfds.forget();
        Ok(())
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }
}
