# SPDX-License-Identifier: Apache-2.0
"""Page requests: the queue in memory as the unit fills it, its own answers, and the driver. VT-d 4.1 section 7.4.

Which codes the unit's own answers have, docs/decisions.md says: no source of ours does.
"""

from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings

from iommuctl.architecture import PageRequest
from iommuctl.model import Rid, Slot
from iommuctl_vtd.requested_pages import requested
from iommuctl_vtd.tables import Tables
from tests.page_requests import STEPS, any_sequence
from tests.vtd.driven import Driven
from tests.vtd.fault_cases import ECAP
from tests.vtd.handmade import BY_RID, CONTEXT, NOWHERE, RTADDR, SECOND, handmade
from tests.vtd.machine import SRTP, TE, Machine
from tests.vtd.test_queue import error, place, run, with_queue
from tests.vtd.test_request_kinds import PAGE_CASES

QUEUE = 0xB0000
ENTRIES = 128
PPR, PRO = 1, 2
PRE = {CONTEXT: 0x3019}
PRS_OF_ECAP = 1 << 29
ASKS = PageRequest(SECOND, 0x5123, read=True, write=False, group=3, last=False)
ENDS = ASKS._replace(last=True)
STOPS = ENDS._replace(read=False)


def queued(size: int = 0, changes: dict[int, int] | None = None, base: int = QUEUE, **options: int) -> Machine:
    """A machine with a queue of 4096 << size bytes, whose only device may ask for pages."""
    machine = handmade(PRE | (changes or {}), **options)
    machine.unit.write_register("PQA", base | size)
    return machine


def read(machine: Machine, name: str) -> int:
    return machine.unit.read_register(name)


def fill(machine: Machine, number: int) -> None:
    for index in range(number):
        machine.unit.page_request(ASKS._replace(iova=index << 12))


def pages(machine: Machine) -> list[int]:
    """Page numbers of what lies in the queue, from the head on."""
    head, tail = read(machine, "PQH"), read(machine, "PQT")
    size = 4096 << (read(machine, "PQA") & 7)
    return [machine.memory.word(QUEUE + (head + at) % size + 8) >> 12 for at in range(0, (tail - head) % size, 32)]


# The queue


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        # T25a and T25b of the worked vectors, of the device of the handmade tables and in reach of its directory.
        (
            PageRequest(Slot(Rid(0, 3, 0, 1), 0x1345), 0x7F0000001234, True, True, 0x1FF, True),
            (0x0000134503010101, 0x00007F0000001FFF),
        ),
        (PageRequest(Slot(Rid(0, 3, 0, 1), 0x1345), 0, False, False, 0, True), (0x0000134503010101, 4)),
        (PageRequest(BY_RID, 0x5000, True, False, 1, False), (0x03010001, 0x5009)),
        (PageRequest(BY_RID, 0x5000, False, True, 0, False), (0x03010001, 0x5002)),
        # Privilege and execution come with a PASID alone.
        (PageRequest(SECOND, 0, True, False, 0, False, True, True), (0x0030004403010101, 1)),
        (PageRequest(BY_RID, 0, True, False, 0, False, True, True), (0x03010001, 1)),
        (PageRequest(SECOND, (1 << 64) - 1, True, False, 0, False), (0x4403010101, 0xFFFF_FFFF_FFFF_F001)),
    ],
)
def test_entries(request_: PageRequest, words: tuple[int, int]) -> None:
    machine = queued()
    machine.memory.put({QUEUE + 8 * number: 0xA5A5 for number in range(5)})
    machine.unit.page_request(request_)
    assert [machine.memory.word(QUEUE + 8 * number) for number in range(5)] == [*words, 0, 0, 0xA5A5]
    assert (read(machine, "PQT"), read(machine, "PRS")) == (32, PPR)
    assert machine.bus.answers == []
    assert machine.records() == []


