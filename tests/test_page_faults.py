# SPDX-License-Identifier: Apache-2.0
"""The core and page requests, on simulated machines: what is taken, who may answer, what a change of a slot answers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from iommuctl import Iommu
from iommuctl.architecture import PageRequest, PageResponse
from iommuctl.errors import IommuError, NoSuchDomain, NoSuchFault, NotWaiting, Unsupported, Usage
from iommuctl.handlers import Handler, HandlerOf, Pages
from iommuctl.model import Rid, Slot
from iommuctl_sim.system import System

A, B = Rid(0, 0, 1, 0), Rid(0, 0, 2, 0)
SLOTS = (Slot(A), Slot(A, 5), Slot(B, 5))
_T = TypeVar("_T")


def within(iommu: Iommu, act: Callable[[System], _T]) -> _T:
    """What is done in the machine itself."""
    with iommu._change() as operation:
        return act(System(operation.transaction))


def ask(iommu: Iommu, slot: Slot, group: int = 0, *, page: int = 1, last: bool = True) -> None:
    """A device asks for a page, to read it."""
    request = PageRequest(slot, page << 12, read=True, write=False, group=group, last=last)
    within(iommu, lambda system: system.page_request(request))


def told(iommu: Iommu) -> dict[tuple[Slot, int], PageResponse | None]:
    """What devices were answered for their groups; None for those that wait."""
    return {
        (each.slot, each.group): each.answer for each in within(iommu, lambda system: system.groups.all()) if each.ended
    }


def waiting(iommu: Iommu) -> list[tuple[int, Slot]]:
    return [(group.id, group.slot) for group in iommu.faults().waiting]


@pytest.fixture(params=["vtd", "smmuv3"])
def iommu(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Iommu]:
    """A machine with two devices that ask for pages, and a domain in each slot of SLOTS."""
    with Iommu(tmp_path / "state", backend="sim") as made:
        prepare(made, request.param)
        yield made


def prepare(iommu: Iommu, architecture: str) -> None:
    iommu.setup(architecture=architecture)
    iommu.domain_create("d")
    iommu.domain_create("e")
    for rid in (A, B):
        iommu.device_add(rid, ats=True, pri=True, pasid_bits=8)
        iommu.attach("d", rid)
    iommu.attach("d", A, pasid=5)
    iommu.attach("d", B, pasid=5)


# Answers


@pytest.mark.parametrize("response", ["success", "invalid", "failure"])
def test_a_group_is_answered_once(iommu: Iommu, response: PageResponse) -> None:
    ask(iommu, SLOTS[1], 3, last=False)
    assert iommu.faults().waiting == ()
    ask(iommu, SLOTS[1], 3, page=2)
    (group,) = iommu.faults().waiting
    assert (group.slot, [each.iova for each in group.requests]) == (SLOTS[1], [0x1000, 0x2000])
    assert iommu.respond(group.id, response) == group
    assert told(iommu) == {(SLOTS[1], 3): response}
    assert iommu.faults().waiting == ()
    with pytest.raises(NotWaiting, match=f"was answered {response}"):
        iommu.respond(group.id, "success")
    answered = iommu.page_group(group.id)
    assert answered
    assert (answered.answer, answered.by) == (response, "fault respond")
    assert told(iommu) == {(SLOTS[1], 3): response}


def test_ids_that_nobody_waits_at(iommu: Iommu) -> None:
    assert iommu.dma(A, 0x1000, size=1).fault
    (known,) = iommu.faults().faults
    with pytest.raises(NotWaiting, match=f"fault {known.id} waits for no answer"):
        iommu.respond(known.id, "success")
    ask(iommu, SLOTS[0], last=False)
    iommu.faults()
    for key in (0, -1, known.id + 2, 1 << 62):
        with pytest.raises(NoSuchFault):
            iommu.respond(key, "success")
    # A group that has only begun is nobody's to answer yet.
    with pytest.raises(NotWaiting):
        iommu.respond(known.id + 1, "success")
    assert told(iommu) == {}


def test_a_dry_run_answers_nothing(iommu: Iommu) -> None:
    ask(iommu, SLOTS[0])
    (group,) = iommu.faults().waiting
    iommu.dry_run = True
    iommu.respond(group.id, "success")
    assert iommu.last.commands
    iommu.dry_run = False
    assert told(iommu) == {(SLOTS[0], 0): None}
    assert waiting(iommu) == [(group.id, SLOTS[0])]


def test_where_nobody_is_told_of_page_requests(tmp_path: Path) -> None:
    with Iommu(tmp_path / "state", backend="sim") as iommu:
        iommu.setup(options={"mode": "legacy"})
        iommu.domain_create("d")
        assert not iommu.capabilities().page_responses
        with pytest.raises(NoSuchFault):
            iommu.respond(1, "success")
        with pytest.raises(Unsupported, match="nobody is told of page requests"):
            iommu.handler_set("d", Handler("reject"))


# Slots that change

CHANGES: dict[str, Callable[[Iommu], object]] = {
    "detach": lambda iommu: iommu.detach("d", A, pasid=5),
    "replace": lambda iommu: iommu.attach("e", A, pasid=5, replace=True),
    "destroy": lambda iommu: iommu.domain_destroy("d", force=True),
    "remove": lambda iommu: iommu.device_remove(A, force=True),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("read", [False, True], ids=["in the queue", "read before"])
def test_what_waits_in_a_slot_that_changes_is_answered_invalid(iommu: Iommu, change: str, read: bool) -> None:
    """In the order in which it came; what waits elsewhere goes on waiting."""
    for group in (2, 0, 1):
        ask(iommu, SLOTS[1], group)
    ask(iommu, SLOTS[1], 3, last=False)
    ask(iommu, Slot(B, 6), 0)
    if read:
        iommu.faults()
    CHANGES[change](iommu)
    names = [command.fields.get("PRGI", command.fields.get("PRGIndex")) for command in iommu.last.commands]
    assert [name for name in names if name is not None] == [2, 0, 1]
    left = told(iommu)
    assert left.pop((Slot(B, 6), 0)) is None
    assert set(left.values()) == (set() if change == "remove" else {"invalid"})
    assert waiting(iommu) == [(5, Slot(B, 6))]
    answered = [iommu.page_group(key) for key in (1, 2, 3)]
    assert [(each.answer, each.by) for each in answered if each] == [("invalid", "a change of the slot")] * 3
    with pytest.raises(NotWaiting):
        iommu.respond(1, "success")


def test_what_begins_before_a_change_ends_as_a_group_after_it(iommu: Iommu) -> None:
    ask(iommu, SLOTS[1], 0, page=1, last=False)
    iommu.attach("e", A, pasid=5, replace=True)
    ask(iommu, SLOTS[1], 0, page=2)
    (group,) = iommu.faults().waiting
    assert [each.iova for each in group.requests] == [0x2000]


def test_a_change_that_fails_answers_nothing(iommu: Iommu) -> None:
    ask(iommu, SLOTS[1])
    with pytest.raises(NoSuchDomain), iommu.transaction():
        detach_and_fail(iommu)
    assert told(iommu) == {(SLOTS[1], 0): None}
    assert waiting(iommu) == [(1, SLOTS[1])]


def detach_and_fail(iommu: Iommu) -> None:
    iommu.detach("d", A, pasid=5)
    iommu.detach("nobody", A)


# Handlers


def test_handlers_of_domains_and_slots(iommu: Iommu) -> None:
    assert iommu.handlers() == []
    iommu.memory_create("m", 0x4000)
    demand = Handler("demand-map", pages=Pages("m", 0x1000, 0x2000, 0x1000))
    program = Handler("exec", ("/bin/true", "a b", ""))
    assert iommu.handler_set("d", Handler("reject")) == []
    iommu.handler_set(str(A), demand)
    iommu.handler_set("00:01.0", program, pasid=5)
    iommu.handler_set("id:2", Handler("queue"))
    assert iommu.handlers() == [
        HandlerOf("d", None, Handler("reject")),
        HandlerOf("e", None, Handler("queue")),
        HandlerOf(None, SLOTS[0], demand),
        HandlerOf(None, SLOTS[1], program),
    ]
    iommu.handler_set("e", Handler("reject"))
    iommu.handler_clear(str(A))
    iommu.handler_clear(str(A))
    iommu.device_remove(A, force=True)
    iommu.domain_destroy("d", force=True)
    assert iommu.handlers() == [HandlerOf("e", None, Handler("reject"))]


def test_owners_that_are_none(iommu: Iommu) -> None:
    with pytest.raises(Usage, match="is no RID"):
        iommu.handler_set("d", Handler("reject"), pasid=5)
    for owner, pasid, error in (
        ("nobody", None, "no-such-domain"),
        ("id:9", None, "no-such-domain"),
        ("00:09.0", None, "no-such-device"),
        ("x:y", None, "bad-rid"),
        ("00:01.0", 0, "pasid-zero"),
        ("00:01.0", 256, "pasid-too-wide"),
    ):
        with pytest.raises(IommuError) as raised:
            iommu.handler_set(owner, Handler("reject"), pasid=pasid)
        assert raised.value.id == error
    assert iommu.handlers() == []


# Whatever happens, in any order


class Groups(RuleBasedStateMachine):
    """Devices ask, groups are answered, slots change: a device gets one answer to each group that it waits for.

    What the model knows is what devices sent, and when what they wait for was answered.
    """

    architecture: str

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        self.iommu = Iommu(Path(self._folder.name, "state"), backend="sim")
        prepare(self.iommu, self.architecture)
        self.open: dict[tuple[Slot, int], bool] = {}
        """Groups that have begun: whether their last request was sent."""
        self.order: dict[Slot, list[int]] = {}
        """The groups of each slot that wait, in the order in which they began to."""
        self.answers: dict[tuple[Slot, int], PageResponse] = {}

    def teardown(self) -> None:
        self.iommu.close()
        self._folder.cleanup()

    @initialize()
    def nothing_waits(self) -> None:
        assert waiting(self.iommu) == []

    @rule(slot=st.sampled_from(SLOTS), group=st.integers(0, 3), last=st.booleans())
    def asks(self, slot: Slot, group: int, last: bool) -> None:
        # An answer without a PASID may be for any group of that index: a device has one at a time.
        others = [key for key in self.open if key[1] == group and key[0].rid == slot.rid and key[0] != slot]
        if self.open.get((slot, group)) or others:
            return
        ask(self.iommu, slot, group, last=last)
        assert self.iommu.last.warnings == ()
        self.open[slot, group] = last
        if last:
            self.order.setdefault(slot, []).append(group)

    @rule()
    def is_listed(self) -> None:
        found = self.iommu.faults().waiting
        of_slots: dict[Slot, list[int]] = {}
        for group in found:
            of_slots.setdefault(group.slot, []).append(group.token)
        assert of_slots == {slot: groups for slot, groups in self.order.items() if groups}

    @rule(which=st.integers(0, 20), response=st.sampled_from(["success", "invalid"]))
    def is_answered(self, which: int, response: PageResponse) -> None:
        found = self.iommu.faults().waiting
        if found:
            group = found[which % len(found)]
            self.iommu.respond(group.id, response)
            assert self.iommu.last.warnings == ()
            self._answered(group.slot, group.token, response)

    @rule(slot=st.sampled_from(SLOTS[1:]))
    def changes(self, slot: Slot) -> None:
        held = {each.slot: each.domain.name for each in self.iommu.slots()}
        if slot in held:
            self.iommu.detach(held[slot], slot.rid, pasid=slot.pasid)
            assert self.iommu.last.warnings == ()
            for group in [*self.order.get(slot, [])]:
                self._answered(slot, group, "invalid")
        else:
            self.iommu.attach("e", slot.rid, pasid=slot.pasid)

    def _answered(self, slot: Slot, group: int, response: PageResponse) -> None:
        self.order[slot].remove(group)
        del self.open[slot, group]
        self.answers[slot, group] = response

    @invariant()
    def devices_know_what_they_were_told(self) -> None:
        expected: dict[tuple[Slot, int], PageResponse | None] = {**self.answers}
        for key, ended in self.open.items():
            expected.pop(key, None)
            if ended:
                expected[key] = None
        assert told(self.iommu) == expected


@pytest.mark.parametrize("architecture", ["vtd", "smmuv3"])
def test_whatever_happens_each_group_has_one_answer(architecture: str) -> None:
    machine = type("Machine", (Groups,), {"architecture": architecture})
    run_state_machine_as_test(machine, settings=settings(deadline=None, max_examples=30, stateful_step_count=25))
