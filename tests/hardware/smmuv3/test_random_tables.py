# SPDX-License-Identifier: Apache-2.0
"""Random tables of a guest's own: each DMA goes where `translate` says, byte for byte, or not at all.

The tables are made as those of the comparison with QEMU's bare unit, by hand. Here they nest on the kernel's stage 2,
in a CD table that a guest owns, which changes from one to the next. As a DMA takes its time, two guests take turns,
with equal addresses and ASIDs.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from iommuctl import Iommu
from iommuctl.formats.memory import FileMemory
from iommuctl.model import Access, Translation
from iommuctl_smmuv3.cd import Cd
from tests.differential.plans import Range
from tests.differential.smmuv3.build import Pool, context
from tests.differential.smmuv3.plans import Stage1, Tree
from tests.hardware.conftest import lacking
from tests.hardware.edu import Edu
from tests.hardware.held import held
from tests.hardware.smmuv3.nest import GIB, MIB, OTHER, RID, huge_pages

EXAMPLES = 500
RAM = {16 * MIB: 8 * MIB, 96 * MIB: MIB, 512 * MIB: MIB, GIB: MIB, 1 << 43: MIB}
"""GPAs of what DMAs are for, and how much there is."""
TABLES, ROOM = 48 * MIB, 2 * MIB
"""The GPA of the CD and of its tables, which are in a memory of their own, and how much that is."""
REPORT = 47 * MIB
"""A GPA, and the same input address: where a device takes what it writes from, and leaves what it has read."""
REPORT_SIZE = 1 << 16
REPORT_AT = sum(RAM.values())
"""Where that is in the guest's memory: after RAM."""
ASID = 7
SIZE, HALF = 16, 2048
"""Of a request, and of the part of a device's buffer that has what it writes; the other has what it has read."""
_ACCESSES: tuple[Access, ...] = ("w", "r")
"""In this order: what a read brings into QEMU's TLB forgets that a table forbids writes (APTable)."""
_BLOCKS = {1 << 12: (1 << 21, 1 << 30), 1 << 14: (1 << 25,), 1 << 16: (1 << 29,)}
"""Granules, and their blocks."""
_NOWHERE = 0x9000_0000
"""A GPA of which the parent has nothing."""
_FAR = 1 << 40
_END = object()


class Request(NamedTuple):
    """One DMA."""

    access: Access
    iova: int


class Example(NamedTuple):
    """A CD with its tables, and what a device asks for then."""

    stage: Stage1
    requests: tuple[Request, ...]


def example(random: Random) -> Example:
    """A CD with tables of lower addresses, of upper ones, or both."""
    lower = _tree(random, upper=False) if random.randrange(5) else None
    upper = _tree(random, upper=True) if lower is None or random.randrange(2) else None
    fields = (("R", 0), ("AFFD", 1), ("IPS", random.choice((0, 1, 2, 3, 5))), ("HAD0", 1), ("HAD1", 1), ("PAN", 1))
    values = dict(random.sample(fields, random.randrange(4)))
    if random.randrange(4) == 0:
        # Both: QEMU lets TBI0 say for upper addresses, too.
        values |= {"TBI0": 1, "TBI1": 1}
    ranges = [one for tree in (lower, upper) if tree for one in tree.ranges]
    requests = tuple(Request(access, _aim(random, random.choice(ranges))) for access in _ACCESSES)
    return Example(Stage1(lower, upper, tuple(values.items())), requests)


def _tree(random: Random, *, upper: bool) -> Tree:
    granule, bits = random.choice(list(_BLOCKS)), random.choice((25, 30, 32, 36, 39, 40, 42, 44, 47, 48))
    areas = [area for area in (0, 1 << 24, 5 << 28, 1 << 31, 3 << 33, 5 << 37, 1 << 43, 3 << 46) if area < 1 << bits]
    first, blocks = (1 << 64) - (1 << bits) if upper else 0, random.randrange(2) == 1
    chosen = random.sample(areas, random.randint(1, min(3, len(areas))))
    return Tree(granule, bits, blocks, tuple(_range(random, granule, first + area, blocks=blocks) for area in chosen))


