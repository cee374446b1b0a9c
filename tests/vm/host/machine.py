"""The emulated machine: its command line, and the two ports over which it is heard."""

import json
import os
import re

BOOT_WITHIN_S = 180
KERNEL_LINE = (
    "console=ttyS0 root=/dev/vda rw quiet loglevel=4 net.ifnames=0 intel_iommu=on iommu=nopt "
    "systemd.show_status=error systemd.log_level=notice mitigations=off 8250.nr_uarts=2"
)


def accelerators():
    """What may emulate the processor, best first. A KVM that is not the kernel's own for this processor may hang."""
    native = any(os.path.isdir(f"/sys/module/kvm_{maker}") for maker in ("intel", "amd"))
    native = native and os.access("/dev/kvm", os.R_OK | os.W_OK) and not os.environ.get("QKD_VM_TCG")
    return ["kvm", "tcg"] if native else ["tcg"]


def command(qemu, guest, accelerator, cards, ports, disk, forwards):
    """QEMU's command line, as an iterable of words.

    `cards`: a list of slots, each the socket of a card, and whether a foreign function shares its slot.
    `ports`: the sockets of the journal's port and of the results' port, which listen already, and the console's file.
    `disk`: what is under test, as a tar. `forwards`: host's to guest's port.
    """
    yield from (qemu / "usr/lib64/ld-linux-x86-64.so.2", "--library-path", qemu / "usr/lib/x86_64-linux-gnu")
    yield from (qemu / "usr/bin/qemu-system-x86_64", "-L", qemu / "usr/share/qemu", "-L", qemu / "usr/share/seabios")
    yield from ("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
    kvm = accelerator == "kvm"
    board = "q35,sata=off,smbus=off,i8042=off,hpet=off,vmport=off,memory-backend=ram0"
    yield from ("-machine", board + (",kernel-irqchip=split" if kvm else ""))
    yield from ("-accel", "kvm" if kvm else "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024")
    # The cards' simulator reads and writes the guest's memory: it has to be shared.
    yield from ("-object", "memory-backend-memfd,id=ram0,size=1024M,share=on")
    yield from ("-device", "intel-iommu,intremap=on,caching-mode=on,aw-bits=48")
    yield from ("-kernel", guest / "vmlinuz", "-initrd", guest / "initramfs", "-append", KERNEL_LINE)
    # The image is shared by all runs; what the guest writes is thrown away.
    yield from ("-drive", f"file={guest / 'disk'},format=raw,if=none,id=root,snapshot=on,read-only=off")
    yield from ("-device", "virtio-blk-pci,drive=root")
    yield from ("-drive", f"file={disk},format=raw,if=none,id=load,read-only=on", "-device", "virtio-blk-pci,drive=load")
    forward = "".join(f",hostfwd=tcp:127.0.0.1:{here}-10.0.2.15:{there}" for here, there in forwards)
    yield from ("-netdev", f"user,id=net{forward}", "-device", "virtio-net-pci,netdev=net,romfile=")
    yield from ("-chardev", f"file,id=console,path={ports['console']}", "-serial", "chardev:console")
    yield from ("-chardev", f"socket,id=results,path={ports['results']}", "-serial", "chardev:results")
    yield from ("-chardev", f"file,id=journal,path={ports['journal']}")
    yield from ("-device", "virtio-serial-pci", "-device", "virtconsole,chardev=journal")
    for slot, (socket, shared) in enumerate(cards, 1):
        yield from ("-device", f"pcie-root-port,id=port{slot},bus=pcie.0,chassis={slot},slot={slot}")
        card = {
            "driver": "vfio-user-pci", "id": f"card{slot}", "bus": f"port{slot}", "addr": "0.0",
            "multifunction": shared, "socket": {"type": "unix", "path": str(socket)},
        }
        yield from ("-device", json.dumps(card))
        if shared:
            yield from ("-device", f"virtio-rng-pci,bus=port{slot},addr=0.1")


def last_lines(path, count):
    """The end of a log, without the control sequences of a terminal."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 200 * count))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text).splitlines()[-count:]
