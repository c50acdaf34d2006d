# SPDX-License-Identifier: Apache-2.0
"""Page requests: the PRI queue as the unit fills it, its own answers, and the driver. IHI0070 G.b chapter 8."""

from itertools import count

import pytest
from hypothesis import given, settings

from iommuctl.architecture import PageRequest
from iommuctl.model import Rid, Slot
from iommuctl_smmuv3.register_bank import DEFAULTS
from iommuctl_smmuv3.requested_pages import requested
from tests.page_requests import STEPS, any_sequence
from tests.smmuv3.driven import Driven
from tests.smmuv3.handmade import NOWHERE, ONE, ONE_5, STE_ONE, UNUSED, handmade, ste
from tests.smmuv3.machine import CMDQEN, EVENTQEN, SMMUEN, Machine, idr0_with, slot

QUEUE = 0xF0000
PRIQEN = 1 << 1
ON = SMMUEN | PRIQEN | EVENTQEN | CMDQEN
OVERFLOW = 1 << 31
PRIQ_ABT_ERR = 1 << 3
PPS = 1 << 5
PPAR = {ste(ONE) + 8: STE_ONE[1] | 1 << 18}
ASKS = PageRequest(ONE_5, 0x5123, read=True, write=False, group=3, last=False)
ENDS = ASKS._replace(last=True)
STOPS = ENDS._replace(read=False)
ILL = 1


def queued(log2size: int, changes: dict[int, int] | None = None, base: int = QUEUE, **options: int) -> Machine:
    """A machine with a PRI queue of 2**log2size entries."""
    machine = handmade(changes, **options)
    machine.unit.write_register("PRIQ_BASE", base | log2size)
    machine.unit.write_register("CR0", ON)
    return machine


def ask(machine: Machine, *requests: PageRequest) -> None:
    for request in requests:
        machine.unit.page_request(request)


def numbered(number: int) -> PageRequest:
    return ASKS._replace(iova=number << 12)


def page(machine: Machine, index: int) -> int:
    """The number of the page that an entry asks for."""
    return machine.memory.word(QUEUE + 16 * index + 8) >> 12


# The queue


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        # Q1 of the worked vectors.
        (
            PageRequest(slot(0x108, 5), 0x7F00_1000, True, True, 0x1F, True),
            (0xF000000500000108, 0x000000007F00101F),
        ),
        (PageRequest(slot(0x108, 0xFFFFF), 0, False, False, 0x1FF, True), (0xC00FFFFF00000108, 0x1FF)),
        (PageRequest(slot(9), 0x5FFF, True, False, 0, False), (0x1000000000000009, 0x5000)),
        (PageRequest(slot(9), 0x5FFF, False, True, 1, True), (0x6000000000000009, 0x5001)),
        # Privilege and execution come with a PASID alone.
        (PageRequest(slot(9, 1), 0, True, False, 0, False, True, True), (0x9C00000100000009, 0)),
        (PageRequest(slot(9), 0, True, False, 0, False, True, True), (0x1000000000000009, 0)),
        (PageRequest(slot(9), (1 << 64) - 1, True, False, 0, False), (0x1000000000000009, 0xFFFF_FFFF_FFFF_F000)),
    ],
)
def test_entries(request_: PageRequest, words: tuple[int, int]) -> None:
    machine = queued(3)
    machine.memory.put({QUEUE + 8 * number: 0xA5A5 for number in range(3)})
    ask(machine, request_)
    assert [machine.memory.word(QUEUE + 8 * number) for number in range(3)] == [*words, 0xA5A5]
    assert (machine.get("PRIQ_PROD"), machine.bus.answers, machine.records()) == (1, [], [])


def test_the_vector_is_read() -> None:
    assert requested(0x000000007F00101F << 64 | 0xF000000500000108) == PageRequest(
        slot(0x108, 5), 0x7F00_1000, read=True, write=True, group=0x1F, last=True
    )
    assert requested(0xC000_0005_0000_0108).stops
    # Without SubstreamID it is a request as any other, and what stands there is unknown.
    assert not requested(0x4000_0005_0000_0108).stops
    assert requested(0x4000_0005_0002_0108).slot == Slot(Rid(2, 1, 1, 0))


