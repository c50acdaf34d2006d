# SPDX-License-Identifier: Apache-2.0
"""The archive that the kernel unpacks into its first root: cpio in the format "newc" (buffer-format.rst of Linux)."""

from collections.abc import Mapping

_FOLDER, _FILE = 0o040755, 0o100755


def archive(files: Mapping[str, bytes]) -> bytes:
    """An archive of executable files by name, as "bin/busybox", with the folders that they are in."""
    folders = {name.rpartition("/")[0] for name in files} - {""}
    entries = [(name, _FOLDER, b"") for name in sorted(folders)]
    entries += [(name, _FILE, content) for name, content in files.items()]
    whole = b"".join(_entry(number, *entry) for number, entry in enumerate(entries, 1))
    return whole + _entry(0, "TRAILER!!!", 0, b"")


def _entry(number: int, name: str, mode: int, content: bytes) -> bytes:
    path = name.encode() + b"\0"
    # Inode, mode, owner, group, links, time, size, four device numbers, length of the name, checksum.
    numbers = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % value for value in numbers)
    return _padded(head + path) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
