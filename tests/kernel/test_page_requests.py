# SPDX-License-Identifier: Apache-2.0
"""Page requests on a kernel in this process: queued for slots that are served, and answered each exactly once."""

import random
from collections.abc import Callable

import pytest

from iommuctl import Iommu
from iommuctl.errors import IommuError, KernelRefused, NotWaiting, Unsupported
from iommuctl.handlers import Handler
from iommuctl.iommufd import uapi
from iommuctl.iommufd.session import PLACEHOLDERS
from iommuctl.model import Slot
from tests.kernel.bench import PAGE, Bench
from tests.kernel.calls import READ, WRITE, Killed
from tests.kernel.host import NODES, ONE, TWO
from tests.kernel.objects import FaultQueue, Hwpt, Ioas
from tests.kernel.objects import Page as Wanted
from tests.thorough import THOROUGH

READS, WRITES = uapi.IOMMU_PGFAULT_PERM_READ, uapi.IOMMU_PGFAULT_PERM_WRITE
SUCCESS, INVALID = uapi.IOMMUFD_PAGE_RESP_SUCCESS, uapi.IOMMUFD_PAGE_RESP_INVALID
QUEUE = Handler("queue")


@pytest.fixture
def asked(bench: Bench) -> Bench:
    """`d` in ONE and its PASID 5, a page table nested on `p` in PASID 6; `d` in TWO, which has no PRI; all served."""
    iommu = bench.iommu
    iommu.device_bind(ONE)
    iommu.device_bind(TWO)
    iommu.memory_create("m", 16 * PAGE)
    for name, parent in (("d", False), ("e", False), ("p", True)):
        iommu.domain_create(name, nest_parent=parent)
        iommu.map(name, iova=0, size=16 * PAGE, memory="m")
    for rid, pasid in ((ONE, None), (ONE, 5), (TWO, None)):
        iommu.attach("d", rid, pasid=pasid)
    iommu.bind_pgtable("p", ONE, addr=PAGE, pasid=6)
    changed = [*iommu.handler_set("d", QUEUE), *iommu.handler_set("p", QUEUE)]
    assert [held.slot for held in changed] == [Slot(ONE), Slot(ONE, 5), Slot(ONE, 6)]
    bench.assert_agrees()
    return bench


def ask(bench: Bench, number: int, *pages: int, pasid: int | None = None) -> None:
    """ONE asks to read pages."""
    wanted = [Wanted(page, READS) for page in pages or (PAGE,)]
    assert bench.kernel.request(NODES[ONE], number, *wanted, pasid=pasid)


def answered(bench: Bench) -> list[tuple[int | None, int, int]]:
    """What ONE was told: PASID, number of the group, code."""
    return bench.device(ONE).answered


def waiting(iommu: Iommu) -> list[tuple[int | None, int]]:
    return [(group.slot.pasid, group.requests[0].group) for group in iommu.faults().waiting]


def queues(bench: Bench) -> list[int]:
    return [number for number, one in bench.kernel.objects.items() if isinstance(one, FaultQueue)]


# What is there


def test_served_slots_have_tables_of_their_own_over_what_is_mapped(asked: Bench) -> None:
    objects, ioas = asked.kernel.objects, asked.rows("domain")[str(asked.iommu.domain("d").id)]["ioas"]
    tables = [objects[pt] for _, pt in sorted(asked.device(ONE).slots.items(), key=str)]
    assert all(isinstance(table, Hwpt) and table.fault for table in tables)
    assert len({table.fault for table in tables if isinstance(table, Hwpt)}) == 3
    assert [table.under for table in tables if isinstance(table, Hwpt) and not table.nested] == [ioas, ioas]
    shared = objects[asked.device(TWO).slots[None]]
    assert isinstance(shared, Hwpt)
    assert not shared.fault
    assert isinstance(objects[ioas], Ioas)
    asked.iommu.unmap("d", iova=0, size=16 * PAGE)
    asked.assert_agrees()


def test_clearing_takes_all_of_it_back(asked: Bench) -> None:
    iommu = asked.iommu
    assert [held.slot for held in iommu.handler_clear("d")] == [Slot(ONE), Slot(ONE, 5)]
    assert [held.slot for held in iommu.handler_clear("p")] == [Slot(ONE, 6)]
    assert iommu.handler_clear("p") == []
    assert queues(asked) == []
    assert len(set(asked.device(ONE).slots.values()) | set(asked.device(TWO).slots.values())) == 2
    assert [name for name in asked.held() if name.startswith("page-requests")] == []
    asked.assert_agrees()


