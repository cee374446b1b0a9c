//! The vfio-user protocol as octets: header, commands, and the structures that this server takes and gives.
//!
//! After the public specification (docs/interop/vfio-user.rst of QEMU, include/vfio-user.h of libvfio-user).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of data that one region access may carry; told to the client as `max_data_xfer_size`.
pub(crate) const DATA_MAX: usize = 64 * 1024;
/// Octets of the largest message: header, region access, data.
pub(crate) const MESSAGE_MAX: usize = size_of::<Header>() + size_of::<RegionAccess>() + DATA_MAX;

/// Commands of the client.
pub(crate) mod command {
    pub(crate) const VERSION: u16 = 1;
    pub(crate) const DMA_MAP: u16 = 2;
    pub(crate) const DMA_UNMAP: u16 = 3;
    pub(crate) const DEVICE_GET_INFO: u16 = 4;
    pub(crate) const DEVICE_GET_REGION_INFO: u16 = 5;
    pub(crate) const DEVICE_GET_IRQ_INFO: u16 = 7;
    pub(crate) const DEVICE_SET_IRQS: u16 = 8;
    pub(crate) const REGION_READ: u16 = 9;
    pub(crate) const REGION_WRITE: u16 = 10;
    pub(crate) const DEVICE_RESET: u16 = 13;
}

/// Bits of [`Header::flags`].
pub(crate) mod flag {
    pub(crate) const TYPE: u32 = 0xF;
    pub(crate) const REPLY: u32 = 1;
    pub(crate) const NO_REPLY: u32 = 1 << 4;
    pub(crate) const ERROR: u32 = 1 << 5;
}

/// VFIO's numbers for what a PCI function has.
pub(crate) mod vfio {
    pub(crate) const DEVICE_RESET: u32 = 1 << 0;
    pub(crate) const DEVICE_PCI: u32 = 1 << 1;
    pub(crate) const REGIONS: u32 = 9;
    pub(crate) const CONFIG_REGION: u32 = 7;
    pub(crate) const REGION_READ: u32 = 1 << 0;
    pub(crate) const REGION_WRITE: u32 = 1 << 1;
    pub(crate) const REGION_MMAP: u32 = 1 << 2;
    pub(crate) const REGION_CAPS: u32 = 1 << 3;
    pub(crate) const SPARSE_MMAP: u16 = 1;
    pub(crate) const IRQS: u32 = 5;
    pub(crate) const MSIX_IRQ: u32 = 2;
    pub(crate) const ERROR_IRQ: u32 = 3;
    pub(crate) const REQUEST_IRQ: u32 = 4;
    pub(crate) const IRQ_EVENTFD: u32 = 1 << 0;
    pub(crate) const SET_DATA: u32 = 0x7;
    pub(crate) const SET_DATA_NONE: u32 = 1 << 0;
    pub(crate) const SET_DATA_BOOL: u32 = 1 << 1;
    pub(crate) const SET_DATA_EVENTFD: u32 = 1 << 2;
    pub(crate) const SET_ACTION: u32 = 0x38;
    pub(crate) const SET_ACTION_TRIGGER: u32 = 1 << 5;
    pub(crate) const UNMAP_DIRTY_BITMAP: u32 = 1 << 0;
    pub(crate) const UNMAP_ALL: u32 = 1 << 1;
}

macro_rules! wire {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty,)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $kind,)* })*
    };
}

wire! {
    /// Begins every message.
    Header { message_id: U16, command: U16, size: U32, flags: U32, error: U32, }
    /// Begins VERSION; JSON with a closing NUL may follow.
    Version { major: U16, minor: U16, }
    /// DMA_MAP.
    DmaMap { argsz: U32, flags: U32, offset: U64, address: U64, size: U64, }
    /// DMA_UNMAP and its answer.
    DmaUnmap { argsz: U32, flags: U32, address: U64, size: U64, }
    /// DEVICE_GET_INFO and its answer.
    DeviceInfo { argsz: U32, flags: U32, regions: U32, irqs: U32, }
    /// DEVICE_GET_REGION_INFO and its answer; capabilities may follow.
    RegionInfo { argsz: U32, flags: U32, index: U32, cap_offset: U32, size: U64, offset: U64, }
    /// The capability that names one area of a region which may be mapped.
    SparseMmap { id: U16, version: U16, next: U32, areas: U32, reserved: U32, offset: U64, size: U64, }
    /// DEVICE_GET_IRQ_INFO and its answer.
    IrqInfo { argsz: U32, flags: U32, index: U32, count: U32, }
    /// Begins DEVICE_SET_IRQS.
    IrqSet { argsz: U32, flags: U32, index: U32, start: U32, count: U32, }
    /// Begins REGION_READ, REGION_WRITE and their answers.
    RegionAccess { offset: U64, region: U32, count: U32, }
}

const _: () = assert!(size_of::<Header>() == 16);
const _: () = assert!(size_of::<DmaMap>() == 32);
const _: () = assert!(size_of::<DmaUnmap>() == 24);
const _: () = assert!(size_of::<RegionInfo>() == 32);
const _: () = assert!(size_of::<SparseMmap>() == 32);
const _: () = assert!(size_of::<IrqSet>() == 20);

/// What the server can take, in the answer to VERSION.
pub(crate) fn capabilities() -> Vec<u8> {
    let json = serde_json::json!({
        "capabilities": {
            "max_msg_fds": super::descriptors::DESCRIPTORS_MAX,
            "max_data_xfer_size": DATA_MAX,
            "max_dma_maps": super::dma::MAPPINGS_MAX,
            "pgsizes": super::dma::PAGE,
        }
    });
    let mut octets = json.to_string().into_bytes();
    octets.push(0);
    octets
}