def test_the_vectors_are_read() -> None:
    slot = Slot(Rid(0, 3, 4, 1), 0x12345)
    assert requested(0x00007F0000001FFF << 64 | 0x0001234503210101) == PageRequest(
        slot, 0x7F0000001000, read=True, write=True, group=0x1FF, last=True
    )
    stop = requested(4 << 64 | 0x0001234503210101)
    assert stop == PageRequest(slot, 0, read=False, write=False, group=0, last=True)
    assert stop.stops
    assert not requested(4 << 64 | 0x0321_0001).stops


@pytest.mark.parametrize(("size", "entries"), [(0, 128), (1, 256), (7, 16384)])
def test_the_queue_takes_one_request_less_than_it_has_entries(size: int, entries: int) -> None:
    machine = queued(size, base=0x40000)
    machine.unit.write_register("PQT", 32 * (entries - 2))
    machine.unit.page_request(ASKS)
    assert (read(machine, "PQT"), read(machine, "PRS")) == (32 * (entries - 1), PPR)
    machine.unit.page_request(ASKS)
    assert (read(machine, "PQT"), read(machine, "PRS")) == (32 * (entries - 1), PPR | PRO)


def test_the_ring_wraps() -> None:
    machine = queued()
    machine.unit.write_register("PQH", 32 * 126)
    machine.unit.write_register("PQT", 32 * 126)
    fill(machine, 3)
    assert (read(machine, "PQT"), pages(machine)) == (32, [0, 1, 2])
    assert machine.memory.word(QUEUE + 8) >> 12 == 2


def test_overflow_from_the_last_entry_to_one_beyond_and_back() -> None:
    machine = queued()
    fill(machine, ENTRIES - 1)
    assert (read(machine, "PRS"), read(machine, "PQT")) == (PPR, 32 * (ENTRIES - 1))
    machine.unit.page_request(ENDS)
    assert (read(machine, "PRS"), read(machine, "PQT")) == (PPR | PRO, 32 * (ENTRIES - 1))
    assert machine.bus.answers == [(0x301, 0x44, 3, "success")]
    # Room alone is not enough: nothing is queued until PRO is cleared.
    machine.unit.write_register("PQH", 32 * 100)
    machine.unit.page_request(ENDS._replace(group=4))
    machine.unit.page_request(ASKS)
    machine.unit.page_request(STOPS)
    assert machine.bus.answers == [(0x301, 0x44, 3, "success"), (0x301, 0x44, 4, "success")]
    assert pages(machine) == [*range(100, 127)]
    machine.unit.write_register("PRS", PRO)
    assert read(machine, "PRS") == PPR
    machine.unit.page_request(ENDS)
    assert (len(machine.bus.answers), pages(machine)) == (2, [*range(100, 127), 5])
    assert machine.records() == []


def test_software_clears_what_is_pending() -> None:
    machine = queued()
    fill(machine, 1)
    machine.unit.write_register("PRS", 0)
    machine.unit.write_register("PRS", PRO)
    assert read(machine, "PRS") == PPR
    machine.unit.write_register("PRS", PPR)
    assert (read(machine, "PRS"), pages(machine)) == (0, [0])


# Requests that are not queued


@pytest.mark.parametrize("name", PAGE_CASES)
def test_requests_that_are_refused(name: str) -> None:
    """They are recorded, as every request is, and only the last one of a group is answered."""
    code, slot, changes, rtaddr = PAGE_CASES[name]
    machine = handmade(changes, rtaddr=rtaddr)
    machine.unit.write_register("PQA", QUEUE)
    for request in (ASKS, ENDS):
        machine.unit.page_request(request._replace(slot=slot))
    assert machine.bus.answers == [(0x301, slot.pasid, 3, "invalid")]
    assert [record >> 96 & 0xFF for record in machine.records()] == [code, code]
    assert (read(machine, "PQT"), read(machine, "PRS")) == (0, 0)