def test_a_slot_s_own_handler_stays_when_that_of_its_domain_goes(asked: Bench) -> None:
    before = queues(asked)
    assert asked.iommu.handler_set(str(ONE), QUEUE, pasid=5) == []
    assert [held.slot for held in asked.iommu.handler_clear("d")] == [Slot(ONE)]
    assert len(queues(asked)) == len(before) - 1
    asked.assert_agrees()


def test_a_device_without_page_requests_is_not_served(asked: Bench) -> None:
    with pytest.raises(Unsupported, match=f"{TWO} asks for no pages"):
        asked.iommu.handler_set(str(TWO), QUEUE)


def test_a_nest_parent_alone_has_no_queue(asked: Bench) -> None:
    asked.iommu.attach("p", ONE, pasid=7)
    assert "queue" not in asked.rows("slot")[str(Slot(ONE, 7))]
    asked.iommu.bind_pgtable("p", ONE, addr=PAGE, pasid=7)
    assert "queue" in asked.rows("slot")[str(Slot(ONE, 7))]
    asked.iommu.unbind_pgtable("p", ONE, pasid=7)
    assert "queue" not in asked.rows("slot")[str(Slot(ONE, 7))]
    asked.assert_agrees()


def test_all_of_it_goes_with_the_device(asked: Bench) -> None:
    asked.iommu.device_unbind(ONE, force=True)
    asked.iommu.domain_destroy("p")
    assert queues(asked) == []
    assert asked.rows("domain")[str(asked.iommu.domain("d").id)]["hwpts"].keys() == {"unit0 with PASIDs"}
    asked.assert_agrees()


def test_a_dry_run_shows_the_calls(asked: Bench) -> None:
    iommu = asked.iommu
    iommu.handler_clear("d")
    ask(asked, 1, pasid=6)
    (group,) = iommu.faults().waiting
    iommu.dry_run = True
    iommu.handler_set("d", QUEUE)
    assert [call.name for call in iommu.last.calls] == 2 * [
        "IOMMU_FAULT_QUEUE_ALLOC", "IOMMU_HWPT_ALLOC", "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
    ]  # fmt: skip
    assert iommu.last.calls[1].fields["flags"] == uapi.IOMMU_HWPT_FAULT_ID_VALID | uapi.IOMMU_HWPT_ALLOC_PASID
    assert iommu.last.calls[1].fields["fault_id"] >= PLACEHOLDERS
    iommu.respond(group.id, "invalid")
    assert iommu.last.calls == (("write iommu_hwpt_page_response", {"cookie": 1, "code": INVALID}),)
    iommu.dry_run = False
    assert answered(asked) == []
    asked.assert_agrees()


@pytest.mark.parametrize("call", [uapi.IOMMU_FAULT_QUEUE_ALLOC, uapi.IOMMU_HWPT_ALLOC])
def test_a_table_that_the_kernel_refuses_leaves_what_waits(asked: Bench, call: int) -> None:
    iommu = asked.iommu
    iommu.handler_set(str(ONE), QUEUE)
    ask(asked, 1)
    asked.kernel.refuse(call)
    with pytest.raises(KernelRefused):
        iommu.attach("e", ONE, replace=True)
    assert waiting(iommu) == [(None, 1)]
    assert answered(asked) == []
    asked.assert_agrees()


# Groups


@pytest.mark.parametrize("pasid", [None, 5, 6])
def test_a_group_of_several_pages_is_one(asked: Bench, pasid: int | None) -> None:
    iommu = asked.iommu
    wanted = [Wanted(PAGE, READS), Wanted(2 * PAGE, WRITES | uapi.IOMMU_PGFAULT_PERM_PRIV), Wanted(0, READS)]
    assert asked.kernel.request(NODES[ONE], 9, *wanted, pasid=pasid)
    (group,) = iommu.faults().waiting
    assert group.slot == Slot(ONE, pasid)
    assert [(each.iova, each.read, each.write, each.privileged, each.last) for each in group.requests] == [
        (PAGE, True, False, False, False), (2 * PAGE, False, True, True, False), (0, True, False, False, True),
    ]  # fmt: skip
    asked.assert_agrees()
    iommu.respond(group.id, "success")
    with pytest.raises(NotWaiting):
        iommu.respond(group.id, "success")
    ask(asked, 10, pasid=pasid)
    (group,) = iommu.faults().waiting
    with pytest.raises(Unsupported):
        iommu.respond(group.id, "failure")
    assert answered(asked) == [(pasid, 9, SUCCESS)]
    asked.assert_agrees()


