# SPDX-License-Identifier: Apache-2.0
"""What Linux prints about its VT-d tables: drivers/iommu/intel/debugfs.c of Linux 7.3. An unknown line is an error."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from iommuctl.model import Rid, Slot
from tests.linux.architecture import UnknownLine

_REGISTER = re.compile(r"(\w+) *\t0x([0-9a-f]+)\t\t0x([0-9a-f]{16})")
_WORD = r"0x([0-9a-f]{16})"
_DEVICE = re.compile(
    rf"([0-9a-f]{{2}}:[0-9a-f]{{2}}\.[0-7])\t{_WORD}:{_WORD}\t{_WORD}:{_WORD}\t(-?\d+) *\t{_WORD}:{_WORD}:{_WORD}"
)
_DOMAIN = re.compile(r"Device ([0-9a-f:.]+) (?:with pasid ([0-9a-f]+) )?@0x([0-9a-f]+)")
_PAGE = re.compile(r"0x([0-9a-f]{13}) \|((?:\t0x[0-9a-f]{16}){3,5})")
_HOST_ADDRESS_WIDTH = 36
"""Where the DMAR table has the number of host address bits, less one: VT-d 4.1 section 8.1."""
_USED = ("CAP", "ECAP", "RTADDR")
"""The registers that say where tables are and how they are read; others change at any time."""


class Device(NamedTuple):
    """A line of dmar_translation_struct, each structure as words of 64 bits, lowest first.

    Of a context entry in scalable mode these are two of four words, of a PASID table entry three of eight. In legacy
    mode there is no PASID and no PASID table entry.
    """

    rid: Rid
    root: tuple[int, int]
    context: tuple[int, int]
    pasid: int | None
    entry: tuple[int, int, int]


class Page(NamedTuple):
    """A page: its first address, and the entries that lead to it, from level 5 down to level 1. Those of levels that
    are not there are 0."""

    iova: int
    words: tuple[int, int, int, int, int]


class Domain(NamedTuple):
    """One domain_translation_struct: the top table, and every page of it."""

    root: int
    pages: tuple[Page, ...]


class Dump(NamedTuple):
    """Everything, by the names that the kernel uses."""

    registers: dict[str, int]
    root: int
    devices: tuple[Device, ...]
    domains: dict[Slot, Domain]
    """None for a device or PASID whose file is empty, as it is without page tables."""
    haw: int
    """The host address width, from the ACPI table DMAR."""


def parse(folder: Path) -> Dump:
    """Read a copy of the kernel's folder iommu/intel and of DMAR. Raises UnknownLine."""
    registers = parse_registers((folder / "iommu_regset").read_text())
    root, devices = parse_devices((folder / "dmar_translation_struct").read_text())
    domains = {}
    for path in sorted(folder.rglob("domain_translation_struct")):
        rid, *pasid = path.parent.relative_to(folder).parts
        slot = Slot(Rid.parse(rid), int(pasid[0], 16) if pasid else None)
        if (domain := parse_domain(path.read_text(), slot)) is not None:
            domains[slot] = domain
    haw = (folder / "DMAR").read_bytes()[_HOST_ADDRESS_WIDTH] + 1
    return Dump(registers, root, devices, domains, haw)


def parse_registers(text: str) -> dict[str, int]:
    """The registers of `_USED` out of iommu_regset, which must be about one unit. Raises UnknownLine."""
    lines = _lines(text)
    _expect(next(lines), r"IOMMU: dmar\d+ Register Base Address: [0-9a-f]+")
    _expect(next(lines), r"Name\t\t\tOffset\t\tContents")
    found = {}
    for line in lines:
        if line:
            match = _expect(line, _REGISTER)
            found[match[1]] = int(match[3], 16)
    return {name: found[name] for name in _USED}


def parse_devices(text: str) -> tuple[int, tuple[Device, ...]]:
    """The root table's address and the devices of dmar_translation_struct, of one unit. Raises UnknownLine."""
    lines = _lines(text)
    root = int(_expect(next(lines), r"IOMMU dmar\d+: Root Table Address: 0x([0-9a-f]+)")[1], 16)
    _expect(next(lines), r"B\.D\.F\tRoot_entry\t{4}Context_entry\t{4}PASID\tPASID_table_entry")
    return root, tuple(_device(_expect(line, _DEVICE)) for line in lines if line)


def _device(match: re.Match[str]) -> Device:
    high, low, context_high, context_low, *entry = (int(match[group], 16) for group in (2, 3, 4, 5, 7, 8, 9))
    pasid = None if match[6] == "-1" else int(match[6])
    first, second, third = reversed(entry)
    return Device(Rid.parse(match[1]), (low, high), (context_low, context_high), pasid, (first, second, third))


def parse_domain(text: str, slot: Slot) -> Domain | None:
    """A domain_translation_struct, which must be that of `slot`; None for an empty one. Raises UnknownLine."""
    if not text:
        return None
    lines = _lines(text)
    about = _expect(next(lines), _DOMAIN)
    if Rid.parse(about[1]) != slot.rid or int(about[2] or "0", 16) != (slot.pasid or 0):
        raise UnknownLine(f"{about[0]!r} in the file of {slot}")
    _expect(next(lines), r"IOVA_PFN +\tPML5E +\tPML4E +\tPDPE +\tPDE +\tPTE")
    return Domain(int(about[3], 16), tuple(_page(_expect(line, _PAGE)) for line in lines))


def _page(match: re.Match[str]) -> Page:
    words = [int(word, 16) for word in match[2].split()]
    five, four, three, two, one = words + [0] * (5 - len(words))
    return Page(int(match[1], 16) << 12, (five, four, three, two, one))


def _lines(text: str) -> Iterator[str]:
    """The lines of a text that is complete. Raises UnknownLine for one that is not."""
    if not text.endswith("\n") or text.count("\n") < 2:
        raise UnknownLine(f"the text ends too early: {text[-80:]!r}")
    yield from text.splitlines()


def _expect(line: str, pattern: str | re.Pattern[str]) -> re.Match[str]:
    match = re.fullmatch(pattern, line)
    if match is None:
        raise UnknownLine(f"{line!r} is not {re.compile(pattern).pattern!r}")
    return match
