# SPDX-License-Identifier: Apache-2.0
"""Memory that holds anything at all: the unit answers every request and every command, in a bounded number of reads."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.architecture import PageRequest
from iommuctl.formats.memory import PAGE
from iommuctl.model import Access, RequestKind, Slot
from iommuctl_smmuv3.refused import REASONS
from iommuctl_smmuv3.register_bank import DEFAULTS
from tests.machine import SparseMemory
from tests.smmuv3.handmade import (
    BASE,
    BOTH,
    BOTH_5,
    HYP,
    IN_1G,
    IN_2M,
    IN_2M_OVER_4K,
    NOWHERE,
    ONE,
    ONE_5,
    RAM,
    THROUGH,
    TWO,
    WORDS,
)
from tests.smmuv3.machine import COMMANDS, Machine, idr0_with, slot
from tests.smmuv3.test_command_queue import LEGAL

SEEDS = st.integers(0, 1 << 32)
PAGES = 16
UNITS: list[dict[str, int]] = [
    {},
    {"idr0": idr0_with(STALL_MODEL=0, TERM_MODEL=0, VMW=1, ATSRECERR=1), "idr3": 0xE94, "idr5": 0x4F6, "mpamidr": 63},
    {"idr0": idr0_with(S2P=0, HTTU=0, STALL_MODEL=2), "idr3": 0, "idr5": 0x70},
    {"idr0": idr0_with(S1P=0, MSI=0, ATS=0, CD2L=0, ST_LEVEL=0)},
]
SLOTS = [ONE, ONE_5, TWO, BOTH, BOTH, BOTH_5, HYP, THROUGH, slot(0), slot(9, 1), slot(0x3F, 0xFFFFF)]
ADDRESSES = [BASE, BASE, IN_2M, IN_2M_OVER_4K, IN_1G, 0x30000, 0x31000, 0x20_0000, 1 << 44, 1 << 48, (1 << 64) - PAGE]
LEVELS = 5
"""From level -1 on."""
READS = 3 + 2 * (2 + LEVELS * (LEVELS + 1) + LEVELS) + 2 * LEVELS
"""An STE and its level 1 descriptor; a CD and its, of stage 2 each; nested walks; the words that are updated."""
LARGEST_QUEUE = 1 << 9
LOW_BITS = [
    0,
    1,
    3,
    3,
    3,
    3,
    3,
    3,
    3,
    3,
    5,
    7,
    9,
    0xB,
    0xD,
    0xF,
    0x1B,
    0x2F,
    0x7FF,
    0x7FD,
    0xF47,
    0xF45,
    0x3FF,
    0xFC7,
    0xF07,
    0xF87,
    0x77F,
]


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
    if kind < 0.9:
        page = random.randrange(PAGES) * PAGE if random.random() < 0.95 else NOWHERE
        return page | random.choice(LOW_BITS)
    return random.getrandbits(64)


def ask(machine: Machine, random: Random, where: Slot, iova: int) -> int:
    """Any request; by itself, and to memory alone. The number of its event, 0 for none."""
    access: Access = random.choice(["r", "w", "x"])
    kind: RequestKind = random.choice(["untranslated", "untranslated", "untranslated", "translation", "translated"])
    privileged = random.random() < 0.3
    walked = machine.unit.walk(where, iova, access, privileged=privileged, kind=kind)
    answer = machine.unit.request(where, iova, access, privileged=privileged, kind=kind)
    for told in (walked, answer.translation):
        assert len(told.steps) <= READS
        if told.fault:
            assert told.fault.code in REASONS
            assert (told.pa, told.prot) == (None, None)
        else:
            assert told.pa is not None
            assert told.page_size
            assert not told.page_size & (told.page_size - 1)
    for address in machine.unit.cached_tables():
        assert 0 <= address < 1 << 56
    return answer.translation.fault.code if answer.translation.fault else 0


@settings(deadline=None, max_examples=60)
@given(SEEDS)
def test_bent_tables(seed: int) -> None:
    """Bits are flipped in good tables that caches have been filled from, on several units."""
    random = Random(seed)
    memory = CountingMemory(RAM)
    memory.put(WORDS)
    machine = Machine(memory, **random.choice(UNITS))
    machine.switch_on(0x1000, 5, cr0=random.choice([0xD, 0x1D]), cr2=random.randrange(16))
    for _ in range(12):
        memory.reads = 0
        where, iova = random.choice(SLOTS), random.choice(ADDRESSES) + random.randrange(16) * PAGE
        ask(machine, random, where, iova % (1 << 64))
        # The walk and the request.
        assert memory.reads <= 2 * READS
        if random.random() < 0.6:
            place = random.choice([*WORDS])
            memory.put({place: memory.word(place) ^ 1 << random.randrange(64)})
        if random.random() < 0.1:
            memory.read_only = (random.randrange(0x30) * PAGE, PAGE)


def garbage(random: Random) -> Machine:
    """Random structures; mostly a good stream table, whose STEs and CDs have some plausible words."""
    memory = SparseMemory((0, 0x10_0000))
    memory.put({8 * number: word(random) for number in range(PAGES * PAGE // 8)})
    if random.random() < 0.9:
        tables = {place: value for place, value in WORDS.items() if place < 0x3200 and place % 64 < 8}
        for place in range(0x1200, 0x13C0, 64):
            tables |= {
                place + 8: random.getrandbits(8) | random.getrandbits(1) << 28,
                place + 24: random.randrange(PAGES) * PAGE,
            }
            tables[place + 16] = random.choice([0x044C_3594_0000_002A, random.getrandbits(64)])
        for place in (0x3000, 0x3140):
            tables |= {place + 8: random.randrange(PAGES) * PAGE, place + 16: random.getrandbits(60)}
        memory.put(tables)
    machine = Machine(memory, **random.choice(UNITS))
    machine.switch_on(
        random.choice([0x1000, 0x1000, random.getrandbits(48)]),
        random.choice([5, 5, 5, 1 << 16 | 6 << 6 | 16, random.getrandbits(18)]),
        cr2=random.randrange(16),
    )
    return machine


@settings(deadline=None, max_examples=60)
@given(SEEDS)
def test_random_structures(seed: int) -> None:
    random = Random(seed)
    machine = garbage(random)
    for _ in range(8):
        where = random.choice(SLOTS) if random.random() < 0.9 else slot(random.getrandbits(16), random.getrandbits(20))
        ask(machine, random, where, random.choice([*ADDRESSES, random.getrandbits(64), random.getrandbits(30)]))


def test_the_requests_above_get_everywhere() -> None:
    """Else that test would say little."""
    ends: set[int] = set()
    for seed in range(60):
        random = Random(seed)
        machine = garbage(random)
        for where in SLOTS:
            ends.add(ask(machine, random, where, random.choice([*ADDRESSES, random.getrandbits(38)])))
    assert {0, 2, 4, 5, 8, 0xA, 0xB, 0x10, 0x11, 0x12, 0x13} <= ends


REGISTERS: dict[str, list[int]] = {
    "PRIQ_BASE": [0xF0001, 0xF0008, COMMANDS | 8, 0x80_0001, (1 << 64) - 1],
    "CR0": [0xF, 0xD, 0xE, 0xC, 0x9, 0x5, 0x1D, 0x1FF, 0],
    "CMDQ_BASE": [COMMANDS | 8, COMMANDS, COMMANDS | 31, 0x80_0000, (1 << 64) - 1],
    "EVENTQ_BASE": [0xE8008, 0xE8000, COMMANDS | 8, 0x80_0001, (1 << 64) - 1],
    "GERRORN": [0, 1, 4, 5, 0x15, (1 << 32) - 1],
    "STRTAB_BASE_CFG": [5, 1 << 16 | 16, 63],
    "CR2": [0, 15],
}
"""Values of registers that mean something."""


def command(random: Random) -> tuple[int, int]:
    """Mostly one that there is, for what is there."""
    if random.random() < 0.05:
        return random.getrandbits(64), random.getrandbits(64)
    opcode = random.choice([*(opcode for opcode, _ in LEGAL), 0x44, 0x45])
    ids = random.choice([8, 9, 10, 0x2A, 0x2B]) << 32 | random.choice([0, 5, 0x12]) << 12
    place = random.choice([BASE, IN_2M, 0x30000, COMMANDS]) | random.choice([0, 0, 1, 0x34, 0x301, 0x7FF])
    return opcode | ids | random.choice([0, 0x12]) << 48, place


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_queues(seed: int) -> None:
    """Any commands, any values of any register, devices that answer as they please: it stops or goes on."""
    random = Random(seed)
    memory = CountingMemory(RAM)
    memory.put(WORDS)
    for place in range(COMMANDS, COMMANDS + 0x1000, 16):
        first, second = command(random)
        memory.put({place: first, place + 8: second})
    machine = Machine(memory, **random.choice(UNITS))
    machine.bus.completions = {stream: random.choice(["done", "timeout", "invalid"]) for stream in (8, 9, 10)}
    machine.switch_on(0x1000, 5)
    for _ in range(20):
        memory.reads = 0
        others = ["EVENTQ_CONS", "EVENTQ_PROD", "PRIQ_CONS", "PRIQ_PROD"]
        name = random.choice([*REGISTERS, "CMDQ_PROD", "CMDQ_PROD", "CMDQ_PROD", *others])
        values = REGISTERS.get(name, [random.randrange(LARGEST_QUEUE), random.getrandbits(32)])
        machine.unit.write_register(name, random.choice(values))
        # No more than the largest queue holds.
        assert memory.reads <= LARGEST_QUEUE
        assert machine.get("CMDQ_CONS") >> 24 in range(4)
        ask(machine, random, random.choice(SLOTS), random.choice(ADDRESSES))
        flags = [random.random() < 0.5 for _ in range(5)]
        iova, group = random.getrandbits(64), random.getrandbits(9)
        answered = len(machine.bus.answers)
        machine.unit.page_request(PageRequest(random.choice(SLOTS), iova, flags[0], flags[1], group, *flags[2:]))
        assert len(machine.bus.answers) - answered in range(1 + flags[2])


def test_the_units_above_can_be() -> None:
    """They differ from the default one, and each is one that can be simulated."""
    for options in UNITS[1:]:
        machine = Machine(SparseMemory(RAM), **options)
        assert {name: machine.get(name) for name in DEFAULTS} != dict(DEFAULTS)