def _range(random: Random, granule: int, iova: int, *, blocks: bool) -> Range:
    """Some pages, or a block and perhaps a page behind it. Always with u: for QEMU all requests are privileged."""
    size, align = granule * random.choice((1, 1, 2, 5)), granule
    fitting = [block for block in _BLOCKS[granule] if blocks and iova % block == 0]
    if fitting and random.randrange(2):
        align = random.choice(fitting)
        size = align + random.choice((0, granule))
    gpa = random.choice((*RAM, *RAM, _NOWHERE)) & -align
    return Range(iova, size, gpa, random.choice(("rwu", "rwu", "rwu", "ru", "rwut", "rwun")))


def _aim(random: Random, mapping: Range) -> int:
    """Mostly an address in it: in its first or last page, in its midst, and where small memory may be."""
    pages = mapping.size >> 12
    page = random.choice((0, pages - 1, pages // 2, min(7, pages - 1), min(0xFF, pages - 1)))
    iova = mapping.iova + (page << 12)
    miss = random.randrange(12)
    if miss == 0:
        iova = mapping.iova + mapping.size
    elif miss == 1:
        iova |= 1 << random.choice((39, 43, 44, 47, 48, 52, 55, 59, 63))
    return (iova & (1 << 64) - 1) + random.choice((0, 4, 8, 0x123, 0xFD0, random.randrange(0xFE0)))


class Asked(NamedTuple):
    """A request that was carried out, what was foretold of it, and the bytes that it is about."""

    example: Example
    request: Request
    told: Translation
    data: bytes


class Lane:
    """A guest with one device, whose requests follow each other."""

    def __init__(self, iommu: Iommu, parent: str, rid: str) -> None:
        """Make the guest."""
        self._iommu, self._parent, self._rid = iommu, parent, rid
        iommu.device_bind(rid)
        iommu.domain_create(parent, nest_parent=True)
        self.ram = iommu.memory_create(f"{parent}-ram", REPORT_AT + REPORT_SIZE)
        self.tables = iommu.memory_create(f"{parent}-tables", ROOM)
        offset = 0
        for gpa, size in (*RAM.items(), (REPORT, REPORT_SIZE)):
            iommu.map(parent, iova=gpa, size=size, memory=self.ram.name, offset=offset)
            offset += size
        iommu.map(parent, iova=TABLES, size=ROOM, memory=self.tables.name)
        iommu.attach(parent, rid)
        iommu.bind_pgtable(parent, rid, addr=TABLES, format="cd-table")

    def start(self, edu: Edu, ram: int, tables: int) -> None:
        """`ram` and `tables` are the files of its memories."""
        self._edu, self._ram, self._tables = edu, ram, FileMemory(tables, TABLES, ROOM)
        # After the CD.
        pool = Pool((TABLES + 4096, ROOM))
        pages = (Range(REPORT, REPORT_SIZE, REPORT, "rwu"), Range(_FAR, 4096, REPORT, "rwu"))
        self._report = context(self._tables, pool, Stage1(Tree(4096, 48, False, pages), None, ()), ASID)
        self._first = self._end = pool.take(1 << 16)
        self._random = Random(self._rid)
        self._tokens = b""
        self._read: list[Asked] = []
        self._written = 0
        self.outcomes: Counter[str] = Counter()
        self.refused: list[Asked] = []
        """Writes that must have gone nowhere."""

    def reaches(self) -> bool:
        """Whether the device has more than 28 address bits."""
        self._enter(self._report)
        os.pwrite(self._ram, b"far", REPORT_AT)
        self._edu.load(_FAR, 3)
        self._edu.store(REPORT + 8, 3)
        return os.pread(self._ram, 3, REPORT_AT + 8) == b"far"

    def run(self, todo: Sequence[Example]) -> Iterator[None]:
        """Carry examples out; yields while a DMA takes its time."""
        for first in range(0, len(todo), HALF // SIZE):
            yield from self._begin()
            for example in todo[first : first + HALF // SIZE]:
                yield from self._one(example)
            yield from self._finish()

    def _begin(self) -> Iterator[None]:
        """Give the device new bytes to write, of which no part occurs twice."""
        self._enter(self._report)
        self._tokens = self._random.randbytes(HALF)
        os.pwrite(self._ram, self._tokens, REPORT_AT)
        self._edu.begin_load(REPORT, HALF, 0)
        yield
        self._edu.wait()
        self._read, self._written = [], 0

    def _one(self, example: Example) -> Iterator[None]:
        self._tables.write(self._first, bytes(self._end - self._first))
        pool = Pool((self._first, TABLES + ROOM - self._first))
        self._enter(context(self._tables, pool, example.stage, ASID))
        self._end = pool.take(1)
        for request in example.requests:
            told = self._iommu.translate(self._rid, request.iova, access=request.access)
            self.outcomes[told.fault.name if told.fault else f"landed {request.access}"] += 1
            place = None if told.pa is None else told.pa - self.ram.pa
            assert place is None or 0 <= place < REPORT_AT, f"{example} reaches what is not for it"
            yield from (self._load if request.access == "r" else self._store)(example, request, told, place)

    def _load(self, example: Example, request: Request, told: Translation, place: int | None) -> Iterator[None]:
        data = bytes(SIZE)
        if place is not None:
            data = self._random.randbytes(SIZE)
            os.pwrite(self._ram, data, place)
        self._edu.begin_load(request.iova, SIZE, HALF + SIZE * len(self._read))
        yield
        self._edu.wait()
        self._read.append(Asked(example, request, told, data))

    def _store(self, example: Example, request: Request, told: Translation, place: int | None) -> Iterator[None]:
        at = SIZE * self._written
        self._written += 1
        asked = Asked(example, request, told, self._tokens[at : at + SIZE])
        self._edu.begin_store(request.iova, SIZE, at)
        yield
        self._edu.wait()
        if place is None:
            self.refused.append(asked)
        else:
            assert os.pread(self._ram, SIZE, place) == asked.data, str(asked)

    def _finish(self) -> Iterator[None]:
        """Have the device tell what it has read."""
        self._enter(self._report)
        self._edu.begin_store(REPORT, HALF, HALF)
        yield
        self._edu.wait()
        found = os.pread(self._ram, HALF, REPORT_AT)
        for number, asked in enumerate(self._read):
            assert found[SIZE * number : SIZE * (number + 1)] == asked.data, str(asked)

    def _enter(self, cd: int) -> None:
        self._tables.write(TABLES, Cd.to_bytes(cd))
        self._iommu.invalidate(self._parent, device=self._rid)


@pytest.fixture
def lanes(state: Path) -> Iterator[list[Lane]]:
    with huge_pages(), Iommu(state, backend="smmuv3") as iommu:
        made = [Lane(iommu, f"vm{number}", rid) for number, rid in enumerate((RID, OTHER))]
        with held(state) as machine:
            for rid, lane in zip((RID, OTHER), made, strict=True):
                lane.start(machine.edu(rid), machine.memory(lane.ram.id), machine.memory(lane.tables.id))
            if not all(lane.reaches() for lane in made):
                lacking("edu has 28 address bits here, and 64 with QEMU's -global edu.dma_mask=0xffffffffffffffff")
            yield made


def test_each_dma_goes_where_it_is_said_to_go(lanes: list[Lane], state: Path) -> None:
    random = Random(EXAMPLES)
    everything = [example(random) for _ in range(EXAMPLES)]
    running = [lane.run(everything[number :: len(lanes)]) for number, lane in enumerate(lanes)]
    while running:
        running = [one for one in running if next(one, _END) is not _END]
    outcomes = sum((lane.outcomes for lane in lanes), Counter[str]())
    assert sum(outcomes.values()) == 2 * EXAMPLES
    assert min(outcomes["landed r"], outcomes["landed w"]) > EXAMPLES // 10, outcomes
    assert {"F_TRANSLATION", "F_ADDR_SIZE", "F_ACCESS", "F_PERMISSION", "NO_MAPPING"} <= {*outcomes}, outcomes
    with held(state) as machine:
        files = [(one.id, size) for lane in lanes for one, size in ((lane.ram, REPORT_AT), (lane.tables, ROOM))]
        written = b"".join(
            page
            for number, size in files
            for at in range(0, size, 4096)
            if (page := machine.read(number, at, 4096)).strip(b"\0")
        )
    refused = [asked for lane in lanes for asked in lane.refused]
    landed = [asked for asked in refused if asked.data in written]
    assert not landed, "\n".join(map(str, landed))
