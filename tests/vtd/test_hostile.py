# SPDX-License-Identifier: Apache-2.0
"""Memory that holds anything at all: the unit answers every request, in a bounded number of reads."""

import struct
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.errors import IommuError
from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE
from iommuctl.model import Access, Rid, Slot
from iommuctl_vtd.fault_record import REASONS
from iommuctl_vtd.first_stage import FirstStageFormat
from iommuctl_vtd.second_stage import SecondStageFormat
from tests.vtd.handmade import CONTEXT, RTADDR, WORDS
from tests.vtd.machine import QIE, TE, Machine, SparseMemory

PAGES = 8
SEEDS = st.integers(0, 1 << 32)
LOW_BITS = [0x1, 0x3, 0x9, 0xE09, 0x27, 0x67, 0x83, 0xE7, 0x89, 0x49, 0xC9, 0x4D, 0x2C9, 0x109, 0x80, 0x7, 0]
FIVE_LEVELS_AND_ALL = 0x95
READS = 4 + 5 * 6 + 5 + 5 * 5
"""To the PASID entry; five levels, each found by five; the page; five times to where bits are set."""


def word(random: Random) -> int:
    """Nothing, a pointer to one of few pages with plausible flags, or garbage."""
    kind = random.random()
    if kind < 0.1:
        return 0
    if kind < 0.95:
        return random.randrange(PAGES + 1) * PAGE | random.choice(LOW_BITS)
    return random.getrandbits(64)


def fill(memory: SparseMemory, random: Random) -> None:
    count = PAGES * PAGE // 8
    memory.write(0, struct.pack(f"<{count}Q", *(word(random) for _ in range(count))))


def hostile(random: Random) -> Machine:
    memory = SparseMemory((0, PAGES * PAGE))
    fill(memory, random)
    if random.random() < 0.9:
        # Good as far as a PASID entry whose first two words are good, so that the walk gets somewhere.
        kind = random.choice([0x49, 0x89, 0xC9, 0x289, 0x2C9, 0x8D, 0xCD, 0x85, 0xC5, 0x109])
        tables = {address: value for address, value in WORDS.items() if address < 0x4000}
        tables |= dict.fromkeys((CONTEXT + 8, CONTEXT + 16, CONTEXT + 24), 0)
        entry = {0x5000 + 8 * number: 0 for number in range(3, 8)}
        entry[0x5000] = random.randrange(PAGES) * PAGE | kind
        entry[0x5008] = random.choice([0x800007, 7])
        entry[0x5010] = random.randrange(PAGES) * PAGE | random.randrange(2) * FIVE_LEVELS_AND_ALL
        memory.put(tables | entry)
    machine = Machine(memory, haw=random.choice([32, 46, 48, 52]))
    machine.switch_on(RTADDR if random.random() < 0.9 else random.getrandbits(16))
    return machine


def slot(random: Random) -> Slot:
    rid = Rid(0, 3, 0, 1) if random.random() < 0.9 else Rid(0, random.randrange(256), random.randrange(32), 7)
    return Slot(rid, random.choice([None, None, None, 0, 0, 0x41, 0xFFFFF]))


def address(random: Random) -> int:
    return random.choice([random.getrandbits(47), random.getrandbits(64), random.getrandbits(30), 0, (1 << 64) - 1])


@settings(deadline=None, max_examples=150)
@given(SEEDS)
def test_requests(seed: int) -> None:
    random = Random(seed)
    machine = hostile(random)
    for _ in range(8):
        where, iova = slot(random), address(random)
        if where.pasid is None and 0xFEE00000 <= iova <= 0xFEEFFFFF:
            continue
        access: Access = random.choice(["r", "w", "x"])
        privileged = random.random() < 0.3
        walked = machine.unit.walk(where, iova, access, privileged=privileged)
        answer, hit, _ = machine.request(where, iova, access, privileged=privileged)
        assert len(walked.steps) <= READS
        if walked.fault:
            assert walked.fault.code in REASONS
            assert (walked.pa, walked.prot) == (None, None)
        else:
            assert walked.pa is not None
            assert walked.page_size in (1 << 12, 1 << 21, 1 << 30)
            assert walked.prot
            assert ("w" if access == "w" else "r") in walked.prot
        if not hit:
            assert (answer.pa, answer.prot, answer.fault) == (walked.pa, walked.prot, walked.fault)
    assert len(machine.records()) <= 8


def test_the_requests_above_get_everywhere() -> None:
    """Else that test would say little."""
    ends: set[int | None] = set()
    for seed in range(200):
        random = Random(seed)
        machine = hostile(random)
        for _ in range(4):
            where = slot(random)
            fault = machine.unit.walk(where, 0x1000 * random.randrange(1 << 20), "w", privileged=False).fault
            ends.add(fault.code if fault else None)
    assert {None, 0x39, 0x70, 0x71, 0x72, 0x79, 0x7A, 0x78, 0x81, 0x85, 0x59} <= ends


@settings(deadline=None, max_examples=60)
@given(SEEDS)
def test_queues(seed: int) -> None:
    """Descriptors of all types, mostly without reserved bits, and garbage. The unit stops or goes on."""
    random = Random(seed)
    memory = SparseMemory((0, 0x4000))
    ring = 0x1000
    for offset in range(0, 0x2000, 32):
        kind = random.randrange(12)
        memory.put({
            ring + offset: kind | random.choice([0, 0x10, 0x20, 0x30]) | random.getrandbits(16) << 16,
            ring + offset + 8: random.randrange(5) << 12 | random.choice([0, 0, 9, 63]),
        })  # fmt: skip
        if random.random() < 0.05:
            memory.put({ring + offset + 8 * number: random.getrandbits(64) for number in range(4)})
    machine = Machine(memory)
    machine.switch_on(RTADDR)
    machine.unit.write_register("IQA", ring | random.choice([0x800, 0x801, 0x801, 0x807, 0]))
    machine.unit.write_register("GCMD", QIE | TE)
    for _ in range(20):
        machine.unit.write_register(
            "IQT", random.randrange(0x100) * 32 if random.random() < 0.9 else random.getrandbits(20)
        )
        machine.unit.write_register("FSTS", 0x10)
        assert machine.unit.read_register("IQH") % 32 == 0
        assert machine.unit.read_register("IQERCD") & 0xF in range(8)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(
    "fmt", [FirstStageFormat(4), FirstStageFormat(5), SecondStageFormat(39), SecondStageFormat(57)]
)
def test_trees(fmt: radix.Format, seed: int) -> None:
    """Every table is entered once, so there are no more entries than memory has words."""
    random = Random(seed)
    memory = SparseMemory((0, PAGES * PAGE))
    fill(memory, random)
    root = random.randrange(PAGES) * PAGE
    assert sum(1 for _ in radix.entries(fmt, memory, root)) <= PAGES * 512
    assert len(radix.check(fmt, memory, root)) <= 120
    assert sum(run.pages for run in radix.table_runs(fmt, memory, root)) <= PAGES
    with suppress(IommuError):
        radix.unmap_range(fmt, memory, root, 0, 1 << fmt.width)