def test_a_group_larger_than_a_read(asked: Bench) -> None:
    ask(asked, 1)
    ask(asked, 2, *(page * PAGE for page in range(600)))
    ask(asked, 3)
    assert waiting(asked.iommu) == [(None, 1), (None, 2), (None, 3)]
    asked.assert_agrees()


def test_a_request_for_nothing_is_answered_at_once(asked: Bench) -> None:
    """With a PASID it looks like a stop marker, and the kernel waits for an answer all the same."""
    assert asked.kernel.request(NODES[ONE], 1, Wanted(PAGE, 0), pasid=5)
    assert asked.kernel.request(NODES[ONE], 2, Wanted(PAGE, READS), Wanted(PAGE, 0), pasid=5)
    assert waiting(asked.iommu) == [(5, 2)]
    assert answered(asked) == [(5, 1, INVALID)]
    asked.assert_agrees()


def test_cookies_are_used_again(asked: Bench) -> None:
    iommu = asked.iommu
    for number in range(4):
        ask(asked, number)
    for group in iommu.faults().waiting[::2]:
        iommu.respond(group.id, "success")
    ask(asked, 8)
    ask(asked, 9)
    assert waiting(iommu) == [(None, 1), (None, 3), (None, 8), (None, 9)]
    asked.assert_agrees()
    iommu.respond(iommu.faults().waiting[2].id, "invalid")
    assert answered(asked) == [(None, 0, SUCCESS), (None, 2, SUCCESS), (None, 8, INVALID)]
    asked.assert_agrees()


# What ends them


