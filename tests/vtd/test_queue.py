# SPDX-License-Identifier: Apache-2.0
"""The invalidation queue as the unit reads it: descriptors are words of VT-d 4.1 section 6.5.2, made by hand."""

import pytest

from tests.vtd.fault_cases import CAP, ECAP
from tests.vtd.handmade import NOWHERE, PAGE_RW, RTADDR, SECOND, handmade
from tests.vtd.machine import QIE, SRTP, TE, Machine

RING = 0x90000
WIDE = 1 << 11
IQE = 1 << 4
STATUS = 0xA0000
DIT = 1 << 41
PDS = 1 << 42

CONTEXT_CACHE = 0x11
IOTLB = 0xD2
DEVICE_TLB = 0x32100000003
WAIT = 0x200000025
PASID_IOTLB = 0x1234500420026
PASID_CACHE = 0x37
PASID_DEVICE_TLB = 0x1234503210008
IEC = 0x4
RESPONSE = 0x1234503210019

Words = tuple[int, ...]


def with_queue(size: int = 0, width: int = WIDE, base: int = RING, rtaddr: int = RTADDR, **options: int) -> Machine:
    """A machine whose queue has 4096 << size bytes."""
    machine = handmade(None, rtaddr=rtaddr, **options)
    unit = machine.unit
    unit.write_register("IQT", 0)
    unit.write_register("IQA", base | width | size)
    unit.write_register("GCMD", QIE | TE)
    return machine


def length(machine: Machine) -> int:
    """How many bytes a descriptor of the queue has."""
    return 32 if machine.unit.read_register("IQA") & WIDE else 16


