//! Messages of the vfio-user protocol, as they stand on the socket (host byte order, as the protocol demands).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Protocol version that this client speaks: major 0, minor 1.
pub(super) const MAJOR: u16 = 0;
/// See [`MAJOR`].
pub(super) const MINOR: u16 = 1;

/// Octets of a header.
pub(super) const HEADER_BYTES: usize = size_of::<Header>();
/// Longest message body that is accepted, in bytes. The longest this client asks for has a few hundred.
pub(super) const BODY_MAX: usize = 64 * 1024;

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Command {
    Version = 1,
    DmaMap = 2,
    DmaUnmap = 3,
    DeviceInfo = 4,
    RegionInfo = 5,
    IrqInfo = 7,
    SetIrqs = 8,
    RegionRead = 9,
    RegionWrite = 10,
    DeviceReset = 13,
}

/// Header flags: the low four bits are the type, 0 for a command and 1 for a reply.
pub(super) const TYPE_MASK: u32 = 0xF;
/// Type of a command.
pub(super) const TYPE_COMMAND: u32 = 0;
/// Type of a reply.
pub(super) const TYPE_REPLY: u32 = 1;
/// Header flag of a command that wants no reply.
pub(super) const FLAG_NO_REPLY: u32 = 1 << 4;
/// Header flag of a reply that tells of an error.
pub(super) const FLAG_ERROR: u32 = 1 << 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) id: u16,
    pub(super) command: u16,
    /// Of the whole message, in bytes.
    pub(super) size: u32,
    pub(super) flags: u32,
    pub(super) error: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Version {
    pub(super) major: u16,
    pub(super) minor: u16,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DmaMap {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) size: u64,
}

/// [`DmaMap::flags`]: the device may read and write.
pub(super) const DMA_READ_WRITE: u32 = 0b11;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DmaUnmap {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) address: u64,
    pub(super) size: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DeviceInfo {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) regions: u32,
    pub(super) irqs: u32,
}

/// [`DeviceInfo::flags`]: the device can be reset.
pub(super) const DEVICE_RESETTABLE: u32 = 1 << 0;
/// [`DeviceInfo::flags`]: it is a PCI device.
pub(super) const DEVICE_PCI: u32 = 1 << 1;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RegionInfo {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) index: u32,
    /// Of the first capability, from the start of this structure; 0 for none.
    pub(super) cap_offset: u32,
    pub(super) size: u64,
    /// Of the region in its descriptor.
    pub(super) offset: u64,
}

/// [`RegionInfo::flags`]: the region can be mapped.
pub(super) const REGION_MAPPABLE: u32 = 1 << 2;
/// [`RegionInfo::flags`]: capabilities follow.
pub(super) const REGION_CAPABILITIES: u32 = 1 << 3;
/// Region of configuration space.
pub(super) const CONFIG_REGION: u32 = 7;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct CapabilityHeader {
    pub(super) id: u16,
    pub(super) version: u16,
    /// Offset of the next capability, from the start of the region information; 0 for none.
    pub(super) next: u32,
}

/// Capability: only these areas of the region can be mapped.
pub(super) const SPARSE_MMAP: u16 = 1;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SparseHeader {
    pub(super) areas: u32,
    pub(super) reserved: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SparseArea {
    pub(super) offset: u64,
    pub(super) size: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct IrqInfo {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) index: u32,
    pub(super) count: u32,
}

/// [`IrqInfo::flags`]: interrupts of this kind can be signalled by eventfd.
pub(super) const IRQ_EVENTFD: u32 = 1 << 0;
/// Interrupt index of MSI-X.
pub(super) const IRQ_MSIX: u32 = 2;
/// Interrupt index by which the platform reports an error of the device.
pub(super) const IRQ_ERROR: u32 = 3;
/// Interrupt index by which the platform asks for the device.
pub(super) const IRQ_REQUEST: u32 = 4;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SetIrqs {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) index: u32,
    pub(super) start: u32,
    pub(super) count: u32,
}

/// [`SetIrqs::flags`]: descriptors come along, and are to be signalled.
pub(super) const SET_IRQS_EVENTFD_TRIGGER: u32 = 1 << 2 | 1 << 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RegionAccess {
    pub(super) offset: u64,
    pub(super) region: u32,
    pub(super) count: u32,
}
