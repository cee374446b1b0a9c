//! What the helper of the udev rules decides and says, over a folder that looks like `/sys`. The rules themselves run in the
//! virtual machine test.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use qkd_tests::programs::{workspace, write_script};
use tempfile::TempDir;

const CARD: &str = "0000:01:00.0";
const OTHER_CARD: &str = "0000:01:00.1";
const DISK: &str = "0000:01:00.2";
const BRIDGE: &str = "0000:00:1c.0";

/// A machine's PCI devices, as files.
struct Machine {
    root: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { root: TempDir::new().unwrap() };
        for folder in [
            "sys/bus/pci/devices",
            "sys/bus/pci/drivers/vfio-pci",
            "sys/class/vfio",
            "dev/vfio",
            "bin",
            "known",
        ] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        // What udev knows lies in a file for each device; what is said goes to one.
        machine.program("udevadm", "for path; do :; done; cat \"$QKD_CARD_TEST_ROOT/known/${path##*/}\"");
        machine
            .program("logger", "for text; do :; done; echo \"$3 $4 $text\" >>\"$QKD_CARD_TEST_ROOT/said\"");
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn program(&self, name: &str, text: &str) {
        write_script(&self.path("bin").join(name), text);
    }

    /// A device with its class, IOMMU group, driver and what udev knows of it.
    fn device(&self, address: &str, class: &str, group: Option<u32>, driver: &str, known: &str) -> &Self {
        let place = self.path("sys/bus/pci/devices").join(address);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("class"), format!("{class}\n")).unwrap();
        fs::write(place.join("driver_override"), "(null)\n").unwrap();
        fs::write(self.path("known").join(address), known).unwrap();
        if let Some(group) = group {
            let members = self.path(&format!("sys/kernel/iommu_groups/{group}/devices"));
            fs::create_dir_all(&members).unwrap();
            symlink(members.parent().unwrap(), place.join("iommu_group")).unwrap();
            symlink(&place, members.join(address)).unwrap();
        }
        if !driver.is_empty() {
            symlink(Path::new("/sys/bus/pci/drivers").join(driver), place.join("driver")).unwrap();
        }
        self
    }

    fn card(&self, address: &str, driver: &str) -> &Self {
        self.device(address, "0x108000", Some(7), driver, "USEC_INITIALIZED=1\nQKD_CARD=1\n")
    }

    /// The node of group 7, as sysfs shows it.
    fn group_node(&self) -> PathBuf {
        let node = self.path("sys/class/vfio/7");
        fs::create_dir_all(&node).unwrap();
        fs::write(node.join("dev"), "511:0\n").unwrap();
        fs::write(node.join("uevent"), "").unwrap();
        node
    }

    /// What the helper prints for the rules.
    fn helper(&self, arguments: &[&str]) -> String {
        let done = Command::new(workspace().join("udev/qkd-card"))
            .args(arguments)
            .env("QKD_CARD_TEST_ROOT", self.root.path())
            .env("QKD_CARD_TEST_PATH", self.path("bin"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        assert!(done.stderr.is_empty(), "{arguments:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path("said")).unwrap_or_default()
    }
}

#[test]
fn a_group_of_cards_and_bridges_only_is_given_away_with_a_link_and_a_service_for_each_card() {
    let machine = Machine::new();
    machine.card(CARD, "vfio-pci").card(OTHER_CARD, "vfio-pci");
    machine.device(BRIDGE, "0x060400", Some(7), "pcieport", "USEC_INITIALIZED=1\n");
    assert_eq!(
        machine.helper(&["group", "7"]),
        "QKD_GROUP=granted\nQKD_LINKS=qkd/0000:01:00.0 qkd/0000:01:00.1\n\
         SYSTEMD_WANTS=qkdd@0000:01:00.0.service qkdd@0000:01:00.1.service\n"
    );
    assert!(machine.said().contains("/dev/vfio/7 is given to the group qkd"), "{}", machine.said());
}

#[test]
fn a_group_with_a_foreign_device_stays_roots_and_the_journal_says_which() {
    let machine = Machine::new();
    machine.card(CARD, "vfio-pci").device(
        DISK,
        "0x010802",
        Some(7),
        "vfio-pci",
        "USEC_INITIALIZED=1\nID_X=1\n",
    );
    assert_eq!(machine.helper(&["group", "7"]), "QKD_GROUP=refused\n");
    let said = machine.said();
    assert!(said.contains("daemon.err") && said.contains(DISK) && said.contains("slot"), "{said}");
}

#[test]
fn a_device_that_udev_has_not_met_yet_keeps_a_group_from_being_given_away() {
    let machine = Machine::new();
    machine.card(CARD, "vfio-pci").device(OTHER_CARD, "0x108000", Some(7), "", "");
    assert_eq!(machine.helper(&["group", "7"]), "QKD_GROUP=refused\n");
    assert!(
        machine.said().contains("daemon.notice") && !machine.said().contains("daemon.err"),
        "{}",
        machine.said()
    );
    fs::write(machine.path("known").join(OTHER_CARD), "USEC_INITIALIZED=1\nQKD_CARD=1\n").unwrap();
    assert!(machine.helper(&["group", "7"]).contains("granted"));
}

#[test]
fn a_device_of_another_bus_in_the_group_keeps_it_from_being_given_away() {
    let machine = Machine::new();
    machine.card(CARD, "vfio-pci");
    let place = machine.path("sys/bus/platform/devices/dma0");
    fs::create_dir_all(&place).unwrap();
    symlink(&place, machine.path("sys/kernel/iommu_groups/7/devices/dma0")).unwrap();
    assert_eq!(machine.helper(&["group", "7"]), "QKD_GROUP=refused\n");
    assert!(machine.said().contains("dma0"), "{}", machine.said());
}

#[test]
fn a_card_that_vfio_does_not_have_gets_no_link() {
    let machine = Machine::new();
    machine.card(CARD, "vfio-pci").card(OTHER_CARD, "");
    assert_eq!(
        machine.helper(&["group", "7"]),
        "QKD_GROUP=granted\nQKD_LINKS=qkd/0000:01:00.0\nSYSTEMD_WANTS=qkdd@0000:01:00.0.service\n"
    );
}

#[test]
fn a_group_without_a_card_is_not_touched() {
    let machine = Machine::new();
    machine.device(DISK, "0x010802", Some(7), "vfio-pci", "USEC_INITIALIZED=1\n");
    assert_eq!(machine.helper(&["group", "7"]), "");
    assert_eq!(machine.said(), "");
}

#[test]
fn a_device_that_is_driven_by_vfio_beside_a_card_has_the_group_judged_anew() {
    let machine = Machine::new();
    machine.card(CARD, "vfio-pci").device(DISK, "0x010802", Some(7), "vfio-pci", "USEC_INITIALIZED=1\n");
    let node = machine.group_node();
    assert_eq!(machine.helper(&["regroup", DISK]), "");
    assert_eq!(fs::read_to_string(node.join("uevent")).unwrap(), "change\n");
}

#[test]
fn what_keeps_a_card_from_its_driver_is_told_with_what_to_do() {
    for (group, driver, action, words) in [
        (None, "", "add", "intel_iommu=on"),
        (Some(7), "vendor", "change", "/sys/bus/pci/drivers/vendor/unbind"),
        (Some(7), "", "probe", "kernel log"),
        (Some(7), "", "unbind", "nothing takes it"),
        (Some(7), "vfio-pci", "bind", ""),
        (Some(7), "vfio-pci", "probe", ""),
    ] {
        let machine = Machine::new();
        machine.device(CARD, "0x108000", group, driver, "USEC_INITIALIZED=1\nQKD_CARD=1\n");
        let node = machine.group_node();
        assert_eq!(machine.helper(&["card", CARD, action]), "");
        let said = machine.said();
        let told = said.contains(words) && words.is_empty() == said.is_empty();
        assert!(told, "{group:?} {driver:?} {action}: {said:?}");
        let judged = fs::read_to_string(node.join("uevent")).unwrap() == "change\n";
        assert_eq!(
            judged,
            group.is_some() && (driver, action) != ("vfio-pci", "probe"),
            "{driver:?} {action}"
        );
    }
}

#[test]
fn an_override_of_somebody_else_is_respected_and_told() {
    let machine = Machine::new();
    machine.card(CARD, "");
    fs::write(machine.path("sys/bus/pci/devices").join(CARD).join("driver_override"), "none\n").unwrap();
    machine.helper(&["card", CARD, "change"]);
    assert!(machine.said().contains("its driver_override is none"), "{}", machine.said());
}

#[test]
fn cards_are_given_back_when_the_package_goes_and_other_devices_are_not_touched() {
    let machine = Machine::new();
    machine.card(CARD, "vfio-pci").device(DISK, "0x010802", Some(9), "vfio-pci", "USEC_INITIALIZED=1\n");
    fs::write(machine.path("dev/vfio/7"), "").unwrap();
    assert_eq!(machine.helper(&["release"]), "");
    let text = |path: &str| fs::read_to_string(machine.path(path)).unwrap();
    assert_eq!(text("sys/bus/pci/drivers/vfio-pci/unbind"), format!("{CARD}\n"));
    assert_eq!(text(&format!("sys/bus/pci/devices/{CARD}/driver_override")), "\n");
    assert_eq!(text("sys/bus/pci/drivers_probe"), format!("{CARD}\n"));
    assert_eq!(text(&format!("sys/bus/pci/devices/{DISK}/driver_override")), "(null)\n");
}

impl Machine {
    /// What the operator's tool says of binding or unbinding: exit code, standard output and standard error.
    fn qkdctl(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let done = Command::new(qkd_tests::programs::program("qkdctl"))
            .args(arguments)
            .env("QKD_CARD_HELPER", workspace().join("udev/qkd-card"))
            .env("QKD_CARD_TEST_ROOT", self.root.path())
            .env("QKD_CARD_TEST_PATH", self.path("bin"))
            .output()
            .unwrap();
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    }

    /// What was written to a file of a card's driver.
    fn written(&self, file: &str) -> String {
        fs::read_to_string(self.path("sys/bus/pci").join(file)).unwrap_or_default()
    }
}

#[test]
fn an_operator_s_bind_takes_no_card_that_udev_s_rules_would_not_give_away() {
    let refused = |machine: &Machine, address: &str, hint: &str| {
        let (code, out, said) = machine.qkdctl(&["bind", address]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{said}");
        assert!(said.contains(address) && said.contains(hint), "{hint} is not in {said}");
        assert_eq!(machine.written("drivers_probe"), "", "{hint}");
        assert!(!machine.written(&format!("devices/{address}/driver_override")).contains("vfio"), "{hint}");
    };
    let machine = Machine::new();
    refused(&machine, CARD, "there is no PCI device");
    machine.device(DISK, "0x010802", Some(8), "", "USEC_INITIALIZED=1\n");
    refused(&machine, DISK, "no QKD card by udev's rules");
    machine.device(CARD, "0x108000", None, "", "USEC_INITIALIZED=1\nQKD_CARD=1\n");
    refused(&machine, CARD, "no IOMMU group");

    let machine = Machine::new();
    machine.card(CARD, "").device(DISK, "0x010802", Some(7), "nvme", "USEC_INITIALIZED=1\n");
    refused(&machine, CARD, &format!("holds also: {DISK}"));
    let machine = Machine::new();
    machine.card(CARD, "qkd-maker");
    refused(&machine, CARD, "the driver qkd-maker has it");
    let machine = Machine::new();
    machine.card(CARD, "");
    fs::write(machine.path("sys/bus/pci/devices").join(CARD).join("driver_override"), "other\n").unwrap();
    refused(&machine, CARD, "its driver_override is other");
    let machine = Machine::new();
    machine.card(CARD, "");
    fs::create_dir_all(machine.path("sys/module/vfio/parameters")).unwrap();
    fs::write(machine.path("sys/module/vfio/parameters/enable_unsafe_noiommu_mode"), "Y\n").unwrap();
    refused(&machine, CARD, "without an IOMMU");
}

#[test]
fn an_operator_binds_a_card_and_takes_it_away_again_unless_it_is_in_use() {
    let machine = Machine::new();
    machine.card(CARD, "");
    // The kernel: whoever writes to drivers_probe has the card given to the driver that its override names.
    let probe = machine.path("sys/bus/pci/drivers_probe");
    nix::unistd::mkfifo(&probe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let place = machine.path("sys/bus/pci/devices").join(CARD);
    let kernel = std::thread::spawn({
        let place = place.clone();
        move || {
            let asked = fs::read_to_string(&probe).unwrap();
            assert_eq!(asked.trim(), CARD);
            let driver = fs::read_to_string(place.join("driver_override")).unwrap();
            symlink(Path::new("/sys/bus/pci/drivers").join(driver.trim()), place.join("driver")).unwrap();
        }
    });
    let (code, out, said) = machine.qkdctl(&["bind", CARD]);
    assert_eq!((code, said.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("vfio-pci has it now"), "{out}");
    kernel.join().unwrap();
    let (code, out, _) = machine.qkdctl(&["bind", CARD]);
    assert!(code == Some(0) && out.contains("already"), "{out}");

    let (code, out, said) = machine.qkdctl(&["-o", "json", "unbind", CARD]);
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("\"answer\":\"slot\"") && out.contains("\"bound\":false"), "{out}");
    assert_eq!(machine.written("drivers/vfio-pci/unbind").trim(), CARD);
    assert_eq!(fs::read_to_string(place.join("driver_override")).unwrap(), "\n");

    // A group node that cannot be opened is one that somebody has open.
    fs::create_dir(machine.path("dev/vfio/7")).unwrap();
    fs::write(machine.path("sys/bus/pci/drivers/vfio-pci/unbind"), "").unwrap();
    let (code, _, said) = machine.qkdctl(&["unbind", CARD]);
    assert!(code == Some(1) && said.contains("it is in use"), "{said}");
    assert_eq!(machine.written("drivers/vfio-pci/unbind"), "");
}
