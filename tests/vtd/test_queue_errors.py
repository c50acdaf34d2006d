# SPDX-License-Identifier: Apache-2.0
"""What the queue tells devices, and what it does when they do not answer: VT-d 4.1 sections 6.5.2 and 11.4.9.9."""

import pytest

from iommuctl_vtd.caches import Caches
from iommuctl_vtd.walk import Mapped, Rights, Tag
from tests.vtd.fault_cases import ECAP
from tests.vtd.handmade import NOWHERE, PAGE_RW, RTADDR, SECOND
from tests.vtd.machine import Machine
from tests.vtd.test_queue import (
    CONTEXT_CACHE,
    DEVICE_TLB,
    IOTLB,
    PASID_DEVICE_TLB,
    STATUS,
    WAIT,
    WIDE,
    Words,
    error,
    head,
    length,
    place,
    run,
    with_queue,
)

IQE, ICE, ITE = 1 << 4, 1 << 5, 1 << 6
LEGACY = 0x1000
ABORT_DMA, ADMS = RTADDR & ~0x400 | 0xC00, 1 << 52
LAST = (1 << 64) - 1
DEAD, ODD = 0x321, 0x108
"""Source ids of a device that never answers, and of one that answers nonsense."""

QUEUES = {"256 bits": (WIDE, RTADDR), "256 bits, legacy mode": (WIDE, LEGACY), "128 bits": (0, LEGACY)}
both_widths = pytest.mark.parametrize("queue", QUEUES)


def machine_of(queue: str) -> Machine:
    width, rtaddr = QUEUES[queue]
    machine = with_queue(width=width, rtaddr=rtaddr)
    machine.bus.completions = {DEAD: "timeout", ODD: "invalid"}
    return machine


def wait(number: int) -> Words:
    """A wait that writes 2 to its own word."""
    return (WAIT, STATUS + 4 * number)


def done(machine: Machine, count: int) -> list[int]:
    """Which of the first waits were completed."""
    return [number for number in range(count) if machine.memory.read(STATUS + 4 * number, 1) == b"\2"]


def device_tlb(source: int) -> Words:
    return (source << 32 | 3, 0x7FFFFFFFFFFFF001)


def status(machine: Machine) -> int:
    return machine.unit.read_register("FSTS")


def record(machine: Machine) -> tuple[int, int, int]:
    """IQEI, ITESID, ICESID."""
    value = machine.unit.read_register("IQERCD")
    return value & 0xF, value >> 32 & 0xFFFF, value >> 48


def add(machine: Machine, *descriptors: Words) -> None:
    """Queue descriptors behind those that are there."""
    tail = machine.unit.read_register("IQT")
    for descriptor in descriptors:
        place(machine, tail, descriptor)
        tail += length(machine)
    machine.unit.write_register("IQT", tail)


# What devices are told


@pytest.mark.parametrize(
    ("descriptor", "told"),
    [
        ((DEVICE_TLB, 0x10000), (0x321, None, 0x10000, 0x10FFF)),
        # 8 KiB, 64 KiB and 2 MiB; then everything, which has a zero bit at the top only, or none at all.
        ((DEVICE_TLB, 0x2001), (0x321, None, 0x2000, 0x3FFF)),
        ((DEVICE_TLB, 0x17001), (0x321, None, 0x10000, 0x1FFFF)),
        ((DEVICE_TLB, 0x2FF001), (0x321, None, 0x200000, 0x3FFFFF)),
        ((DEVICE_TLB, 0x7FFFFFFFFFFFF001), (0x321, None, 0, LAST)),
        ((DEVICE_TLB, 0xFFFFFFFFFFFFF001), (0x321, None, 0, LAST)),
        ((0xFFFF_00000003, 0xFFFFFFFFFFFFF000), (0xFFFF, None, LAST & -4096, LAST)),
        ((PASID_DEVICE_TLB, 0x10000), (0x321, 0x12345, 0x10000, 0x10FFF)),
        ((PASID_DEVICE_TLB, 0x17800), (0x321, 0x12345, 0x10000, 0x1FFFF)),
        ((PASID_DEVICE_TLB, 0x7FFFFFFFFFFFF800), (0x321, 0x12345, 0, LAST)),
        ((PASID_DEVICE_TLB, 0x17801), (0x321, "all", 0x10000, 0x1FFFF)),
        ((PASID_DEVICE_TLB, 0x10001), (0x321, "all", 0x10000, 0x10FFF)),
        ((0x00000_03210008, 0x2FF800), (0x321, 0, 0x200000, 0x3FFFFF)),
        ((0xFFFFF_FFFF0008, 0x10000), (0xFFFF, 0xFFFFF, 0x10000, 0x10FFF)),
    ],
    ids=lambda value: f"{value[0]:x} {value[1]:x}" if len(value) == 2 else "",
)
def test_what_a_device_is_told(descriptor: Words, told: tuple[int, int | str | None, int, int]) -> None:
    machine = with_queue()
    assert run(machine, descriptor, (IOTLB,)) == 0
    assert machine.bus.told == [told]


