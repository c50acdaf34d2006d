# SPDX-License-Identifier: Apache-2.0
"""Memory that holds anything at all: the unit answers every request, in a bounded number of reads."""

import struct
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.architecture import Answer, PageRequest
from iommuctl.errors import IommuError
from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE
from iommuctl.model import Access, RequestKind, Rid, Slot
from iommuctl_vtd.fault_record import REASONS
from iommuctl_vtd.first_stage import FirstStageFormat
from iommuctl_vtd.second_stage import SecondStageFormat
from tests.machine import SparseMemory
from tests.vtd.fault_cases import CAP, ECAP
from tests.vtd.handmade import (
    BASE,
    BY_RID,
    CONTEXT,
    FIRST,
    IN_1G,
    IN_2M,
    NESTED,
    NOWHERE,
    RAM,
    RTADDR,
    SECOND,
    THROUGH,
    UPPER_HALF,
    WORDS,
)
from tests.vtd.machine import QIE, SRTP, TE, Machine
from tests.vtd.test_queue import RING, WIDE

PAGES = 8
SEEDS = st.integers(0, 1 << 32)
LOW_BITS = [0x1, 0x3, 0x9, 0xE09, 0x27, 0x67, 0x83, 0xE7, 0x89, 0x49, 0xC9, 0x4D, 0x2C9, 0x109, 0x80, 0x7, 0]
FIVE_LEVELS_AND_ALL = 0x95
READS = 4 + 5 * 6 + 5 + 5 * 5
"""To the PASID entry; five levels, each found by five; the page; five times to where bits are set."""
FAILED_UPDATES = {0x7D, 0x91}
"""What only a request comes to, as a walk writes nothing."""
SLOTS = [BY_RID, FIRST, NESTED, SECOND, THROUGH]
ADDRESSES = [BASE, BASE, BASE + 0x4000, IN_2M, IN_1G, UPPER_HALF, 0, 1 << 48]


class CountingMemory(SparseMemory):
    """Memory that counts how often it is read."""

    reads = 0

    def read(self, address: int, size: int) -> bytes:
        self.reads += 1
        return super().read(address, size)


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


def kind(random: Random) -> RequestKind:
    return random.choice(["untranslated", "untranslated", "translation", "translated"])


def ask(machine: Machine, random: Random, where: Slot | None = None, iova: int | None = None) -> Answer | None:
    """Any request; by itself, and to memory alone. The answer, or None for an interrupt."""
    where, iova = where or slot(random), address(random) if iova is None else iova
    access: Access = random.choice(["r", "w", "x"])
    privileged, how = random.random() < 0.3, kind(random)
    if how == "untranslated" and where.pasid is None and 0xFEE00000 <= iova <= 0xFEEFFFFF:
        return None
    walked = machine.unit.walk(where, iova, access, privileged=privileged, kind=how)
    answer = machine.unit.request(where, iova, access, privileged=privileged, kind=how)
    for told in (walked, answer.translation):
        assert len(told.steps) <= READS
        if told.fault:
            assert told.fault.code in REASONS
            assert (told.pa, told.prot) == (None, None)
        else:
            assert told.pa is not None
            assert told.page_size in (1 << 12, 1 << 21, 1 << 30)
            assert ("w" if access == "w" else "r") in (told.prot or "")
            assert how != "translation" or access == "w" or told.prot == "r"
    fault = answer.translation.fault
    if not answer.recalled and not (fault and fault.code in FAILED_UPDATES):
        assert (answer.hit, answer.translation) == (False, walked)
    assert len(machine.records()) <= 8
    assert len([*machine.unit.cached_tables()]) <= 4 * sum(machine.unit.caches().values()) + 64
    return answer


@settings(deadline=None, max_examples=100)
@given(SEEDS)
def test_requests(seed: int) -> None:
    """Random bytes as every structure, with caches that fill up, in memory that is changed between requests."""
    random = Random(seed)
    machine = hostile(random)
    for _ in range(8):
        ask(machine, random)
        if random.random() < 0.3:
            machine.memory.put({random.randrange(PAGES * 512) * 8: word(random) for _ in range(50)})