def place(machine: Machine, offset: int, descriptor: Words) -> None:
    """Put a descriptor into the ring; words that are not given are 0."""
    words = (*descriptor, 0, 0, 0, 0)[: length(machine) // 8]
    machine.memory.put({RING + offset + 8 * number: word for number, word in enumerate(words)})


def run(machine: Machine, *descriptors: Words) -> int:
    """Queue descriptors at the start of a fresh ring. Returns IQEI, 0 when all were taken."""
    size = length(machine)
    for number, descriptor in enumerate(descriptors):
        place(machine, size * number, descriptor)
    machine.unit.write_register("IQT", size * len(descriptors))
    return error(machine)


def error(machine: Machine) -> int:
    stopped = machine.unit.read_register("FSTS") & IQE
    info = machine.unit.read_register("IQERCD") & 0xF
    assert bool(stopped) == bool(info)
    return info


def head(machine: Machine) -> int:
    return machine.unit.read_register("IQH")


GOOD: list[Words] = [
    (CONTEXT_CACHE,),
    (0x100021,),  # domain
    (0x0003030000100031,),  # device, FM 3
    (IOTLB,),
    (0x4200E2,),  # domain
    (0x4200F2, 0x40000049),  # pages, AM 9, IH
    (0xF2, 0x12),  # pages, AM 18
    (DEVICE_TLB,),
    (0x321001F0003, 0x7FFFFFFFFFFFF001),  # MIP, everything
    (WAIT, STATUS),
    (0x45,),  # fence alone
    (0x55,),  # fence and interrupt
    (PASID_IOTLB,),
    (0x1234500420036, 0x7F000000107F),  # pages, AM 63, IH
    (PASID_CACHE,),
    (0x420007,),  # domain
    (0x500420017,),  # PASID
    (PASID_DEVICE_TLB,),
    (0x12345032101F8, 0x7FFFFFFFFFFFF801),  # MIP, all PASIDs, everything
    (IEC,),
    (0x2018000014,),  # indices
    (RESPONSE, 0xFF8),
]


@pytest.mark.parametrize("descriptor", GOOD, ids=lambda words: f"{words[0]:x}")
def test_good_descriptors(descriptor: Words) -> None:
    machine = with_queue()
    assert run(machine, descriptor) == 0
    assert head(machine) == 32


def test_all_at_once() -> None:
    machine = with_queue()
    assert run(machine, *GOOD) == 0
    assert head(machine) == 32 * len(GOOD)
    assert machine.memory.read(STATUS, 8) == bytes([2, 0, 0, 0, 0, 0, 0, 0])


def bits(*parts: int | tuple[int, int]) -> list[int]:
    """Positions of single bits and of fields msb:lsb."""
    return [bit for part in parts for bit in (range(part[1], part[0] + 1) if isinstance(part, tuple) else (part,))]


def qw1(*parts: int | tuple[int, int]) -> list[int]:
    return [64 + bit for bit in bits(*parts)]


NAMES = ["context cache", "IOTLB", "device TLB", "wait", "PASID IOTLB", "PASID cache", "PASID device TLB"]
NAMES += ["interrupt entry cache", "page group response"]
RESERVED: list[tuple[int, list[int]]] = [
    (CONTEXT_CACHE, bits((8, 6), (15, 12), (63, 50)) + qw1((63, 0))),
    (IOTLB, bits(8, (15, 12), (63, 32)) + qw1((11, 7))),
    (DEVICE_TLB, bits((8, 4), (31, 21), (51, 48)) + qw1((11, 1))),
    (WAIT, bits(8, (31, 12)) + qw1((1, 0))),
    (PASID_IOTLB, bits((8, 6), (15, 12), (63, 52)) + qw1((11, 7))),
    (PASID_CACHE, bits((8, 6), (15, 12), (63, 52)) + qw1((63, 0))),
    (PASID_DEVICE_TLB, qw1((10, 1))),
    (IEC, bits((8, 5), (26, 12), (63, 48)) + qw1((63, 0))),
    (RESPONSE, bits((8, 5), (63, 52)) + qw1((2, 0), (63, 12))),
]


@pytest.mark.parametrize(("descriptor", "reserved"), RESERVED, ids=NAMES)
def test_reserved_bits(descriptor: int, reserved: list[int]) -> None:
    for bit in (*reserved, 128, 191, 192, 255):
        machine = with_queue()
        raw = descriptor | STATUS << 64 if descriptor == WAIT else descriptor
        assert run(machine, words(raw | 1 << bit)) == 4, f"bit {bit}"
        assert head(machine) == 0


def words(raw: int) -> Words:
    return tuple(raw >> shift & (1 << 64) - 1 for shift in range(0, 256, 64))


@pytest.mark.parametrize("descriptor", [DEVICE_TLB, PASID_DEVICE_TLB])
@pytest.mark.parametrize("bit", [12, 15, 52, 63])
def test_pfsid_needs_dit(descriptor: int, bit: int) -> None:
    assert run(with_queue(), (descriptor | 1 << bit,)) == 4
    assert run(with_queue(ecap=ECAP | DIT), (descriptor | 1 << bit,)) == 0


def test_page_request_drain_needs_pds() -> None:
    assert run(with_queue(), (0xA5, STATUS)) == 0
    assert run(with_queue(ecap=ECAP & ~PDS), (0xA5, STATUS)) == 4


@pytest.mark.parametrize("descriptor", [0x1, 0x2, 0x6, 0x16, 0x27], ids=hex)
def test_granularities_that_there_are_not(descriptor: int) -> None:
    assert run(with_queue(), (descriptor,)) == 4


@pytest.mark.parametrize("descriptor", [0x0, 0xB, 0xF, 0x211, 0x811, 0xE11], ids=hex)
def test_types_that_there_are_not(descriptor: int) -> None:
    """Bits 11:9 are the upper bits of the type."""
    assert run(with_queue(), (descriptor,)) == 3


def test_the_largest_mask() -> None:
    assert run(with_queue(), (0xF2, 19)) == 4
    cap = CAP & ~(0x3F << 48) | 9 << 48
    assert run(with_queue(cap=cap), (0xF2, 9)) == 0
    assert run(with_queue(cap=cap), (0xF2, 10)) == 4


@pytest.mark.parametrize(
    ("size", "tail", "info"), [(0, 4096, 1), (0, 0x7FFF0, 1), (1, 8192, 1), (0, 16, 6), (0, 0x28, 6)]
)
def test_tails(size: int, tail: int, info: int) -> None:
    machine = with_queue(size)
    machine.unit.write_register("IQT", tail)
    assert (error(machine), head(machine)) == (info, 0)


def test_a_queue_that_is_not_in_memory() -> None:
    machine = with_queue(base=NOWHERE)
    machine.unit.write_register("IQT", 32)
    assert (error(machine), head(machine)) == (2, 0)


def test_a_queue_that_ends_outside_memory() -> None:
    machine = with_queue(size=1, base=0xFF000)
    machine.memory.put({0xFF000 + 32 * number: CONTEXT_CACHE for number in range(128)})
    machine.unit.write_register("IQT", 4096 + 32)
    assert (error(machine), head(machine)) == (2, 4096)


def test_scalable_mode_has_wide_descriptors() -> None:
    machine = with_queue(width=0)
    run(machine, (CONTEXT_CACHE,))
    assert error(machine)
    assert head(machine) == 0


def test_around_the_end() -> None:
    machine = with_queue()
    machine.memory.put({RING + 32 * number: CONTEXT_CACHE for number in range(128)})
    machine.unit.write_register("IQT", 4096 - 32)
    assert head(machine) == 4096 - 32
    place(machine, 4096 - 32, (WAIT, STATUS))
    place(machine, 0, (WAIT | 1 << 32, STATUS + 4))
    machine.unit.write_register("IQT", 32)
    assert (error(machine), head(machine)) == (0, 32)
    assert (machine.memory.word(STATUS)) == 0x3_0000_0002


@pytest.mark.parametrize("size", range(8))
def test_sizes(size: int) -> None:
    machine = handmade()
    memory = machine.memory
    memory._ranges = ((0, 0x20_0000),)
    machine.unit.write_register("IQA", 0x10_0000 | WIDE | size)
    machine.unit.write_register("GCMD", QIE | TE)
    last = (4096 << size) - 32
    memory.put({0x10_0000 + offset: CONTEXT_CACHE for offset in range(0, last, 32)})
    machine.unit.write_register("IQT", last)
    assert (error(machine), head(machine)) == (0, last)


@pytest.mark.parametrize(("start", "word"), [(STATUS, 0x1111111100000002), (STATUS + 4, 0x0000000211111111)])
def test_a_wait_writes_32_bits(start: int, word: int) -> None:
    machine = with_queue()
    machine.memory.put({STATUS: 0x1111111111111111})
    assert run(machine, (WAIT, start)) == 0
    assert machine.memory.word(STATUS) == word


@pytest.mark.parametrize("wait", [0x200000005, 0x200000045, 0x200000015], ids=hex)
def test_a_wait_without_status_write_writes_nothing(wait: int) -> None:
    machine = with_queue()
    assert run(machine, (wait, STATUS)) == 0
    assert machine.memory.word(STATUS) == 0


def test_a_wait_that_cannot_be_answered_is_no_crash() -> None:
    assert run(with_queue(), (WAIT, NOWHERE))


def fill(machine: Machine) -> int:
    """Have one entry in the IOTLB."""
    machine.request(SECOND, PAGE_RW, "r", privileged=False)
    return machine.unit.caches()["iotlb"]


def test_the_queue_stops_at_a_bad_descriptor() -> None:
    machine = with_queue()
    assert fill(machine) == 1
    assert run(machine, (WAIT, STATUS), (CONTEXT_CACHE | 1 << 8,), (IOTLB,), (WAIT | 1 << 32, STATUS)) == 4
    assert head(machine) == 32
    assert machine.memory.word(STATUS) == 2
    assert machine.unit.caches()["iotlb"] == 1
    # It stays there whatever the tail does.
    machine.unit.write_register("IQT", 64)
    machine.unit.write_register("IQT", 128)
    assert (error(machine), head(machine), machine.unit.caches()["iotlb"]) == (4, 32, 1)


def test_the_queue_goes_on_when_the_error_is_cleared() -> None:
    """As Linux does: it puts something harmless there, then clears IQE; the unit fetches that descriptor again."""
    machine = with_queue()
    fill(machine)
    run(machine, (0,), (IOTLB,), (WAIT, STATUS))
    place(machine, 0, (0x45,))
    machine.unit.write_register("FSTS", IQE)
    assert machine.unit.read_register("FSTS") == 0
    assert head(machine) == 96
    assert machine.unit.caches()["iotlb"] == 0
    assert machine.memory.word(STATUS) == 2


def test_a_fault_leaves_the_error_of_the_queue_alone() -> None:
    machine = with_queue()
    run(machine, (0,))
    machine.request(SECOND, 0, "r", privileged=False)
    assert machine.unit.read_register("FSTS") == IQE | 2
    machine.unit.write_register("FRCD0", 1 << 127)
    assert machine.unit.read_register("FSTS") == IQE


def test_an_error_that_is_cleared_but_not_mended_comes_again() -> None:
    machine = with_queue()
    assert run(machine, (0,)) == 3
    machine.unit.write_register("FSTS", IQE)
    assert (error(machine), head(machine)) == (3, 0)


def test_nothing_is_fetched_before_the_queue_is_on() -> None:
    machine = handmade()
    machine.unit.write_register("IQA", RING | WIDE)
    assert run(machine, (0,)) == 0
    assert head(machine) == 0


def test_other_commands_leave_the_queue_alone() -> None:
    machine = with_queue()
    run(machine, (CONTEXT_CACHE,), (CONTEXT_CACHE,))
    machine.unit.write_register("GCMD", QIE | SRTP)
    assert head(machine) == 64


def test_a_queue_that_is_switched_off_begins_at_its_start() -> None:
    machine = with_queue()
    run(machine, (CONTEXT_CACHE,), (CONTEXT_CACHE,))
    machine.unit.write_register("GCMD", TE)
    assert head(machine) == 0
    assert machine.unit.read_register("GSTS") == TE | SRTP


@pytest.mark.parametrize(("descriptor", "reserved"), RESERVED, ids=NAMES)
def test_all_other_bits_are_fields(descriptor: int, reserved: list[int]) -> None:
    """Any value of theirs is taken, but for a wait's address, which must be in memory, and a mask."""
    pfsid = bits((15, 12), (63, 52)) if descriptor in (DEVICE_TLB, PASID_DEVICE_TLB) else []
    fields = set(range(12, 64 if descriptor == WAIT else 128)) - set(qw1((5, 0))) - {*reserved, *pfsid}
    for bit in fields:
        raw = descriptor | STATUS << 64 if descriptor == WAIT else descriptor
        assert run(with_queue(), words(raw | 1 << bit)) == 0, f"bit {bit}"


def test_the_mode_is_the_latched_one() -> None:
    machine = with_queue()
    machine.unit.write_register("RTADDR", RTADDR & ~0x400)
    assert run(machine, (CONTEXT_CACHE,)) == 0
