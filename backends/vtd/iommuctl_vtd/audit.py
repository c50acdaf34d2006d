# SPDX-License-Identifier: Apache-2.0
"""Comparing what the tables in memory say with what the rows say they should."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from iommuctl.formats import radix
from iommuctl.formats.memory import Memory
from iommuctl.hookspecs import CheckRequest
from iommuctl.model import Device, Domain, Slot
from iommuctl_vtd.context_entry import ScalableContextEntry
from iommuctl_vtd.tables import Tables, context_entry

if TYPE_CHECKING:
    from iommuctl_vtd.driver import Driver
    from iommuctl_vtd.scalable_driver import ScalableDriver

_ENOUGH = 20
"""So many problems of one kind tell what is wrong."""


def audit(driver: "ScalableDriver", tables: Tables, memory: Memory, request: CheckRequest) -> list[str]:
    """Sentences about every difference; of many that are alike, the first."""
    known = {device.rid for device in request.devices}
    strangers = (
        f"{rid} has a context entry, but no such device is known" for rid, _ in tables.contexts() if rid not in known
    )
    return [
        *some(_root(tables)),
        *(problem for device in request.devices for problem in some(_device(driver, tables, device, request))),
        *some(strangers),
        *(problem for domain in request.domains for problem in audit_domain(driver, memory, domain, request)),
    ]


def some(problems: Iterator[str]) -> Iterator[str]:
    last = ""
    for last in islice(problems, _ENOUGH):
        yield last
    if next(problems, None):
        yield f"there are more problems like this one: {last}"


def _root(tables: Tables) -> Iterator[str]:
    for index, half in tables.halves():
        if not tables.is_pointer(half):
            yield f"the root entry of bus {index >> 1:02x}, {'upper' if index & 1 else 'lower'} half, is {half:#x}"


def audit_domain(driver: "Driver", memory: Memory, domain: Domain, request: CheckRequest) -> Iterator[str]:
    fmt, root = driver.domain_format(domain), driver.domain_root(domain)
    for finding in radix.check(fmt, memory, root):
        yield f"{domain.name}: {finding}"
    wanted = set(_merged((m.iova, m.size, m.pa, m.prot) for m in request.mappings[domain.id]))
    found = set(_merged(iter(radix.leaves(fmt, memory, root))))
    yield from some(
        f"{domain.name}: {iova:#x}+{size:#x} -> {pa:#x} {prot} is in "
        + ("the rows but not the tables" if (iova, size, pa, prot) in wanted else "the tables but not the rows")
        for iova, size, pa, prot in sorted(wanted ^ found)
    )


def _merged(ranges: Iterable[tuple[int, int, int, str]]) -> list[tuple[int, int, int, str]]:
    """Ascending ranges with those joined that continue one another."""
    merged: list[tuple[int, int, int, str]] = []
    for iova, size, pa, prot in ranges:
        if merged:
            before_iova, before_size, before_pa, before_prot = merged[-1]
            if (before_iova + before_size, before_pa + before_size, before_prot) == (iova, pa, prot):
                merged[-1] = (before_iova, before_size + size, before_pa, prot)
                continue
        merged.append((iova, size, pa, prot))
    return merged


def _device(driver: "ScalableDriver", tables: Tables, device: Device, request: CheckRequest) -> Iterator[str]:
    rid, entry = device.rid, tables.context(device.rid)
    expected = context_entry(device, ScalableContextEntry.PASIDDIRPTR.get(entry))
    if entry != expected:
        yield f"the context entry of {rid} is {_words(entry)}, not {_words(expected)}"
        return
    for index, pointer in tables.directory(entry):
        if not tables.is_pointer(pointer):
            first = index << 6
            yield f"the PASID directory entry of {rid} for PASIDs {first}..{first | 63} is {pointer:#x}"
    wanted = {slot.pasid or 0: occupant for slot, occupant in request.slots.items() if slot.rid == rid}
    for pasid, found in tables.pasids(entry):
        occupant = wanted.pop(pasid, None)
        right = driver.pasid_entry(occupant) if occupant else 0
        if found != right:
            yield f"the PASID entry of {Slot(rid, pasid or None)} is {_words(found)}, not {_words(right)}"
    for occupant in wanted.values():
        yield f"the PASID entry of {occupant.slot} is 0x0, not {_words(driver.pasid_entry(occupant))}"


def _words(entry: int) -> str:
    """A structure as `table decode` takes it: 64-bit words, lowest first, without the zero ones at the end."""
    words = []
    while entry:
        words.append(f"{entry & (1 << 64) - 1:#x}")
        entry >>= 64
    return " ".join(words) or "0x0"
