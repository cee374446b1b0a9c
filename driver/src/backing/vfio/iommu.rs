//! The IOMMU's part: which of the kernel's two interfaces is there, and memory mapped through it.
#![allow(
    unsafe_code,
    reason = "mapping memory for a device is a promise about its use that only this module can make"
)]

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use iommufd_ioctls::{IommuFd, IommufdError};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError as LibraryError, VfioIommufd, VfioOps};

use super::error::VfioError;
use super::kernel;
use super::memory_lock;
use super::topology::Place;
use crate::shared_memory::SharedMemory;

/// The node of iommufd.
const IOMMUFD: &str = "/dev/iommu";
/// The node of the older interface, by groups and containers.
const CONTAINER: &str = "/dev/vfio/vfio";

/// An address space that the card is attached to.
pub(super) struct Iommu {
    ops: Arc<dyn VfioOps>,
    /// What the IOMMU translates; empty where the kernel does not tell.
    ranges: Vec<RangeInclusive<u64>>,
    interface: &'static str,
}

impl std::fmt::Debug for Iommu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iommu").field("interface", &self.interface).field("ranges", &self.ranges).finish()
    }
}

impl Iommu {
    /// Opens the card and attaches it: through iommufd where the kernel and the card's node have it, else through the group.
    pub(super) fn open(place: &Place) -> Result<(Self, VfioDevice), VfioError> {
        if place.cdev.is_some() && Path::new(IOMMUFD).exists() {
            match Self::through_iommufd(place) {
                // A udev that does not know these nodes leaves them to root; the group's is there as well.
                Err(VfioError::NotPermitted { node, source }) if place.group_node().exists() => {
                    log::info!(
                        id = "card.group_node"; "{}: {} may not be opened ({source}); using the IOMMU group's node",
                        place.address,
                        node.display()
                    );
                }
                other => return other,
            }
        }
        Self::through_group(place)
    }

    fn through_iommufd(place: &Place) -> Result<(Self, VfioDevice), VfioError> {
        let node = place.cdev_node().unwrap_or_default();
        let iommufd = IommuFd::new().map_err(|error| match error {
            IommufdError::OpenIommufd(source) => of_node(IOMMUFD.into(), source),
            other => refused("opening iommufd", &other),
        })?;
        let ops = VfioIommufd::new(Arc::new(iommufd), None, None)
            .map_err(|error| refused("making an I/O address space", &error))?;
        let ops = Arc::new(ops);
        let device = VfioDevice::new(&place.folder, Arc::<VfioIommufd>::clone(&ops), true).map_err(
            |error| match error {
                LibraryError::OpenDeviceCdev(source) => of_node(node, source),
                // EINVAL is what a second binding of the same device gets.
                LibraryError::VfioDeviceBindIommufd(errno)
                    if matches!(errno.errno(), nix::libc::EBUSY | nix::libc::EINVAL) =>
                {
                    VfioError::InUse { node }
                }
                LibraryError::VfioDeviceBindIommufd(errno)
                | LibraryError::VfioDeviceAttachIommufdPt(errno)
                    if errno.errno() == nix::libc::EPERM =>
                {
                    VfioError::NotConfined { address: place.address }
                }
                other => refused("binding the card to iommufd", &other),
            },
        )?;
        let ranges = kernel::ioas_ranges(&**ops.iommufd(), ops.ioas().id())
            .map_err(|error| refused("asking for the I/O virtual addresses", &error))?;
        Ok((Self { ops, ranges, interface: "iommufd" }, device))
    }

    fn through_group(place: &Place) -> Result<(Self, VfioDevice), VfioError> {
        let node = place.group_node();
        let container = VfioContainer::new(None).map_err(|error| match error {
            LibraryError::OpenContainer(source) => of_node(CONTAINER.into(), source),
            other => refused("opening a VFIO container", &other),
        })?;
        let container = Arc::new(container);
        let ops: Arc<dyn VfioOps> = Arc::<VfioContainer>::clone(&container);
        let device =
            VfioDevice::new(&place.folder, Arc::clone(&ops), false).map_err(|error| match error {
                LibraryError::OpenGroup(source, _) => of_node(node, source),
                LibraryError::GroupGetDeviceFD(errno) if errno.errno() == nix::libc::EBUSY => {
                    VfioError::InUse { node }
                }
                LibraryError::ContainerSetIOMMU(errno) if errno.errno() == nix::libc::EPERM => {
                    VfioError::NotConfined { address: place.address }
                }
                LibraryError::GroupViable => VfioError::GroupNotViable {
                    address: place.address,
                    group: place.group,
                    members: place.members.clone(),
                },
                other => refused("opening the card through its IOMMU group", &other),
            })?;
        let ranges = kernel::container_iova_ranges(&*container)
            .map_err(|error| refused("asking for the I/O virtual addresses", &error))?;
        Ok((Self { ops, ranges, interface: "VFIO group and container" }, device))
    }

    /// What the IOMMU translates; empty where the kernel does not tell.
    pub(super) fn ranges(&self) -> &[RangeInclusive<u64>] {
        &self.ranges
    }

    /// The kernel's interface that is used, in words.
    pub(super) const fn interface(&self) -> &'static str {
        self.interface
    }

    /// Lets the card read and write `memory` at `iova`.
    pub(super) fn map(&self, iova: u64, memory: &SharedMemory) -> Result<(), VfioError> {
        // SAFETY: the whole process reaches this mapping through `SharedMemory` only, which uses raw pointers and volatile
        // accesses and gives out no reference. It is unmapped from the process only when `DmaMemory` is dropped, which
        // the card's handle does after `unmap` has succeeded; else the memory is leaked (`Backing::leak`).
        let mapped = unsafe { self.ops.vfio_dma_map(iova, memory.len(), memory.as_mut_ptr()) };
        mapped.map_err(|error| {
            let length = u64::try_from(memory.len()).unwrap_or(u64::MAX);
            if let Some(exceeded) = memory_lock::exceeded_by(length) {
                return exceeded;
            }
            match &error {
                LibraryError::IommufdIoctlError(IommufdError::IommuIoasMap(errno))
                    if errno.errno() == nix::libc::ENOMEM =>
                {
                    VfioError::PinnedMemory { length, limit: memory_lock::limit() }
                }
                _ => refused("mapping DMA memory", &error),
            }
        })
    }

    /// Takes `length` bytes at `iova` from the card.
    pub(super) fn unmap(&self, iova: u64, length: usize) -> Result<(), VfioError> {
        self.ops.vfio_dma_unmap(iova, length).map_err(|error| refused("unmapping DMA memory", &error))
    }
}

fn of_node(node: PathBuf, source: io::Error) -> VfioError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => VfioError::NotPermitted { node, source },
        io::ErrorKind::ResourceBusy => VfioError::InUse { node },
        _ => VfioError::NoNode { node, source },
    }
}

fn refused(what: &'static str, error: &dyn std::error::Error) -> VfioError {
    let mut problem = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !problem.contains(&cause_text) {
            problem = format!("{problem}: {cause_text}");
        }
        source = cause.source();
    }
    VfioError::Refused { what, problem }
}
