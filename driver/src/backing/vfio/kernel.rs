//! The requests to the kernel whose result the library does not pass on, or does not make at all.
#![allow(unsafe_code, reason = "requests to the kernel take pointers")]

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use vfio_ioctls::VfioDevice;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// VFIO's and iommufd's type of request.
const TYPE: u8 = b';';

/// VFIO's index of the MSI-X vectors.
pub(super) const IRQ_MSIX: u32 = 2;
/// VFIO's index of the interrupt that tells of errors on the bus.
pub(super) const IRQ_ERROR: u32 = 3;
/// VFIO's index of the interrupt that asks for the device to be given back.
pub(super) const IRQ_REQUEST: u32 = 4;

/// Data are eventfds, the action is to trigger them.
const EVENTFD_TRIGGER: u32 = 1 << 2 | 1 << 5;
/// No data, the action is to trigger: with a count of 0 it takes an index out of use.
const NONE_TRIGGER: u32 = 1 << 0 | 1 << 5;
/// Information about an IOMMU has capabilities.
const INFO_HAS_CAPABILITIES: u32 = 1 << 1;
/// Capability of an IOMMU: the I/O virtual addresses that it translates.
const CAPABILITY_IOVA_RANGES: u16 = 1;
/// Octets of information about an IOMMU that are asked for.
const INFO_BYTES: usize = 4096;
/// Most ranges and capabilities that are looked at.
const RANGES_MAX: usize = 128;
/// Most vectors set in one request.
const VECTORS_MAX: usize = 2;

#[repr(C)]
struct SetIrqs {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    eventfds: [RawFd; VECTORS_MAX],
}

#[repr(C)]
struct IovaRangesOfIoas {
    size: u32,
    ioas: u32,
    ranges: u32,
    reserved: u32,
    allowed: u64,
    alignment: u64,
}

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct IommuInfo {
    argsz: u32,
    flags: u32,
    page_sizes: u64,
    capabilities: u32,
    padding: u32,
}

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct CapabilityHeader {
    id: u16,
    version: u16,
    next: u32,
}

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct IovaRangesHeader {
    header: CapabilityHeader,
    ranges: u32,
    reserved: u32,
}

/// First and last address.
#[derive(Clone, Copy, Default, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct IovaRange {
    first: u64,
    last: u64,
}

nix::ioctl_write_ptr_bad!(device_set_irqs, nix::request_code_none!(TYPE, 110), SetIrqs);
nix::ioctl_none_bad!(device_reset, nix::request_code_none!(TYPE, 111));
nix::ioctl_readwrite_bad!(iommu_get_info, nix::request_code_none!(TYPE, 112), u64);
nix::ioctl_readwrite_bad!(ioas_iova_ranges, nix::request_code_none!(TYPE, 0x84), IovaRangesOfIoas);

/// A handle of one's own on an open VFIO device.
pub(super) fn own_handle(device: &impl AsRawFd) -> io::Result<File> {
    // SAFETY: the descriptor belongs to `device`, which is borrowed and so stays open during this call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) };
    Ok(File::from(borrowed.try_clone_to_owned()?))
}

/// Closes a device, and nothing else of what the library holds for it.
pub(super) fn close(device: VfioDevice) {
    let descriptor = device.as_raw_fd();
    std::mem::forget(device);
    // SAFETY: `device` owned the descriptor and has been forgotten without closing it, so that this is its only owner.
    drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
}

/// Resets the function; the kernel waits until it answers again.
pub(super) fn reset(device: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument and touches no memory of this process.
    unsafe { device_reset(device.as_raw_fd()) }?;
    Ok(())
}

/// Has the first interrupts of kind `index` signalled through `eventfds`, of which there are at most two.
pub(super) fn wire(device: &File, index: u32, eventfds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut descriptors = [-1; VECTORS_MAX];
    if eventfds.len() > VECTORS_MAX {
        return Err(Errno::EINVAL.into());
    }
    descriptors.iter_mut().zip(eventfds).for_each(|(place, eventfd)| *place = eventfd.as_raw_fd());
    set_irqs(device, index, EVENTFD_TRIGGER, eventfds.len(), descriptors)
}

/// Takes interrupts of kind `index` out of use.
pub(super) fn unwire(device: &File, index: u32) -> io::Result<()> {
    match set_irqs(device, index, NONE_TRIGGER, 0, [-1; VECTORS_MAX]) {
        // What the kernel says when none are in use.
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(()),
        done => done,
    }
}