def test_a_stop_marker_is_never_answered() -> None:
    machine = handmade()
    machine.unit.page_request(STOPS)
    assert machine.bus.answers == []
    # Without PASID it is none.
    machine.unit.page_request(STOPS._replace(slot=BY_RID))
    assert machine.bus.answers == [(0x301, None, 3, "invalid")]


def test_a_unit_that_is_switched_off() -> None:
    machine = queued()
    machine.unit.write_register("GCMD", SRTP)
    for request in (ASKS, ENDS, STOPS):
        machine.unit.page_request(request)
    assert machine.bus.answers == [(0x301, 0x44, 3, "failure")]
    assert (read(machine, "PQT"), read(machine, "PRS"), machine.records()) == (0, 0, [])
    machine.unit.write_register("GCMD", TE)
    machine.unit.page_request(ENDS)
    assert pages(machine) == [5]


def test_a_unit_without_page_requests() -> None:
    machine = handmade(ecap=ECAP & ~PRS_OF_ECAP)
    assert not {"PQH", "PQT", "PQA", "PRS"} & machine.unit.registers().keys()
    machine.unit.page_request(ENDS)
    assert machine.bus.answers == [(0x301, 0x44, 3, "failure")]


def test_a_queue_without_memory() -> None:
    machine = queued(base=NOWHERE)
    for request in (ASKS, ENDS):
        machine.unit.page_request(request)
    assert machine.bus.answers == [(0x301, 0x44, 3, "failure")]
    assert (read(machine, "PQT"), read(machine, "PRS")) == (0, 0)


# Answers of software, through the invalidation queue


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ((0x0001234503210019, 0xFF8), (0x321, 0x12345, 0x1FF, "success")),  # T24a
        ((0x000000000321F009, 8), (0x321, None, 1, "failure")),  # T24b
        ((0x0321_1009, 0), (0x321, None, 0, "invalid")),
        # Devices take codes that are not used for a failure.
        ((0x0321_2009, 0), (0x321, None, 0, "failure")),
        # Without PP there is no PASID.
        ((0x0001234503210009, 0), (0x321, None, 0, "success")),
    ],
)
def test_page_group_responses(words: tuple[int, int], answer: tuple[Any, ...]) -> None:
    machine = with_queue()
    assert run(machine, words) == 0
    assert machine.bus.answers == [answer]


def test_a_wait_that_drains_completes_after_the_answers_before_it() -> None:
    machine = with_queue()
    told: list[int] = []
    machine.memory.on_write = lambda: told.append(len(machine.bus.answers))
    assert run(machine, (0x0321_0009,), (0x2000000A5, 0xA0000), (0x0321_0009, 8)) == 0
    assert (told, len(machine.bus.answers)) == ([1], 2)


def test_a_descriptor_that_stops_the_queue_answers_nobody() -> None:
    machine = with_queue()
    assert run(machine, (0x0321_0029,)) == 4
    assert machine.bus.answers == []
    place(machine, 0, (0x0321_0009,))
    machine.unit.write_register("FSTS", 0x10)
    assert (error(machine), machine.bus.answers) == (0, [(0x321, None, 0, "success")])


def test_no_answers_in_legacy_mode() -> None:
    machine = with_queue(rtaddr=RTADDR & ~0x400)
    assert run(machine, (0x0321_0009,)) == 3
    assert machine.bus.answers == []


# The driver


def driven() -> tuple[Driven, list[Slot]]:
    """Two devices with PRI, their slots."""
    machine = Driven()
    rids = [machine.device(text, ats=True, pri=True) for text in ("00:01.0", "00:1f.0")]
    return machine, [Slot(rid, pasid) for rid in rids for pasid in (None, 5)]


