#!/bin/sh
# Makes the guest's disk, kernel and initramfs in the directory OUT.
# usage: guest.sh OUT SOURCES KERNEL_DEB [PACKAGE…]
# SOURCES is a sources.list; PACKAGEs go into the guest beyond the essential ones. Runs as root, or as root of a user
# namespace (mmdebstrap --unshare-helper).
set -eu
out=$1 sources=$2 kernel=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
root=$out/root

# Documentation, translations and Perl's library are of no use to the test, and each octet has to be written to a disk.
mmdebstrap --mode=root --quiet --variant=essential --format=directory \
    --include="$(echo "$*" | tr ' ' ,)" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-include=/usr/share/doc/qkdd/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/i18n/*' \
    trixie "$root" "$sources"

# The kernel is unpacked, not installed: its maintainer scripts would build an initramfs with everything in it.
mkdir "$out/kernel"
dpkg-deb --extract "$kernel" "$out/kernel"
release=$(ls "$out/kernel/usr/lib/modules")
mv "$out/kernel/boot/vmlinuz-$release" "$out/vmlinuz"

# The modules of this machine and what they need, without compression: xz is slow on an emulated processor.
modules=usr/lib/modules/$release
mkdir -p "$root/usr/lib/modules"
mv "$out/kernel/$modules" "$root/$modules"
chroot "$root" depmod "$release"
needed() {
    for module in "$@"; do
        chroot "$root" modprobe --set-version "$release" --show-depends "$module"
    done | sed -n "s|^insmod .*/$release/\([^ ]*\)\.xz.*|\1|p" | awk '!seen[$0]++'
}
ram=$out/ram
mkdir -p "$ram/bin" "$ram/dev" "$ram/proc" "$ram/sys" "$ram/root"
needed virtio_blk virtio_net >"$ram/modules"
needed vfio-pci vfio_iommu_type1 virtio_blk virtio_net virtio_rng >"$out/needed"
while read -r file; do xz --decompress --keep "$root/$modules/$file.xz"; done <"$out/needed"
find "$root/$modules" -name '*.ko.xz' -delete
find "$root/$modules" -type d -empty -delete
chroot "$root" depmod "$release"
rm "$out/needed"

# What the guest has of its own: where it starts, and where its journal goes.
cp -r "$here/files/." "$root/"
chmod -R go+rX-w "$root/etc/systemd" "$root/usr/local"
: >"$root/etc/machine-id"
echo qkd-vm >"$root/etc/hostname"
ln -sf /usr/local/lib/systemd/system/qkd-vm.target "$root/etc/systemd/system/default.target"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \
    e2scrub_reap.service systemd-tmpfiles-clean.timer systemd-timesyncd.service systemd-networkd.service \
    systemd-resolved.service systemd-homed.service systemd-machine-id-commit.service systemd-update-utmp.service \
    systemd-pstore.service systemd-random-seed.service ldconfig.service systemd-hwdb-update.service \
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    sys-fs-fuse-connections.mount systemd-journal-flush.service systemd-growfs-root.service \
    getty@tty1.service serial-getty@ttyS0.service serial-getty@hvc0.service systemd-tpm2-setup.service \
    systemd-tpm2-setup-early.service systemd-pcrphase.service systemd-journal-catalog-update.service \
    systemd-update-done.service systemd-modules-load.service systemd-sysctl.service systemd-sysusers.service \
    kmod-static-nodes.service proc-sys-fs-binfmt_misc.automount modprobe@.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# The initramfs: a static busybox, the disk's driver and the network card's, in the order in which they are loaded.
mv "$root/usr/bin/busybox" "$ram/bin/busybox"
while read -r file; do cp "$root/$modules/$file" "$ram/"; done <"$ram/modules"
sed -i 's|.*/|insmod /|' "$ram/modules"
cp "$here/init" "$ram/init"
chmod 755 "$ram/init"
python3 "$here/newc.py" "$ram" >"$out/initramfs"

# Without a journal and orphan file: the disk is thrown away after each run.
size=$(du --summarize --block-size=1M "$root" | cut -f 1)
mke2fs -q -t ext4 -O '^orphan_file,^has_journal' -L root -d "$root" "$out/disk" "$((size + 320))M"
rm -rf "$root" "$ram" "$out/kernel"
