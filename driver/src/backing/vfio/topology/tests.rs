//! The look-up on a made-up sysfs: every state in which an operator may have left a machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Place, VfioError};
use crate::backing::PciIdentity;
use crate::backing::vfio::PciAddress;

const CARD: &str = "0000:01:00.0";
const IDENTITY: PciIdentity = PciIdentity { vendor: 0x5144, device: 1 };

struct Sysfs(tempfile::TempDir);

impl Sysfs {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    /// A function with its identity, class, driver and IOMMU group.
    fn function(
        self,
        address: &str,
        ids: (&str, &str),
        class: &str,
        driver: Option<&str>,
        group: Option<u32>,
    ) -> Self {
        let folder = self.root().join("bus/pci/devices").join(address);
        fs::create_dir_all(&folder).expect("a folder");
        for (file, text) in [("vendor", ids.0), ("device", ids.1), ("class", class)] {
            fs::write(folder.join(file), format!("{text}\n")).expect("a file");
        }
        if let Some(driver) = driver {
            symlink(Path::new("../../../bus/pci/drivers").join(driver), folder.join("driver"))
                .expect("a link");
        }
        if let Some(group) = group {
            let groups = self.root().join("kernel/iommu_groups").join(group.to_string());
            fs::create_dir_all(groups.join("devices")).expect("a folder");
            symlink(&groups, folder.join("iommu_group")).expect("a link");
            symlink(&folder, groups.join("devices").join(address)).expect("a link");
        }
        self
    }

    fn card(self, driver: Option<&str>, group: Option<u32>) -> Self {
        self.function(CARD, ("0x5144", "0x0001"), "0x108000", driver, group)
    }

    fn find(&self) -> Result<Place, VfioError> {
        let address: PciAddress = CARD.parse().expect("an address");
        Place::find(self.root(), address, IDENTITY)
    }
}

#[test]
fn a_card_in_a_group_of_its_own_is_found() {
    let place = Sysfs::new().card(Some("vfio-pci"), Some(7)).find().expect("a place");
    assert_eq!(place.group, 7);
    assert_eq!(place.group_node(), Path::new("/dev/vfio/7"));
    assert_eq!(place.members.len(), 1);
    assert_eq!(place.cdev_node(), None);
}

#[test]
fn the_cards_own_node_is_found_where_the_kernel_has_one() {
    let sysfs = Sysfs::new().card(Some("vfio-pci"), Some(7));
    fs::create_dir_all(sysfs.root().join("bus/pci/devices").join(CARD).join("vfio-dev/vfio3"))
        .expect("a folder");
    let node = sysfs.find().expect("a place").cdev_node();
    assert_eq!(node.as_deref(), Some(Path::new("/dev/vfio/devices/vfio3")));
}

#[test]
fn an_empty_slot_is_told() {
    let error = Sysfs::new().find().expect_err("nothing is there");
    assert!(matches!(error, VfioError::NoDevice { .. }), "{error}");
}

#[test]
fn a_card_that_no_driver_or_another_one_has_is_told_by_that_name() {
    let error = Sysfs::new().card(None, Some(7)).find().expect_err("not bound");
    assert!(error.to_string().contains("bound to no driver"), "{error}");
    let error = Sysfs::new().card(Some("uio_pci_generic"), Some(7)).find().expect_err("bound to another");
    assert!(error.to_string().contains("the driver uio_pci_generic"), "{error}");
}

#[test]
fn a_machine_without_iommu_is_told_what_to_turn_on() {
    let error = Sysfs::new().card(Some("vfio-pci"), None).find().expect_err("no group");
    assert!(matches!(error, VfioError::NoIommuGroup { .. }), "{error}");
    assert!(error.to_string().contains("intel_iommu=on"), "{error}");
}

#[test]
fn no_iommu_mode_is_refused() {
    let sysfs = Sysfs::new().card(Some("vfio-pci"), Some(0));
    fs::write(sysfs.root().join("kernel/iommu_groups/0/name"), "vfio-noiommu\n").expect("a file");
    let error = sysfs.find().expect_err("no IOMMU");
    assert!(matches!(error, VfioError::NoIommuMode { .. }), "{error}");
}

#[test]
fn a_foreign_device_in_the_group_is_refused_whatever_it_is_bound_to() {
    for driver in [Some("e1000e"), Some("vfio-pci"), None] {
        let sysfs = Sysfs::new().card(Some("vfio-pci"), Some(7)).function(
            "0000:01:01.0",
            ("0x8086", "0x10d3"),
            "0x020000",
            driver,
            Some(7),
        );
        let error = sysfs.find().expect_err("shared");
        let VfioError::GroupShared { group: 7, foreign, .. } = &error else { panic!("{error}") };
        assert_eq!(foreign.len(), 1);
        assert!(error.to_string().contains("0000:01:01.0 (8086:10d3)"), "{error}");
    }
}

#[test]
fn a_device_whose_identity_cannot_be_read_is_foreign() {
    let sysfs = Sysfs::new().card(Some("vfio-pci"), Some(7)).function(
        "0000:01:01.0",
        ("garbage", "0x0001"),
        "0x108000",
        None,
        Some(7),
    );
    assert!(matches!(sysfs.find(), Err(VfioError::GroupShared { .. })));
}

#[test]
fn bridges_and_a_second_card_in_the_group_do_no_harm() {
    let place = Sysfs::new()
        .card(Some("vfio-pci"), Some(7))
        .function("0000:00:1c.0", ("0x8086", "0x1234"), "0x060400", Some("pcieport"), Some(7))
        .function("0000:01:01.0", ("0x5144", "0x0001"), "0x108000", Some("vfio-pci"), Some(7))
        .find()
        .expect("a place");
    assert_eq!(place.members.len(), 2);
}