def test_the_first_device_with_pri_starts_a_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there before PRE is set, and is not started again."""
    machine = Driven()
    assert read(machine, "PQA") == 0
    machine.device("00:01.0", ats=True)
    assert read(machine, "PQA") == 0
    before: list[int] = []
    monkeypatch.setattr(Tables, "add_context", lambda _tables, _device: before.append(read(machine, "PQA")))
    machine.device("00:02.0", ats=True, pri=True)
    queue = read(machine, "PQA")
    machine.unit.write_register("PQH", 32)
    machine.device("00:03.0", ats=True, pri=True)
    assert before == [queue, queue]
    assert (queue & 0xFFF, read(machine, "PQH"), read(machine, "PQT"), read(machine, "PRS")) == (0, 32, 0, 0)
    assert queue
    assert machine.memory.read(queue, 4096) == bytes(4096)
    assert machine.driver.capabilities().page_responses == ("success", "invalid", "failure")
    machine.accounts()


def test_no_queue_without_page_requests() -> None:
    machine = Driven(ecap=ECAP & ~PRS_OF_ECAP)
    assert machine.driver.capabilities().page_responses == ()
    machine.accounts()


def test_a_request_is_taken_once_and_answered() -> None:
    machine, slots = driven()
    request = PageRequest(slots[1], 0x7000, True, True, 0x1FF, True, privileged=True)
    machine.unit.page_request(request)
    driver: Any = machine.driver
    assert driver.take_page_requests() == ([request], False)
    assert (read(machine, "PRS"), read(machine, "PQH")) == (0, 32)
    assert driver.take_page_requests() == ([], False)
    driver.respond(slots[1], 0x1FF, "success")
    driver.respond(slots[0], 1, "failure")
    driver.respond(slots[0], 2, "invalid")
    assert machine.sent() == [
        (0x500080019, 0xFF8), "wait", (0x8F009, 8), "wait", (0x81009, 0x10), "wait"
    ]  # fmt: skip
    assert machine.bus.answers == [(8, 5, 0x1FF, "success"), (8, None, 1, "failure"), (8, None, 2, "invalid")]


def test_devices_without_pri_are_refused() -> None:
    machine = Driven()
    slot = Slot(machine.device("00:01.0", ats=True), 5)
    machine.unit.page_request(PageRequest(slot, 0x7000, True, False, 1, last=True))
    driver: Any = machine.driver
    assert driver.take_page_requests() == ([], False)
    assert machine.bus.answers == [(8, 5, 1, "invalid")]
    assert [record >> 96 & 0xFF for record in machine.records()] == [0x47]


def test_an_overflow_is_told_once_and_leaves_parts_of_groups_out() -> None:
    machine, (slot, other, *_) = driven()
    numbers = count()
    ask = PageRequest(slot, 0, True, False, 1, last=False)

    def send(request: PageRequest) -> PageRequest:
        request = request._replace(iova=next(numbers) << 12)
        machine.unit.page_request(request)
        return request

    whole = [send(ask), send(ask._replace(last=True))]
    stop = send(PageRequest(other, 0, False, False, 1, last=True))
    # The index is used again, and the end of this group finds no room.
    for _ in range(ENTRIES - 4):
        send(ask)
    assert read(machine, "PRS") == PPR
    send(ask._replace(last=True))
    assert machine.bus.answers == [(8, None, 1, "success")]
    driver: Any = machine.driver
    assert driver.take_page_requests() == ([*whole, stop], True)
    assert read(machine, "PRS") == 0
    assert driver.take_page_requests() == ([], False)
    after = send(ask)
    # Where nothing was lost, parts of groups are handed over.
    assert driver.take_page_requests() == ([after], False)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_any_sequence_of_requests_and_answers(steps: list[tuple[str, int, int]]) -> None:
    machine, slots = driven()
    # A queue that is nearly full from the beginning, so that some sequences overflow it.
    stop = PageRequest(slots[1], 0, False, False, 0, last=True)
    for _ in range(ENTRIES - 8):
        machine.unit.page_request(stop)
    any_sequence(machine, lambda: machine.driver, slots, steps)
