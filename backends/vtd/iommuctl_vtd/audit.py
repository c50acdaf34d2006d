# SPDX-License-Identifier: Apache-2.0
"""Comparing what the tables in memory say with what the rows say they should."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from iommuctl.audit import audit_domain, some, words
from iommuctl.formats.memory import Memory
from iommuctl.hookspecs import CheckRequest
from iommuctl.model import Device, Slot
from iommuctl_vtd.context_entry import ScalableContextEntry
from iommuctl_vtd.tables import Tables, context_entry

if TYPE_CHECKING:
    from iommuctl_vtd.scalable_driver import ScalableDriver


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


def _root(tables: Tables) -> Iterator[str]:
    for index, half in tables.halves():
        if not tables.is_pointer(half):
            yield f"the root entry of bus {index >> 1:02x}, {'upper' if index & 1 else 'lower'} half, is {half:#x}"


def _device(driver: "ScalableDriver", tables: Tables, device: Device, request: CheckRequest) -> Iterator[str]:
    rid, entry = device.rid, tables.context(device.rid)
    expected = context_entry(device, ScalableContextEntry.PASIDDIRPTR.get(entry))
    if entry != expected:
        yield f"the context entry of {rid} is {words(entry)}, not {words(expected)}"
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
            yield f"the PASID entry of {Slot(rid, pasid or None)} is {words(found)}, not {words(right)}"
    for occupant in wanted.values():
        yield f"the PASID entry of {occupant.slot} is 0x0, not {words(driver.pasid_entry(occupant))}"
