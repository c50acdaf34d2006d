# SPDX-License-Identifier: Apache-2.0
"""Page requests on a kernel in this process: queued for slots that are served, and answered each exactly once."""

import pytest

from iommuctl.errors import KernelRefused, NotWaiting, Unsupported
from iommuctl.iommufd import uapi
from iommuctl.iommufd.session import PLACEHOLDERS
from iommuctl.model import Slot
from tests.kernel.asking import CHANGES, INVALID, QUEUE, READS, SUCCESS, WRITES, answered, ask, prepare, queues, waiting
from tests.kernel.bench import PAGE, Bench
from tests.kernel.host import NODES, ONE, TWO
from tests.kernel.objects import Hwpt, Ioas
from tests.kernel.objects import Page as Wanted


@pytest.fixture
def asked(bench: Bench) -> Bench:
    prepare(bench)
    return bench


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