@settings(deadline=None, max_examples=60)
@given(SEEDS)
def test_bent_tables(seed: int) -> None:
    """Bits are flipped in good tables that caches have been filled from, in either mode, also under an FPD bit."""
    random = Random(seed)
    memory = CountingMemory(RAM)
    legacy = {0x2010: random.choice([0x10001, 0x10005, 9]), 0x2018: 0x4202}
    memory.put(WORDS | legacy | {CONTEXT: 0x301D})
    machine = Machine(memory, cap=CAP & ~random.choice([0, 1 << 63]))
    machine.switch_on(random.choice([RTADDR, RTADDR, 0x1000]))
    for _ in range(12):
        memory.reads = 0
        ask(machine, random, random.choice(SLOTS), random.choice(ADDRESSES) + random.randrange(8) * 0x1000)
        # The walk, the request, the words that are updated; and once more where the IOTLB was not enough.
        assert memory.reads <= 4 * READS
        if random.random() < 0.5:
            place = random.choice([*WORDS, *legacy]) + random.choice([0, 0, 0, 8])
            memory.put({place: memory.word(place) ^ 1 << random.randrange(64)})
        if random.random() < 0.1:
            memory.read_only = (random.randrange(0x30) * PAGE, PAGE)
        if random.random() < 0.15:
            machine.switch_on(random.choice([RTADDR, 0x1000, 0x1800]))


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


def descriptor(random: Random) -> list[int]:
    """Of any type, mostly without reserved bits, or garbage."""
    if random.random() < 0.05:
        return [random.getrandbits(64) for _ in range(4)]
    kind = random.choice([*range(1, 10), random.randrange(16)])
    ids = random.choice([0x42, 7, 0x301]) << 16 | random.choice([0x301, 0x41, 0]) << 32
    bits = random.choice([0, 0x10, 0x20, 0x30]) | (ids if random.random() < 0.8 else random.getrandbits(52) & ~0xFFFF)
    # Where a wait writes its status may be anywhere, the ring included.
    place = random.randrange(16) << 12 | random.choice([0, 0, 9, 63, 0x40, 0x800, 1])
    return [kind | bits, place, 0, 0]


ENUMERATED: dict[str, list[int]] = {
    "IQA": [RING | WIDE, RING | WIDE | 1, RING | WIDE | 7, RING, RING | 7, NOWHERE, NOWHERE | WIDE, 0, (1 << 64) - 1],
    "RTADDR": [RTADDR, RTADDR, 0x1000, 0x1800, 0x1C00],
    "GCMD": [QIE | TE, QIE | TE | SRTP, TE, 0, QIE],
    "FSTS": [0x10, 0x20, 0x40, 0xFFFFFFFF, 0],
    "ICS": [0, 1],
    "PQA": [RING, RING | 7, 0x3000, NOWHERE, (1 << 64) - 1],
    "PQH": [0, 32, 33, 1 << 18, (1 << 64) - 1],
    "PQT": [0, 0xFE0, 0x1001, (1 << 64) - 1],
    "PRS": [0, 1, 2, 3],
}
"""Values of registers that mean something."""


def poke(machine: Machine, random: Random) -> None:
    """Write any value to a register that software writes."""
    name = random.choice([*ENUMERATED, *["IQT"] * 6])
    if random.random() < 0.1:
        value = random.getrandbits(random.choice([12, 20, 32, 64]))
    elif name == "IQT":
        value = random.randrange(0x200) * 16
    else:
        value = random.choice(ENUMERATED[name])
    machine.unit.write_register(name, value)


@settings(deadline=None, max_examples=60)
@given(SEEDS)
def test_queues(seed: int) -> None:
    """Any descriptors, any values of any register, devices that answer as they please: it stops or goes on."""
    random = Random(seed)
    memory = CountingMemory(RAM)
    memory.put(WORDS)
    for offset in range(0, 0x2000, 16):
        words = descriptor(random)
        memory.put({RING + offset + 8 * number: word for number, word in enumerate(words)})
    # With and without ADMS and ESRTPS.
    machine = Machine(memory, cap=CAP & ~random.choice([0, 1 << 63]), ecap=ECAP | random.choice([0, 1 << 52]))
    machine.bus.completions = {source: random.choice(["done", "timeout", "invalid"]) for source in (0x301, 0, 0x41)}
    machine.switch_on(random.choice([RTADDR, 0x1000]))
    machine.unit.write_register("IQA", RING | random.choice([WIDE, WIDE | 1, 0]))
    machine.unit.write_register("GCMD", QIE | TE)
    for _ in range(20):
        memory.reads = 0
        poke(machine, random)
        unit = machine.unit
        # No more than the largest queue holds.
        assert memory.reads <= 1 << 15
        assert unit.read_register("IQH") < 1 << 19
        stopped, info = unit.read_register("FSTS") >> 4 & 1, unit.read_register("IQERCD") & 0xF
        assert info in range(8)
        assert info or not stopped
        ask(machine, random)
        flags = [random.random() < 0.5 for _ in range(5)]
        iova, group = random.getrandbits(64), random.getrandbits(9)
        unit.page_request(PageRequest(slot(random), iova, flags[0], flags[1], group, *flags[2:]))
        assert unit.read_register("PQT") % 32 == unit.read_register("PQT") >> 19 == 0


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