@pytest.mark.parametrize("descriptor", [DEVICE_TLB, PASID_DEVICE_TLB])
def test_how_deep_a_device_queues_and_whose_function_it_is_changes_nothing(descriptor: int) -> None:
    machine = with_queue(ecap=ECAP | 1 << 41)
    mip = 0x1F << 16 if descriptor == DEVICE_TLB else 0x1F << 4
    assert run(machine, (descriptor | mip | 0xFFF << 52 | 0xF << 12, 0x10000)) == 0
    assert machine.bus.told == [(0x321, 0x12345 if descriptor == PASID_DEVICE_TLB else None, 0x10000, 0x10FFF)]


@both_widths
def test_no_other_descriptor_is_for_devices(queue: str) -> None:
    machine = machine_of(queue)
    assert run(machine, (CONTEXT_CACHE,), (IOTLB,), wait(0), (0x4,)) == 0
    assert machine.bus.told == []


# ITE: a device does not answer


@both_widths
def test_a_device_that_does_not_answer(queue: str) -> None:
    machine = machine_of(queue)
    Caches(machine.rows).iotlb.fill(Tag(1, 2, 0), 0, Mapped(0, 4096, Rights(), True), ())
    run(machine, wait(0), device_tlb(DEAD), wait(1), (IOTLB,), wait(2))
    assert status(machine) & (IQE | ICE | ITE) == ITE
    assert record(machine)[1] == DEAD
    assert done(machine, 3) == [0], "a wait after it is not completed"
    # Nothing is fetched before software has seen it.
    add(machine, wait(3))
    assert (done(machine, 4), machine.unit.caches()["iotlb"]) == ([0], 1)
    machine.unit.write_register("FSTS", ITE)
    assert status(machine) & (IQE | ICE | ITE) == 0
    assert done(machine, 4) == [0, 2, 3], "the pending wait is lost, later ones are not"
    assert machine.unit.caches()["iotlb"] == 0
    assert head(machine) == 6 * length(machine)
    assert machine.bus.told == [(DEAD, None, 0, LAST)]


@both_widths
def test_software_tries_again(queue: str) -> None:
    machine = machine_of(queue)
    run(machine, device_tlb(DEAD), wait(0), device_tlb(DEAD), wait(1), device_tlb(DEAD), wait(2))
    machine.unit.write_register("FSTS", ITE)
    assert status(machine) & ITE, "the next one is not answered either"
    assert done(machine, 3) == []
    machine.bus.completions.clear()
    machine.unit.write_register("FSTS", ITE)
    assert (status(machine) & ITE, done(machine, 3)) == (0, [2])
    assert len(machine.bus.told) == 3


@both_widths
def test_a_device_without_a_wait_after_it(queue: str) -> None:
    machine = machine_of(queue)
    run(machine, device_tlb(DEAD))
    assert (status(machine) & ITE, record(machine)[1]) == (ITE, DEAD)
    machine.unit.write_register("FSTS", ITE)
    add(machine, device_tlb(0x322), wait(0))
    assert done(machine, 1) == [0]


def test_a_pasid_of_a_device_that_does_not_answer() -> None:
    machine = machine_of("256 bits")
    for descriptor in ((PASID_DEVICE_TLB, 0x10000), (PASID_DEVICE_TLB, 0x10001)):
        add(machine, descriptor, wait(0))
        assert (status(machine) & ITE, record(machine)[1], done(machine, 1)) == (ITE, 0x321, [])
        machine.unit.write_register("FSTS", ITE)


@pytest.mark.parametrize("other", [IQE, ICE, 1, 2, 0xFF00])
def test_other_bits_do_not_clear_it(other: int) -> None:
    machine = machine_of("256 bits")
    run(machine, device_tlb(DEAD), wait(0), wait(1))
    machine.unit.write_register("FSTS", other)
    assert (status(machine) & ITE, done(machine, 2)) == (ITE, [])


# ICE: a device answers nonsense


