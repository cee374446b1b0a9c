//! What sysfs tells of a PCI function: its driver, its IOMMU group, and who else is in that group.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::address::PciAddress;
use super::error::VfioError;
use crate::backing::PciIdentity;

/// The kernel driver that hands functions to user space.
const VFIO_PCI: &str = "vfio-pci";
/// Base class and subclass of bridges between PCI buses, which do no DMA of their own.
const CLASS_PCI_BRIDGE: u32 = 0x0604;
/// Name of a group that VFIO makes up where there is no IOMMU.
const NO_IOMMU_GROUP: &str = "vfio-noiommu";

/// One function of an IOMMU group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its PCI address, as the kernel writes it.
    pub address: String,
    /// Vendor and device identifier, where they can be read.
    pub identity: Option<PciIdentity>,
    /// The kernel driver that it is bound to.
    pub driver: Option<String>,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if let Some(identity) = self.identity {
            write!(f, " ({:04x}:{:04x})", identity.vendor, identity.device)?;
        }
        match &self.driver {
            Some(driver) => write!(f, " bound to {driver}"),
            None => write!(f, " bound to no driver"),
        }
    }
}

/// Where a card sits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: PciAddress,
    /// Number of its IOMMU group.
    pub(super) group: u32,
    /// Endpoints of the group, the card itself included.
    pub(super) members: Vec<Function>,
    /// The function's folder, as the kernel's libraries want it.
    pub(super) folder: PathBuf,
    /// Name of its own VFIO node, where the kernel has one (`CONFIG_VFIO_DEVICE_CDEV`).
    pub(super) cdev: Option<String>,
}

impl Place {
    /// Looks `address` up under `sysfs` (`/sys`), and refuses what must not or cannot be used. A device of the group that is
    /// not an `expected` one is foreign, whatever it is bound to: it shares the card's view of memory.
    pub(super) fn find(sysfs: &Path, address: PciAddress, expected: PciIdentity) -> Result<Self, VfioError> {
        let devices = sysfs.join("bus/pci/devices");
        let folder = devices.join(address.to_string());
        if !folder.exists() {
            return Err(VfioError::NoDevice { address });
        }
        let driver = link_name(&folder.join("driver"));
        if driver.as_deref() != Some(VFIO_PCI) {
            return Err(VfioError::NotBound { address, driver });
        }
        let number = link_name(&folder.join("iommu_group")).and_then(|name| name.parse().ok());
        let Some(group) = number else { return Err(VfioError::NoIommuGroup { address }) };
        let group_folder = folder.join("iommu_group");
        if attribute(&group_folder.join("name")).as_deref() == Some(NO_IOMMU_GROUP) {
            return Err(VfioError::NoIommuMode { address });
        }
        let members = endpoints(&devices, &group_folder.join("devices")).map_err(|error| {
            VfioError::Refused { what: "looking through the IOMMU group", problem: error.to_string() }
        })?;
        let own = address.to_string();
        let foreign: Vec<Function> = members
            .iter()
            .filter(|member| member.address != own && member.identity != Some(expected))
            .cloned()
            .collect();
        if !foreign.is_empty() {
            return Err(VfioError::GroupShared { address, group, foreign });
        }
        let cdev = fs::read_dir(folder.join("vfio-dev"))
            .ok()
            .and_then(|mut entries| entries.next()?.ok()?.file_name().into_string().ok());
        Ok(Self { address, group, members, folder, cdev })
    }

    /// The group's node.
    pub(super) fn group_node(&self) -> PathBuf {
        Path::new("/dev/vfio").join(self.group.to_string())
    }

    /// The device's own node.
    pub(super) fn cdev_node(&self) -> Option<PathBuf> {
        self.cdev.as_ref().map(|name| Path::new("/dev/vfio/devices").join(name))
    }
}

fn endpoints(devices: &Path, group: &Path) -> io::Result<Vec<Function>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(group)? {
        let name = entry?.file_name();
        let folder = devices.join(&name);
        let class = attribute(&folder.join("class")).and_then(|text| hexadecimal(&text));
        if class.is_some_and(|class| class >> 8 == CLASS_PCI_BRIDGE) {
            continue;
        }
        let number =
            |file: &str| attribute(&folder.join(file)).and_then(|text| hexadecimal(&text)?.try_into().ok());
        let identity = match (number("vendor"), number("device")) {
            (Some(vendor), Some(device)) => Some(PciIdentity { vendor, device }),
            _ => None,
        };
        let address = name.to_string_lossy().into_owned();
        found.push(Function { address, identity, driver: link_name(&folder.join("driver")) });
    }
    found.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(found)
}

/// The last part of what a link points to.
fn link_name(link: &Path) -> Option<String> {
    fs::read_link(link).ok()?.file_name()?.to_str().map(str::to_owned)
}

fn attribute(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}

fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests;
