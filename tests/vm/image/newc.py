"""Writes a directory as a cpio archive in the format that the kernel takes for an initramfs: newc.py DIRECTORY."""

import os
import sys


def entry(name, mode, data):
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def main(directory):
    out = sys.stdout.buffer
    for folder, folders, files in os.walk(directory):
        folders.sort()
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            data = b""
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    data = file.read()
            out.write(entry(os.path.relpath(path, directory), os.stat(path).st_mode, data))
    out.write(entry("TRAILER!!!", 0, b""))


main(sys.argv[1])
