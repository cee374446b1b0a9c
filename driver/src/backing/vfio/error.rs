//! What can be in the way of a card in a slot, and what the operator does about it.

use std::io;
use std::path::PathBuf;

use super::address::PciAddress;
use super::topology::Function;

/// A card cannot be had from the kernel, or the kernel refused something.
#[derive(Debug, thiserror::Error)]
pub enum VfioError {
    /// Nothing is at that address.
    #[error(
        "no device is at PCI address {address}; lspci -Dd 5144: lists QKD cards, and a card that was moved has another address"
    )]
    NoDevice {
        /// The address.
        address: PciAddress,
    },
    /// Another kernel driver has the card, or none.
    #[error(
        "{address} is bound to {}, not to vfio-pci; the udev rules of this package bind it when its vendor and device \
         identifier are listed (see 69-qkd-card-ids.rules), after: udevadm trigger --subsystem-match=pci",
        driver.as_ref().map_or_else(|| "no driver".to_owned(), |name| format!("the driver {name}"))
    )]
    NotBound {
        /// The address.
        address: PciAddress,
        /// The driver that has it.
        driver: Option<String>,
    },
    /// The kernel uses no IOMMU for the card.
    #[error(
        "{address} is in no IOMMU group, so its DMA cannot be confined; turn the IOMMU on in the firmware setup (VT-d, \
         AMD-Vi, SMMU) and for the kernel (intel_iommu=on on Intel), and start the machine again"
    )]
    NoIommuGroup {
        /// The address.
        address: PciAddress,
    },
    /// The kernel offers the device without an IOMMU.
    #[error(
        "{address} is offered in VFIO's no-IOMMU mode, in which it could read and write all memory; this is never used. \
         Turn the IOMMU on, and enable_unsafe_noiommu_mode of the module vfio off"
    )]
    NoIommuMode {
        /// The address.
        address: PciAddress,
    },
    /// Another kind of device shares the card's IOMMU group.
    #[error(
        "IOMMU group {group} of {address} also holds {}: it could reach the card's key memory. Put the card into a \
         slot with an IOMMU group of its own (one behind a root port with ACS)",
        list(foreign)
    )]
    GroupShared {
        /// The address.
        address: PciAddress,
        /// Number of the group.
        group: u32,
        /// The devices that are no such card.
        foreign: Vec<Function>,
    },
    /// Another card of the group is not bound to vfio-pci.
    #[error(
        "IOMMU group {group} of {address} cannot be used while a device in it is bound to another driver; bind all of them to \
         vfio-pci, as the udev rules of this package do: {}",
        list(members)
    )]
    GroupNotViable {
        /// The address.
        address: PciAddress,
        /// Number of the group.
        group: u32,
        /// Its devices.
        members: Vec<Function>,
    },
    /// The process may not open a node.
    #[error(
        "{} may not be opened by this user ({source}); udev gives it to group qkd when every device of the IOMMU group is a \
         QKD card: run as user qkd, and see why not: journalctl -t qkd-card",
        node.display()
    )]
    NotPermitted {
        /// The node.
        node: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another program has the card.
    #[error(
        "{} is in use: another program has this card, or another card of its IOMMU group; a card serves one daemon. See: \
         fuser -v {}",
        node.display(), node.display()
    )]
    InUse {
        /// The node.
        node: PathBuf,
    },
    /// A node is not there.
    #[error("{} is not there ({source}); load the module vfio-pci, and see that /dev is the real one, not a private one", node.display())]
    NoNode {
        /// The node.
        node: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The limit on locked memory is too small.
    #[error(
        "{needed} bytes of locked memory are needed ({length} for the card, {} by this process already), and the limit \
         is {limit}: raise it to {needed} at least (LimitMEMLOCK= in the unit, RLIMIT_MEMLOCK, ulimit -l)",
        needed - length
    )]
    MemoryLock {
        /// Bytes that were to be mapped.
        length: u64,
        /// Bytes that the process would have locked then.
        needed: u64,
        /// Its limit in bytes.
        limit: u64,
    },
    /// The limit on memory that the user may pin is met, by all processes of the user together.
    #[error(
        "{length} bytes more cannot be pinned for the card: with iommufd, what all processes of one user pin counts \
         together against the limit on locked memory ({limit} bytes); raise it (LimitMEMLOCK= in the units, RLIMIT_MEMLOCK)"
    )]
    PinnedMemory {
        /// Bytes that were to be mapped.
        length: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The kernel does not let the card be driven from user space at all.
    #[error(
        "the kernel does not let {address} be driven from user space: its interrupts cannot be confined, or the firmware \
         keeps memory for it, or another program holds its IOMMU group. Turn interrupt remapping on (firmware set-up; no \
         intremap=off on the kernel's command line); the kernel log says which it is: dmesg | grep -e DMAR -e AMD-Vi -e {address}"
    )]
    NotConfined {
        /// The address.
        address: PciAddress,
    },
    /// The IOMMU has no room.
    #[error("no I/O virtual addresses for {length} bytes are left in what the IOMMU offers ({offered})")]
    NoAddresses {
        /// Bytes that were to be mapped.
        length: usize,
        /// The ranges, in words.
        offered: String,
    },
    /// The kernel did not reset the function.
    #[error(
        "the kernel refused to reset {address} ({source}); a QKD card has function-level reset (PCI-7): see \
         /sys/bus/pci/devices/{address}/reset_method"
    )]
    ResetRefused {
        /// The address.
        address: PciAddress,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused something else.
    #[error("{what}: {problem}")]
    Refused {
        /// What was being done.
        what: &'static str,
        /// What the kernel, or the library before it, said.
        problem: String,
    },
}

fn list(functions: &[Function]) -> String {
    let words: Vec<String> = functions.iter().map(Function::to_string).collect();
    words.join(", ")
}
