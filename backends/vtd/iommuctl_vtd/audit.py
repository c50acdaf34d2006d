# SPDX-License-Identifier: Apache-2.0
"""Comparing what the tables in memory say with what the rows say they should."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from iommuctl.formats import radix
from iommuctl.formats.memory import Memory
from iommuctl.hookspecs import CheckRequest
from iommuctl.model import Device, Domain, Mapping, Slot
from iommuctl_vtd.context_entry import ScalableContextEntry
from iommuctl_vtd.tables import Tables, context_entry

if TYPE_CHECKING:
    from iommuctl_vtd.driver import Driver


def audit(driver: "Driver", tables: Tables, memory: Memory, request: CheckRequest) -> list[str]:
    """Sentences about every difference."""
    problems: list[str] = []
    for domain in request.domains:
        problems += _domain(driver, memory, domain, request.mappings[domain.id])
    for device in request.devices:
        problems += _device(driver, tables, device, request)
    for rid in set(tables.present_devices()) - {device.rid for device in request.devices}:
        problems.append(f"{rid} has a context entry, but no such device is known")
    return problems


def _domain(driver: "Driver", memory: Memory, domain: Domain, mappings: Iterable[Mapping]) -> Iterator[str]:
    fmt, root = driver.domain_format(domain), driver.domain_root(domain)
    for finding in radix.check(fmt, memory, root):
        yield f"{domain.name}: {finding}"
    wanted = _merged((m.iova, m.size, m.pa, m.prot) for m in mappings)
    found = _merged(iter(radix.leaves(fmt, memory, root)))
    for iova, size, pa, prot in sorted(set(wanted) ^ set(found))[:20]:
        where = "the rows but not the tables" if (iova, size, pa, prot) in wanted else "the tables but not the rows"
        yield f"{domain.name}: {iova:#x}+{size:#x} -> {pa:#x} {prot} is in {where}"


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


def _device(driver: "Driver", tables: Tables, device: Device, request: CheckRequest) -> Iterator[str]:
    entry = tables.context(device.rid)
    expected = context_entry(device, ScalableContextEntry.PASIDDIRPTR.get(entry))
    if entry != expected:
        yield f"the context entry of {device.rid} is {entry:#x}, not {expected:#x}"
        return
    wanted = {
        slot.pasid or 0: driver.pasid_entry(occupant)
        for slot, occupant in request.slots.items()
        if slot.rid == device.rid
    }
    found = dict(tables.present_pasids(device.rid))
    for pasid in sorted(wanted.keys() | found.keys()):
        if wanted.get(pasid) != found.get(pasid):
            slot = Slot(device.rid, pasid or None)
            yield (
                f"the PASID entry of {slot} is {found[pasid]:#x}, not {wanted.get(pasid, 0):#x}"
                if pasid in found
                else f"the PASID entry of {slot} is not present"
            )
