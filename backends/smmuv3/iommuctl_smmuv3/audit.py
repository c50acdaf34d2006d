# SPDX-License-Identifier: Apache-2.0
"""Comparing what the tables in memory say with what the rows say they should."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from iommuctl.audit import audit_domain, some, words
from iommuctl.errors import OutsideMemory
from iommuctl.formats.memory import Memory, read_word
from iommuctl.hookspecs import CheckRequest
from iommuctl.model import Device, Rid, Slot
from iommuctl_smmuv3.cd import L1Cd
from iommuctl_smmuv3.cd_tables import CD_SIZE, CdTable
from iommuctl_smmuv3.streams import uses_stage_1

if TYPE_CHECKING:
    from iommuctl_smmuv3.driver import Driver
    from iommuctl_smmuv3.slots import Slots
    from iommuctl_smmuv3.stream_slots import StreamSlots


def audit(driver: "Driver", slots: "StreamSlots", request: CheckRequest) -> list[str]:
    """Sentences about every difference; of many that are alike, the first."""
    known = {device.rid for device in request.devices}
    strangers = (
        f"{rid} has an STE, but no such device is known"
        for rid, _ in driver.stream_tables.entries()
        if rid not in known
    )
    return [
        *some(_first_level(driver)),
        *(problem for device in request.devices for problem in some(_device(driver, slots, device, request))),
        *some(strangers),
        *(problem for domain in request.domains for problem in audit_domain(driver, driver.memory, domain, request)),
    ]


def _first_level(driver: "Driver") -> Iterator[str]:
    for number, descriptor in driver.stream_tables.descriptors():
        if not driver.stream_tables.is_table(descriptor):
            yield f"the stream table descriptor of bus {number:02x} is {descriptor:#x}"


def _device(driver: "Driver", slots: "StreamSlots", device: Device, request: CheckRequest) -> Iterator[str]:
    rid, stream = device.rid, slots.stream(device.rid)
    found, right = driver.stream_tables.entry(rid), slots.entry(stream)
    if found != right:
        yield f"the STE of {rid} is {words(found)}, not {words(right)}"
        return
    if table := slots.table(rid, stream):
        yield from audit_contexts(slots, table, slots.view(stream), rid, request)


def audit_contexts(slots: "Slots", table: CdTable, memory: Memory, rid: Rid, request: CheckRequest) -> Iterator[str]:
    """Sentences about CDs of a device, and what leads to them, that are not as rows say. `memory` is where they lie."""
    wanted = {
        slot.pasid or 0: occupant
        for slot, occupant in request.slots.items()
        if slot.rid == rid and uses_stage_1(occupant)
    }
    for first, array, count, descriptor in table.arrays():
        try:
            data = memory.read(array, CD_SIZE * count)
            word = read_word(memory, descriptor) if descriptor else None
        except OutsideMemory as error:
            yield f"the CDs of {rid} from PASID {first} on cannot be read: {error.what}"
            continue
        if word is not None and word != (wanted_word := L1Cd.encode(V=1, L2Ptr=array)):
            yield f"the L1CD of {rid} for PASIDs {first}..{first + count - 1} is {word:#x}, not {wanted_word:#x}"
        for number in range(count):
            cd = int.from_bytes(data[number * CD_SIZE : (number + 1) * CD_SIZE], "little")
            occupant = wanted.pop(first + number, None)
            right = slots.context(occupant) if occupant else 0
            if cd != right:
                yield f"the CD of {Slot(rid, first + number or None)} is {words(cd)}, not {words(right)}"
    for occupant in wanted.values():
        yield f"the CD of {occupant.slot} is 0x0, not {words(slots.context(occupant))}"