CHANGES: dict[str, tuple[int | None, Callable[[Iommu], object]]] = {
    "detach": (5, lambda iommu: iommu.detach("d", ONE, pasid=5)),
    "replace": (5, lambda iommu: iommu.attach("e", ONE, pasid=5, replace=True)),
    "unbind": (6, lambda iommu: iommu.unbind_pgtable("p", ONE, pasid=6)),
    "clear": (5, lambda iommu: iommu.handler_clear("d")),
    "destroy": (6, lambda iommu: iommu.domain_destroy("p", force=True)),
    "device unbind": (None, lambda iommu: iommu.device_unbind(ONE, force=True)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_waits_is_answered_invalid_when_its_table_goes(asked: Bench, name: str) -> None:
    pasid, change = CHANGES[name]
    iommu, told = asked.iommu, answered(asked)
    ask(asked, 1, pasid=pasid)
    ask(asked, 2, pasid=pasid)
    assert len(iommu.faults().waiting) == 2
    ask(asked, 3, pasid=pasid)
    groups = iommu.faults().waiting[:2]
    change(iommu)
    assert told == [(pasid, 1, INVALID), (pasid, 2, INVALID), (pasid, 3, INVALID)]
    assert iommu.faults().waiting == ()
    found = [iommu.page_group(group.id) for group in groups]
    assert [(each.answer, each.by) for each in found if each] == 2 * [("invalid", "a change of the slot")]
    asked.assert_agrees()


def test_what_waits_elsewhere_goes_on_waiting(asked: Bench) -> None:
    ask(asked, 1)
    ask(asked, 1, pasid=6)
    asked.iommu.detach("d", ONE, pasid=5)
    assert waiting(asked.iommu) == [(None, 1), (6, 1)]
    assert answered(asked) == []
    asked.assert_agrees()


def test_all_that_waited_is_over_when_all_is_lost(asked: Bench) -> None:
    ask(asked, 1)
    (group,) = asked.iommu.faults().waiting
    asked.kill_keeper()
    iommu = asked.reopen()
    assert [each.id for each in iommu.faults().waiting] == [group.id]
    iommu.rebuild_lost()
    assert iommu.faults().waiting == ()
    assert len(queues(asked)) == 3
    ask(asked, 2, pasid=6)
    assert waiting(iommu) == [(6, 2)]
    asked.assert_agrees()


def test_a_device_that_is_gone_blocks_nothing(asked: Bench) -> None:
    del asked.host.drivers[ONE]
    asked.kernel.kill(uapi.IOMMU_IOAS_ALLOC, made=True)
    iommu = asked.killed(lambda: asked.iommu.domain_create("n"))
    iommu.domain_create("n")
    assert iommu.faults().waiting == ()


# Commands that are killed, and transactions that fail


def test_what_a_reader_took_out_that_died_is_answered_invalid(asked: Bench) -> None:
    iommu = asked.iommu
    for number in range(5):
        ask(asked, number)
    for group in iommu.faults().waiting[1:4:2]:
        iommu.respond(group.id, "success")
    told = answered(asked)[:]
    for number in range(10, 14):
        ask(asked, number)
    asked.kernel.kill(READ, made=True)
    iommu = asked.killed(iommu.faults)
    assert waiting(iommu) == [(None, 0), (None, 2), (None, 4)]
    assert answered(asked) == told + [(None, number, INVALID) for number in range(10, 14)]
    asked.assert_agrees()


def test_a_cookie_that_was_answered_and_given_again_is_not_answered_by_the_repair(asked: Bench) -> None:
    iommu = asked.iommu
    ask(asked, 1)
    (group,) = iommu.faults().waiting

    def change() -> None:
        with iommu.transaction():
            iommu.respond(group.id, "success")
            ask(asked, 2)
            assert [each.token for each in iommu.faults().waiting] == [group.token]
            iommu.domain_destroy("nobody")

    with pytest.raises(IommuError):
        change()
    assert answered(asked) == [(None, 1, SUCCESS)]
    assert waiting(iommu) == [(None, 2)]
    asked.assert_agrees()


COMMANDS: dict[str, Callable[[Iommu], object]] = {
    "list": lambda iommu: iommu.faults(),
    "respond": lambda iommu: iommu.respond(iommu.faults().waiting[0].id, "success"),
    "set": lambda iommu: iommu.handler_set("e", QUEUE),
    **{name: change for name, (_, change) in CHANGES.items() if name != "device unbind"},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_any_call_each_group_is_answered_once(asked: Bench, name: str) -> None:
    """And what waits then is what rows say waits, in a slot as it was or as it was to be."""
    asked.iommu.attach("e", ONE, pasid=9)
    deaths, number = 0, 0
    for call in range(CALLS):
        for made in (False, True):
            for pasid in (5, 6):
                number += 2
                ask(asked, number - 1, pasid=pasid)
                asked.iommu.faults()
                ask(asked, number, pasid=pasid)
            asked.kernel.kill(None, skip=call, made=made)
            try:
                COMMANDS[name](asked.iommu)
            except Killed:
                deaths += 1
            else:
                asked.reopen()
                asked.assert_agrees()
                assert deaths > 1
                _each_once(asked, number)
                return
            iommu = asked.reopen()
            iommu.faults()
            asked.assert_agrees()
            _as_before(iommu)
            asked.assert_agrees()
    raise AssertionError(f"more than {CALLS} calls")


CALLS = 30
"""More than any of these commands makes."""


def _as_before(iommu: Iommu) -> None:
    """What COMMANDS change."""
    iommu.handler_clear("e")
    iommu.handler_set("d", QUEUE)
    slots = {held.slot: held for held in iommu.slots(rid=ONE)}
    if not any(domain.name == "p" for domain in iommu.domains()):
        iommu.domain_create("p", nest_parent=True)
        iommu.handler_set("p", QUEUE)
    if (held := slots.get(Slot(ONE, 5))) is None or held.domain.name != "d":
        iommu.attach("d", ONE, pasid=5, replace=True)
    if Slot(ONE, 6) not in slots:
        iommu.bind_pgtable("p", ONE, addr=PAGE, pasid=6)


def _each_once(bench: Bench, number: int) -> None:
    told = answered(bench)
    bench.iommu.detach("d", ONE)
    bench.iommu.device_unbind(ONE, force=True)
    assert sorted(each for _, each, _ in told) == list(range(1, number + 1))


@pytest.mark.parametrize("seed", range(40 if THOROUGH else 1))
def test_any_commands_killed_anywhere(asked: Bench, seed: int) -> None:
    """Whatever is asked, done and killed, each group is answered once in the end."""
    chance, number = random.Random(seed), 0
    for _ in range(60 if THOROUGH else 25):
        served = [pasid for pasid in (None, 5, 6) if "queue" in (asked.rows("slot").get(str(Slot(ONE, pasid))) or {})]
        for pasid in chance.choices(served, k=chance.randrange(4)) if served else ():
            number += 1
            ask(asked, number, *(PAGE for _ in range(chance.randint(1, 3))), pasid=pasid)
        if chance.random() < 0.6:
            asked.kernel.kill(chance.choice([None, READ, WRITE]), skip=chance.randrange(9), made=chance.random() < 0.5)
        iommu = asked.iommu
        name = chance.choice(["list", "respond", "set", "detach", "replace", "unbind", "clear", "again"])
        try:
            if name == "again":
                _as_before(iommu)
            elif name != "respond" or iommu.faults().waiting:
                COMMANDS[name](iommu)
        except (Killed, IommuError):
            pass
        asked.reopen().faults()
        asked.assert_agrees()
    _as_before(asked.iommu)
    _each_once(asked, number)