@both_widths
def test_a_device_that_answers_nonsense(queue: str) -> None:
    """It is reported, and the queue goes on."""
    machine = machine_of(queue)
    run(machine, device_tlb(ODD), wait(0), (CONTEXT_CACHE,), wait(1))
    assert status(machine) & (IQE | ICE | ITE) == ICE
    assert record(machine) == (0, 0, ODD)
    assert done(machine, 2) == [0, 1]
    assert head(machine) == 4 * length(machine)
    # What runs meanwhile does not hide whose it was.
    add(machine, wait(2))
    assert done(machine, 3) == [0, 1, 2]
    assert (status(machine) & ICE, record(machine)[2]) == (ICE, ODD)
    machine.unit.write_register("FSTS", ICE)
    assert status(machine) & ICE == 0


@both_widths
@pytest.mark.parametrize("descriptor", [(0,), device_tlb(DEAD)], ids=["IQE", "ITE"])
@pytest.mark.parametrize("together", [True, False])
def test_an_error_does_not_hide_whose_answer_was_nonsense(queue: str, descriptor: Words, together: bool) -> None:
    machine = machine_of(queue)
    if together:
        run(machine, device_tlb(ODD), descriptor)
    else:
        add(machine, device_tlb(ODD))
        add(machine, descriptor)
    assert status(machine) & ICE
    assert status(machine) & (IQE | ITE)
    assert record(machine)[2] == ODD


# IQE: a bad descriptor


@both_widths
def test_a_bad_descriptor_stops_the_queue_on_it(queue: str) -> None:
    machine = machine_of(queue)
    run(machine, wait(0), (WAIT | 1 << 8, STATUS), wait(1))
    assert (error(machine), status(machine) & (IQE | ICE | ITE)) == (4, IQE)
    assert head(machine) == length(machine)
    assert done(machine, 2) == [0]


@pytest.mark.parametrize("kind", range(6, 16))
def test_descriptors_of_scalable_mode_in_a_queue_of_128_bits(kind: int) -> None:
    """Public sources do not tell which of two reasons it is."""
    machine = machine_of("128 bits")
    assert run(machine, (kind | 0x30,)) in (3, 5)
    assert head(machine) == 0


@pytest.mark.parametrize("kind", range(1, 10))
def test_which_types_are_legal_when(kind: int) -> None:
    """VT-d 4.1 section 6.5.2.10: by table mode and width."""
    descriptor = (kind | (0x30 if kind in (1, 2, 6, 7) else 0),)
    everywhere = {"ecap": ECAP | ADMS}
    assert run(with_queue(rtaddr=RTADDR, **everywhere), descriptor) == 0
    assert run(with_queue(rtaddr=ABORT_DMA, **everywhere), descriptor) == 0
    assert bool(run(with_queue(rtaddr=LEGACY, **everywhere), descriptor)) == (kind > 5)
    assert bool(run(with_queue(rtaddr=LEGACY, width=0, **everywhere), descriptor)) == (kind > 5)
    assert run(with_queue(rtaddr=RTADDR, width=0, **everywhere), descriptor)
    assert run(with_queue(rtaddr=ABORT_DMA, width=0, **everywhere), descriptor)


@pytest.mark.parametrize("rtaddr", [0x1800, 0x1800 | 0x400])
@pytest.mark.parametrize("width", [0, WIDE])
def test_no_descriptor_is_legal_in_a_mode_that_there_is_not(rtaddr: int, width: int) -> None:
    """Mode 2 is reserved; mode 3 needs ADMS."""
    assert run(with_queue(rtaddr=rtaddr, width=width), (CONTEXT_CACHE,)) == 7


# Waits


@both_widths
def test_a_wait_may_raise_an_interrupt(queue: str) -> None:
    machine = machine_of(queue)
    unit = machine.unit
    add(machine, wait(0))
    assert unit.read_register("ICS") == 0
    add(machine, (0x15,), wait(1))
    assert (unit.read_register("ICS"), done(machine, 2)) == (1, [0, 1])
    # It stays until software writes 1.
    unit.write_register("ICS", 0)
    add(machine, wait(2))
    assert unit.read_register("ICS") == 1
    unit.write_register("ICS", 1)
    assert unit.read_register("ICS") == 0


@both_widths
def test_only_a_completed_wait_raises_it(queue: str) -> None:
    machine = machine_of(queue)
    run(machine, device_tlb(DEAD), (0x15,))
    assert machine.unit.read_register("ICS") == 0
    machine = machine_of(queue)
    assert run(machine, (WAIT | 0x10, NOWHERE))
    assert machine.unit.read_register("ICS") == 0


def test_requests_go_on_while_the_queue_stands() -> None:
    machine = machine_of("256 bits")
    run(machine, device_tlb(DEAD), wait(0))
    assert machine.request(SECOND, PAGE_RW)[0].pa == 0x99000
