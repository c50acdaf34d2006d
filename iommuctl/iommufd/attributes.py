# SPDX-License-Identifier: Apache-2.0
"""Reading single attributes, links and folders of /sys: bounded, and None or nothing where it cannot be done."""

import os
from itertools import islice
from typing import Final, NamedTuple

from iommuctl.errors import BadRid
from iommuctl.iommufd.pci_config import CONVENTIONAL_SIZE, EXTENDED_SIZE, Extended, extended
from iommuctl.model import Rid

LONGEST_TEXT: Final = 64 << 10
"""The most that sysfs gives for an attribute is a page, which has 64 KiB at most."""
MOST_ENTRIES: Final = 1 << 16


class Reserved(NamedTuple):
    """A range of IOVAs that the platform keeps, with its last byte; `type` is direct, reserved, msi …"""

    first: int
    last: int
    type: str


def _read(path: str, limit: int) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(limit)
    except OSError:
        return None


def text_of(*parts: str) -> str | None:
    """The text of an attribute without the newline at its end; None where it cannot be read."""
    found = _read(os.path.join(*parts), LONGEST_TEXT)
    return None if found is None else found.decode("ascii", "replace").strip()


def extended_of(path: str) -> Extended | None:
    """Without root the kernel gives the first 64 bytes only, whatever the size."""
    config = _read(os.path.join(path, "config"), EXTENDED_SIZE)
    return extended(config) if config is not None and len(config) in (CONVENTIONAL_SIZE, EXTENDED_SIZE) else None


def number_of(*parts: str) -> int:
    """A number such as 0x8086; 0 where there is none."""
    try:
        return int((text_of(*parts) or "")[:18], 16)
    except ValueError:
        return 0


def decimal(text: str | None) -> int | None:
    """A decimal number, or None."""
    return int(text) if text and len(text) <= 10 and text.isascii() and text.isdigit() else None


def link_of(*parts: str) -> str | None:
    """The last part of what a symbolic link points to."""
    try:
        return os.path.basename(os.readlink(os.path.join(*parts))) or None
    except OSError:
        return None


def override_of(path: str) -> str | None:
    """The kernel shows a null pointer as `(null)`."""
    text = text_of(path, "driver_override")
    return None if text in ("", "(null)") else text


def entries_of(*parts: str) -> list[str]:
    """The names in a folder, sorted; nothing where there is none."""
    try:
        with os.scandir(os.path.join(*parts)) as entries:
            return sorted(entry.name for entry in islice(entries, MOST_ENTRIES))
    except OSError:
        return []


def rids_among(names: list[str]) -> list[Rid]:
    """Those of the names that are RIDs; a group may have devices that are not PCI."""
    rids = []
    for name in names:
        try:
            rids.append(Rid.parse(name))
        except BadRid:
            continue
    return rids


def reserved_ranges(text: str) -> list[Reserved]:
    """The lines `first last type` of a group's reserved_regions; others are left out."""
    ranges = []
    for line in text.splitlines():
        words = line.split()
        try:
            ranges.append(Reserved(int(words[0][:18], 16), int(words[1][:18], 16), words[2]))
        except (IndexError, ValueError):
            continue
    return ranges
