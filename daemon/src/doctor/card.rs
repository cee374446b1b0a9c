//! The card: IOMMU, group, driver and nodes, as the kernel shows them under `/sys` and `/dev`.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use qkd_driver::backing::PciIdentity;

use super::finding::Findings;
use super::host::Host;
use crate::config::{CardBacking, Config};

const IOMMU_ON: &str = "enable the IOMMU (VT-d or AMD-Vi) in the firmware's set-up, on Intel hosts boot with intel_iommu=on, and \
     see that the kernel log names DMAR or AMD-Vi";

/// Looks at the card of a configuration.
pub(super) fn look(config: &Config, host: &Host, findings: &mut Findings) {
    match &config.card.backing {
        CardBacking::VfioUser(socket) => simulated(&host.path(socket), findings),
        CardBacking::Vfio(address) => in_slot(&address.to_string(), config.card.pci_id, host, findings),
    }
}

fn simulated(socket: &Path, findings: &mut Findings) {
    const CHECK: &str = "card.socket";
    let mend = "start what serves the simulated card (systemctl start qkd-sim@lab, or qkd-sim pair), and make card.socket its \
                socket's path";
    match fs::metadata(socket) {
        Err(why) => findings.fail(CHECK, format!("{}: {why}", socket.display()), mend),
        Ok(found) if !found.file_type().is_socket() => {
            findings.fail(CHECK, format!("{} is no socket", socket.display()), mend);
        }
        // A server of one card takes one client: whoever is served already keeps others waiting.
        Ok(_) => match UnixStream::connect(socket) {
            Ok(_) => findings.pass(CHECK, format!("{} is served", socket.display())),
            Err(why) => findings.fail(CHECK, format!("{}: {why}", socket.display()), mend),
        },
    }
}

fn in_slot(address: &str, identity: PciIdentity, host: &Host, findings: &mut Findings) {
    let groups = host.path("/sys/kernel/iommu_groups");
    if fs::read_dir(&groups).is_ok_and(|mut groups| groups.next().is_some()) {
        findings.pass("iommu", "the kernel has IOMMU groups");
    } else {
        findings.fail("iommu", "the kernel has no IOMMU group: no program may drive a card", IOMMU_ON);
    }
    let place = host.path("/sys/bus/pci/devices").join(address);
    if !present(&place, address, identity, findings) {
        for check in ["card.group", "card.driver", "card.node"] {
            findings.skip(check, "the card is not there");
        }
        return;
    }
    driver(&place, address, findings);
    let Some(group) = name_of(&place.join("iommu_group")) else {
        findings.fail("card.group", format!("the card at {address} has no IOMMU group"), IOMMU_ON);
        findings.skip("card.node", "the card has no IOMMU group");
        return;
    };
    alone(&groups.join(&group), address, identity, &group, findings);
    node(&place, &group, address, host, findings);
}