@pytest.mark.parametrize("log2size", [0, 1, 3])
def test_overflow_from_the_last_entry_to_one_beyond_and_back(log2size: int) -> None:
    machine, entries = queued(log2size, PPAR), 1 << log2size
    ask(machine, *(numbered(number) for number in range(entries)))
    assert machine.get("PRIQ_PROD") == entries
    ask(machine, ENDS)
    assert machine.get("PRIQ_PROD") == OVERFLOW | entries
    assert machine.bus.answers == [(8, 5, 3, "success")]
    # Room alone is not enough: nothing is queued until the overflow is acknowledged.
    machine.unit.write_register("PRIQ_CONS", entries)
    ask(machine, ENDS._replace(group=4), ASKS, STOPS)
    assert machine.get("PRIQ_PROD") == OVERFLOW | entries
    assert machine.bus.answers == [(8, 5, 3, "success"), (8, 5, 4, "success")]
    machine.unit.write_register("PRIQ_CONS", OVERFLOW | entries)
    # The ring wraps: its entries are written again.
    ask(machine, *(numbered(0x80 + number) for number in range(entries)))
    assert machine.get("PRIQ_PROD") == OVERFLOW
    assert [page(machine, index) for index in range(entries)] == [0x80 + index for index in range(entries)]
    ask(machine, ASKS)
    # The flag changes back: that is the next overflow.
    assert machine.get("PRIQ_PROD") == 0
    assert len(machine.bus.answers) == 2


def test_no_larger_than_the_unit_says() -> None:
    """PRIQS is 1 here."""
    machine = queued(8, idr1=DEFAULTS["IDR1"] & ~(0x1F << 11) | 1 << 11)
    ask(machine, ASKS, ASKS, ASKS)
    assert machine.get("PRIQ_PROD") == OVERFLOW | 2


# What the unit answers by itself


@pytest.mark.parametrize(
    ("where", "changes", "idr3", "answer"),
    [
        (ONE_5, {}, 0, (8, None, 3, "success")),
        (ONE_5, PPAR, 0, (8, 5, 3, "success")),
        (ONE_5, {}, PPS, (8, 5, 3, "success")),
        # Whose STE does not tell: one that is not valid, one out of the table; but with PPS nobody looks.
        (slot(14, 5), {}, 0, (14, None, 3, "failure")),
        (slot(99, 5), {}, 0, (99, None, 3, "failure")),
        (slot(14, 5), {}, PPS, (14, 5, 3, "success")),
        # Without PASID nobody looks, either.
        (ONE, PPAR, 0, (8, None, 3, "success")),
        (UNUSED, {}, 0, (14, None, 3, "success")),
    ],
)
def test_answers_of_a_full_queue(
    where: Slot, changes: dict[int, int], idr3: int, answer: tuple[int, int | None, int, str]
) -> None:
    machine = queued(0, changes, idr3=DEFAULTS["IDR3"] | idr3)
    ask(machine, ASKS)
    ask(machine, *(request._replace(slot=where) for request in (ASKS, ENDS, ASKS)))
    assert machine.bus.answers == [answer]
    # It tells by the flag alone.
    assert (machine.get("GERROR"), machine.records()) == (0, [])


@pytest.mark.parametrize("idr3", [0, PPS])
@pytest.mark.parametrize("cr0", [ON & ~PRIQEN, ON & ~SMMUEN, 0])
def test_a_queue_that_is_off(cr0: int, idr3: int) -> None:
    machine = queued(3, PPAR, idr3=DEFAULTS["IDR3"] | idr3)
    machine.unit.write_register("CR0", cr0)
    ask(machine, ASKS, ENDS, STOPS, ENDS._replace(slot=ONE))
    pasid = 5 if idr3 else None
    assert machine.bus.answers == [(8, pasid, 3, "failure"), (8, None, 3, "failure")]
    assert (machine.get("PRIQ_PROD"), machine.get("GERROR")) == (0, 0)
    machine.unit.write_register("CR0", ON)
    ask(machine, ASKS)
    assert (machine.get("PRIQ_PROD"), page(machine, 0)) == (1, 5)


def test_a_unit_without_page_requests() -> None:
    machine = queued(3, idr0=idr0_with(PRI=0))
    ask(machine, ENDS)
    assert (machine.bus.answers, machine.get("PRIQ_PROD")) == ([(8, None, 3, "failure")], 0)


def test_a_queue_without_memory() -> None:
    """GERROR.PRIQ_ABT_ERR, and nothing is written until it is acknowledged, also when there is memory again."""
    machine = queued(3)
    machine.memory.read_only = (QUEUE, 0x1000)
    ask(machine, ASKS)
    assert (machine.get("GERROR"), machine.bus.answers) == (PRIQ_ABT_ERR, [])
    machine.memory.read_only = (0, 0)
    ask(machine, ENDS, STOPS)
    assert (machine.get("GERROR"), machine.bus.answers) == (PRIQ_ABT_ERR, [(8, None, 3, "failure")])
    assert machine.get("PRIQ_PROD") == 0
    machine.unit.write_register("GERRORN", PRIQ_ABT_ERR)
    ask(machine, ENDS)
    assert (machine.get("PRIQ_PROD"), len(machine.bus.answers)) == (1, 1)


def test_the_request_that_finds_no_memory_is_answered() -> None:
    machine = queued(3, base=NOWHERE)
    ask(machine, ENDS)
    assert (machine.get("GERROR"), machine.bus.answers) == (PRIQ_ABT_ERR, [(8, None, 3, "failure")])