fn set_irqs(
    device: &File,
    index: u32,
    flags: u32,
    count: usize,
    eventfds: [RawFd; VECTORS_MAX],
) -> io::Result<()> {
    let header = size_of::<SetIrqs>() - size_of_val(&eventfds);
    let argsz = u32::try_from(header + count * size_of::<RawFd>()).map_err(io::Error::other)?;
    let count = u32::try_from(count).map_err(io::Error::other)?;
    let request = SetIrqs { argsz, flags, index, start: 0, count, eventfds };
    // SAFETY: `request` has the layout of the kernel's `vfio_irq_set` with `count` descriptors behind it, lives during the
    // call, and `argsz` covers no more than it has; the kernel only reads it.
    unsafe { device_set_irqs(device.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// The I/O virtual addresses that a container's IOMMU translates; empty where the kernel does not tell.
pub(super) fn container_iova_ranges(container: &impl AsRawFd) -> io::Result<Vec<RangeInclusive<u64>>> {
    let mut words = [0_u64; INFO_BYTES / 8];
    let argsz = u64::try_from(INFO_BYTES).map_err(io::Error::other)?;
    // The two 32-bit fields at the start are argsz and flags.
    if let Some(first) = words.first_mut() {
        *first = argsz.to_le();
    }
    // SAFETY: the buffer is aligned for the structure and has the `argsz` octets that its first field names; the kernel
    // writes no more than that.
    unsafe { iommu_get_info(container.as_raw_fd(), words.as_mut_ptr()) }?;
    let octets: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    Ok(parse_iova_ranges(&octets).unwrap_or_default())
}

/// Looks through the capabilities for the ranges. `None`: there are none, or they make no sense.
fn parse_iova_ranges(octets: &[u8]) -> Option<Vec<RangeInclusive<u64>>> {
    let (info, _) = IommuInfo::read_from_prefix(octets).ok()?;
    if info.flags & INFO_HAS_CAPABILITIES == 0 {
        return None;
    }
    let mut at = usize::try_from(info.capabilities).ok()?;
    for _ in 0..RANGES_MAX {
        let rest = octets.get(at..).filter(|_| at > 0)?;
        let (header, _) = CapabilityHeader::read_from_prefix(rest).ok()?;
        if header.id != CAPABILITY_IOVA_RANGES {
            at = usize::try_from(header.next).ok()?;
            continue;
        }
        let (head, mut rest) = IovaRangesHeader::read_from_prefix(rest).ok()?;
        let count = usize::try_from(head.ranges).ok()?.min(RANGES_MAX);
        let mut ranges = Vec::with_capacity(count);
        for _ in 0..count {
            let (range, after) = IovaRange::read_from_prefix(rest).ok()?;
            ranges.push(range.first..=range.last);
            rest = after;
        }
        return Some(ranges);
    }
    None
}

/// The I/O virtual addresses that may be mapped in an address space of iommufd.
pub(super) fn ioas_ranges(iommufd: &impl AsRawFd, ioas: u32) -> io::Result<Vec<RangeInclusive<u64>>> {
    let mut found = [IovaRange::default(); RANGES_MAX];
    let mut request = IovaRangesOfIoas {
        size: u32::try_from(size_of::<IovaRangesOfIoas>()).map_err(io::Error::other)?,
        ioas,
        ranges: u32::try_from(RANGES_MAX).map_err(io::Error::other)?,
        reserved: 0,
        allowed: found.as_mut_ptr().expose_provenance() as u64,
        alignment: 0,
    };
    // SAFETY: `request` has the layout of the kernel's `iommu_ioas_iova_ranges`; `allowed` points to `ranges` entries of two
    // 64-bit fields, which outlive the call and are not otherwise borrowed; the kernel writes no more than that.
    unsafe { ioas_iova_ranges(iommufd.as_raw_fd(), &raw mut request) }?;
    let count = usize::try_from(request.ranges).unwrap_or(0);
    Ok(found.iter().take(count).map(|range| range.first..=range.last).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{RANGES_MAX, SetIrqs, parse_iova_ranges};

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<SetIrqs>(), 28);
        assert_eq!(size_of::<super::IovaRangesOfIoas>(), 32);
        assert_eq!(size_of::<super::IommuInfo>(), 24);
        assert_eq!(size_of::<super::IovaRangesHeader>(), 16);
    }

    /// Information as an Intel IOMMU gives it: another capability first, then two ranges around the interrupt window.
    fn information() -> Vec<u8> {
        let mut octets = Vec::new();
        for word in [4096_u32, 3, 0x1000, 0, 24, 0] {
            octets.extend(word.to_le_bytes());
        }
        octets.extend(3_u16.to_le_bytes());
        octets.extend(1_u16.to_le_bytes());
        octets.extend(40_u32.to_le_bytes());
        octets.extend(65_535_u64.to_le_bytes());
        octets.extend(1_u16.to_le_bytes());
        octets.extend(1_u16.to_le_bytes());
        octets.extend([0_u32, 2, 0].into_iter().flat_map(u32::to_le_bytes));
        for address in [0, 0xFEDF_FFFF, 0xFEF0_0000, 0x7F_FFFF_FFFF_u64] {
            octets.extend(address.to_le_bytes());
        }
        octets.resize(4096, 0);
        octets
    }

    #[test]
    fn ranges_are_found_behind_another_capability() {
        let ranges = parse_iova_ranges(&information());
        assert_eq!(ranges, Some(vec![0..=0xFEDF_FFFF, 0xFEF0_0000..=0x7F_FFFF_FFFF]));
    }

    #[test]
    fn a_kernel_that_tells_none_gives_none() {
        let mut octets = information();
        octets[4] = 1;
        assert_eq!(parse_iova_ranges(&octets), None);
    }

    proptest! {
        #[test]
        fn any_octets_give_an_end_and_bounded_ranges(octets in proptest::collection::vec(any::<u8>(), 0..512)) {
            let ranges = parse_iova_ranges(&octets).unwrap_or_default();
            assert!(ranges.len() <= RANGES_MAX);
        }
    }
}
