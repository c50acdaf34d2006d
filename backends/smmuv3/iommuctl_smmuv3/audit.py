# SPDX-License-Identifier: Apache-2.0
"""Comparing what the tables in memory say with what the rows say they should."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from iommuctl.errors import OutsideMemory
from iommuctl.formats import radix
from iommuctl.formats.memory import read_word
from iommuctl.hookspecs import CheckRequest
from iommuctl.model import Device, Domain, Slot
from iommuctl_smmuv3.cd import L1Cd
from iommuctl_smmuv3.cd_tables import CD_SIZE
from iommuctl_smmuv3.streams import uses_stage_1

if TYPE_CHECKING:
    from iommuctl_smmuv3.driver import Driver
    from iommuctl_smmuv3.slots import Slots

_ENOUGH = 20
"""So many problems of one kind tell what is wrong."""


def audit(driver: "Driver", slots: "Slots", request: CheckRequest) -> list[str]:
    """Sentences about every difference; of many that are alike, the first."""
    known = {device.rid for device in request.devices}
    strangers = (
        f"{rid} has an STE, but no such device is known"
        for rid, _ in driver.stream_tables.entries()
        if rid not in known
    )
    return [
        *_some(_first_level(driver)),
        *(problem for device in request.devices for problem in _some(_device(driver, slots, device, request))),
        *_some(strangers),
        *(problem for domain in request.domains for problem in _domain(driver, domain, request)),
    ]


def _some(problems: Iterator[str]) -> Iterator[str]:
    last = ""
    for last in islice(problems, _ENOUGH):
        yield last
    if next(problems, None):
        yield f"there are more problems like this one: {last}"


def _first_level(driver: "Driver") -> Iterator[str]:
    for number, descriptor in driver.stream_tables.descriptors():
        if not driver.stream_tables.is_table(descriptor):
            yield f"the stream table descriptor of bus {number:02x} is {descriptor:#x}"


def _device(driver: "Driver", slots: "Slots", device: Device, request: CheckRequest) -> Iterator[str]:
    rid, stream = device.rid, slots.stream(device.rid)
    found, right = driver.stream_tables.entry(rid), slots.entry(stream)
    if found != right:
        yield f"the STE of {rid} is {_words(found)}, not {_words(right)}"
        return
    wanted = {
        slot.pasid or 0: occupant
        for slot, occupant in request.slots.items()
        if slot.rid == rid and uses_stage_1(occupant)
    }
    table = slots.table(rid, stream)
    memory = slots.view(stream)
    for first, array, count, descriptor in table.arrays() if table else ():
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
                yield f"the CD of {Slot(rid, first + number or None)} is {_words(cd)}, not {_words(right)}"
    for occupant in wanted.values():
        yield f"the CD of {occupant.slot} is 0x0, not {_words(slots.context(occupant))}"


def _domain(driver: "Driver", domain: Domain, request: CheckRequest) -> Iterator[str]:
    fmt, root = driver.domain_format(domain), driver.domain_root(domain)
    for finding in radix.check(fmt, driver.memory, root):
        yield f"{domain.name}: {finding}"
    wanted = set(_merged((m.iova, m.size, m.pa, m.prot) for m in request.mappings[domain.id]))
    found = set(_merged(iter(radix.leaves(fmt, driver.memory, root))))
    yield from _some(
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


def _words(entry: int) -> str:
    """A structure as `table decode` takes it: 64-bit words, lowest first, without the zero ones at the end."""
    words = []
    while entry:
        words.append(f"{entry & (1 << 64) - 1:#x}")
        entry >>= 64
    return " ".join(words) or "0x0"