def test_a_request_for_nothing_without_pasid_is_answered() -> None:
    machine = queued(0)
    ask(machine, ASKS, STOPS, STOPS._replace(slot=ONE))
    assert machine.bus.answers == [(8, None, 3, "success")]


# Answers of software, through the command queue


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ((0x0000010800005841, 0x201F), (0x108, 5, 0x1F, "success")),  # C16
        ((0x0000010800005841, 0x101F), (0x108, 5, 0x1F, "invalid")),
        ((0x0000010800005841, 0x01FF), (0x108, 5, 0x1FF, "failure")),
        # Without SSV there is no PASID.
        ((0x0000010800005041, 0x2000), (0x108, None, 0, "success")),
    ],
)
def test_pri_resp(command: tuple[int, int], answer: tuple[int, int | None, int, str]) -> None:
    machine = handmade()
    assert machine.send(command) == 0
    assert machine.bus.answers == [answer]


def test_pri_resp_answers_nobody_where_it_is_not_carried_out() -> None:
    machine = handmade()
    assert machine.send((0x0000010800005841, 0x301F)) == ILL
    off = handmade(cr0=CMDQEN)
    # Also an illegal one is ignored.
    assert off.send((0x0000010800005841, 0x201F), (0x0000010800005841, 0x301F)) == 0
    assert machine.bus.answers == off.bus.answers == []


# The driver


def driven() -> tuple[Driven, list[Slot]]:
    """Two devices with PRI, their slots."""
    machine = Driven()
    rids = [machine.device(text, ats=True, pri=True) for text in ("00:01.0", "00:1f.0")]
    machine.sent()
    return machine, [Slot(rid, pasid) for rid in rids for pasid in (None, 5)]


def test_what_is_declared() -> None:
    assert Driven().driver.capabilities().page_responses == ("success", "invalid", "failure")
    assert Driven(idr0=idr0_with(PRI=0)).driver.capabilities().page_responses == ()


def test_the_stream_of_a_device_with_pri() -> None:
    """PPAR, with empty slots and with others."""
    machine, (by_rid, *_) = driven()
    assert machine.entry(by_rid.rid) == (1, 1 << 18)
    machine.attach(machine.domain(), by_rid)
    assert machine.entry(by_rid.rid)[1] >> 18 & 1 == 1
    other = machine.device("00:02.0", ats=True)
    assert machine.entry(other) == (1,)
    assert machine.check() == []
    machine.accounts()


def test_a_request_is_taken_once_and_answered() -> None:
    machine, slots = driven()
    request = PageRequest(slots[1], 0x7000, True, True, 0x1FF, True, privileged=True)
    ends = PageRequest(slots[0], 0x9000, False, True, 0, False)
    machine.unit.page_request(request)
    machine.unit.page_request(ends)
    assert machine.driver.take_page_requests() == ([request, ends], False)
    assert machine.unit.read_register("PRIQ_CONS") == 2
    assert machine.driver.take_page_requests() == ([], False)
    machine.driver.respond(slots[1], 0x1FF, "success")
    machine.driver.respond(slots[0], 1, "failure")
    machine.driver.respond(slots[0], 2, "invalid")
    assert machine.sent() == [
        (0x8_0000_5841, 0x21FF), "sync", (0x8_0000_0041, 0x0001), "sync", (0x8_0000_0041, 0x1002), "sync"
    ]  # fmt: skip
    assert machine.bus.answers == [(8, 5, 0x1FF, "success"), (8, None, 1, "failure"), (8, None, 2, "invalid")]


def test_an_overflow_is_told_once_and_leaves_parts_of_groups_out() -> None:
    machine, (_, where, other, *_) = driven()
    numbers = count()

    def send(request: PageRequest) -> PageRequest:
        request = request._replace(iova=next(numbers) << 12)
        machine.unit.page_request(request)
        return request

    part = PageRequest(where, 0, True, False, 1, last=False)
    whole = [send(part), send(part._replace(slot=other)), send(part._replace(last=True))]
    stop = send(PageRequest(where, 0, False, False, 1, last=True))
    for _ in range(252):
        send(part)
    assert machine.unit.read_register("PRIQ_PROD") == 256
    send(part._replace(last=True))
    assert machine.bus.answers == [(8, 5, 1, "success")]
    assert machine.driver.take_page_requests() == ([whole[0], whole[2], stop], True)
    assert machine.driver.take_page_requests() == ([], False)
    after = send(part)
    # Where nothing was lost, parts of groups are handed over.
    assert machine.driver.take_page_requests() == ([after], False)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_any_sequence_of_requests_and_answers(steps: list[tuple[str, int, int]]) -> None:
    machine, slots = driven()
    # A queue that is nearly full from the beginning, so that some sequences overflow it.
    for _ in range(250):
        machine.unit.page_request(PageRequest(slots[1], 0, False, False, 0, last=True))
    any_sequence(machine, lambda: machine.driver, slots, steps)
