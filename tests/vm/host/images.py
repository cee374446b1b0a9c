"""The two things that are built from Debian packages: a QEMU, and the guest's disk, kernel and initramfs."""

import inspect
import os
import pathlib

from . import apt

HERE = pathlib.Path(__file__).resolve().parent
IMAGE = HERE.parent / "image"
BACKPORTS = apt.SUITES[1]

QEMU = [f"{name}/{BACKPORTS}" for name in ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios")]
QEMU += ["libc6"]
KERNEL = "linux-image-cloud-amd64"
GUEST = ["apt", "systemd", "systemd-sysv", "udev", "passwd", "kmod", "procps", "pciutils", "dbus", "openssl", "busybox-static"]


def build(cache):
    """Directories of QEMU and of the guest, from the cache where nothing has changed."""
    cache.mkdir(parents=True, exist_ok=True)
    source = apt.Apt(cache / "apt")
    source.prepare()
    kernel = next(name for name in source.depends(KERNEL) if name.startswith("linux-image-"))
    qemu_key = apt.key(inspect.getsource(build_qemu), "\n".join(source.versions(*QEMU)))
    guest_key = apt.key(
        inspect.getsource(build_guest), IMAGE, "\n".join(source.versions(*GUEST)), "\n".join(source.versions(kernel))
    )
    qemu = apt.cached(cache, "qemu", qemu_key, lambda out: build_qemu(source, out))
    guest = apt.cached(cache, "guest", guest_key, lambda out: build_guest(source, kernel, out))
    return qemu, guest


def build_qemu(source, out):
    """Unpacks QEMU and its libraries; nothing is installed, and none of its scripts run."""
    mode = "root" if os.geteuid() == 0 else "unshare"
    apt.run(
        "mmdebstrap", f"--mode={mode}", "--variant=extract", "--format=tar", "--quiet",
        "--include=" + ",".join(QEMU), apt.RELEASE, out / "tree.tar", source.sources,
    )
    apt.run("tar", "--extract", "--file", out / "tree.tar", "--directory", out, "--exclude=./dev/*")
    (out / "tree.tar").unlink()


def build_guest(source, kernel, out):
    """Makes the guest as root, or as root of a user namespace."""
    (out / "debs").mkdir()
    package = source.download(kernel, out / "debs")
    helper = [] if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper"]
    apt.run(*helper, "sh", IMAGE / "guest.sh", out, source.sources, package, *GUEST)
    package.unlink()
    (out / "debs").rmdir()