fn present(place: &Path, address: &str, identity: PciIdentity, findings: &mut Findings) -> bool {
    const CHECK: &str = "card.present";
    let mend = "see with lspci -Dd 5144: where the card is, and make card.pci that address; if none is shown, see that it sits \
                in its slot";
    if !place.exists() {
        findings.fail(CHECK, format!("there is no PCI device at {address}"), mend);
        return false;
    }
    let has = |name: &str| {
        let text = fs::read_to_string(place.join(name)).ok()?;
        u16::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    let found = (has("vendor"), has("device"));
    if found == (Some(identity.vendor), Some(identity.device)) {
        findings.pass(CHECK, format!("there is a QKD card at {address}"));
        return true;
    }
    let hex = |number: Option<u16>| number.map_or("?".to_owned(), |number| format!("{number:04x}"));
    let detail = format!(
        "the device at {address} is {}:{}, and card.pci_id is {:04x}:{:04x}",
        hex(found.0),
        hex(found.1),
        identity.vendor,
        identity.device
    );
    findings.fail(CHECK, detail, mend);
    true
}

fn driver(place: &Path, address: &str, findings: &mut Findings) {
    const CHECK: &str = "card.driver";
    match name_of(&place.join("driver")).as_deref() {
        Some("vfio-pci") => findings.pass(CHECK, "vfio-pci has the card"),
        Some(other) => findings.fail(
            CHECK,
            format!("the driver {other} has the card at {address}"),
            format!(
                "stop what uses it, then: echo {address} > /sys/bus/pci/drivers/{other}/unbind && udevadm trigger --action=change \
                 /sys/bus/pci/devices/{address}; or boot again"
            ),
        ),
        None => findings.fail(
            CHECK,
            format!("no driver has the card at {address}"),
            format!(
                "modprobe vfio-pci && echo vfio-pci > /sys/bus/pci/devices/{address}/driver_override && echo {address} > \
                 /sys/bus/pci/drivers_probe; the kernel log says why it was not taken (dmesg | grep {address})"
            ),
        ),
    }
}

/// Whoever may drive one device of a group can read and write the memory of the others.
fn alone(group: &Path, address: &str, identity: PciIdentity, number: &str, findings: &mut Findings) {
    const CHECK: &str = "card.group";
    if fs::read_to_string(group.join("name")).is_ok_and(|name| name.trim() == "vfio-noiommu") {
        let detail = "vfio runs without an IOMMU, so that the card could write anywhere in memory";
        return findings.fail(CHECK, detail, format!("take enable_unsafe_noiommu_mode away, and {IOMMU_ON}"));
    }
    let mut others: Vec<String> = Vec::new();
    for member in fs::read_dir(group.join("devices")).into_iter().flatten().flatten() {
        let name = member.file_name().to_string_lossy().into_owned();
        let read = |file: &str| fs::read_to_string(member.path().join(file)).unwrap_or_default();
        let is = |file: &str, id: u16| read(file).trim() == format!("0x{id:04x}");
        // A bridge forwards what its devices do, and is nobody's to drive.
        let bridge = read("class").trim().starts_with("0x0604");
        let card = is("vendor", identity.vendor) && is("device", identity.device);
        if name != address && !bridge && !card {
            others.push(name);
        }
    }
    others.sort_unstable();
    if others.is_empty() {
        return findings.pass(CHECK, format!("nobody else is in IOMMU group {number}"));
    }
    findings.fail(
        CHECK,
        format!("IOMMU group {number} holds also {}", others.join(", ")),
        "put the card into a slot that has a group of its own (ls /sys/kernel/iommu_groups/*/devices; firmware settings named ACS \
         help)",
    );
}

fn node(place: &Path, group: &str, address: &str, host: &Host, findings: &mut Findings) {
    const CHECK: &str = "card.node";
    // The kernel has a node for each group, or for each device, or both.
    let own = fs::read_dir(place.join("vfio-dev")).into_iter().flatten().flatten().next();
    let own = own.map(|entry| host.path("/dev/vfio/devices").join(entry.file_name()));
    let nodes = [Some(host.path("/dev/vfio").join(group)), own];
    let Some((node, found)) =
        nodes.into_iter().flatten().find_map(|node| fs::metadata(&node).ok().map(|found| (node, found)))
    else {
        let mend = format!(
            "udevadm trigger --action=change /sys/bus/pci/devices/{address}; the kernel needs vfio-pci to have the card"
        );
        return findings.fail(CHECK, format!("IOMMU group {group} has no node in /dev/vfio"), mend);
    };
    let shown = node.display();
    if host.user.may_read_and_write(found.mode(), found.uid(), found.gid()) {
        findings.pass(CHECK, format!("{shown} is open to {}", host.user));
    } else {
        findings.fail(
            CHECK,
            format!("{shown} has mode {:o} of user {} and group {}, and is not open to {}", found.mode() & 0o7777, found.uid(), found.gid(), host.user),
            format!(
                "the package's rules give it to the group qkd: udevadm trigger --action=change /sys/bus/pci/devices/{address}; the \
                 journal says what keeps them from it (journalctl -t qkd-card)"
            ),
        );
    }
}

/// The last part of what a link points to.
fn name_of(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_string_lossy().into_owned())
}
