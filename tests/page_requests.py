# SPDX-License-Identifier: Apache-2.0
"""Page requests as devices send them, of either architecture: whatever they ask for, each group has one answer."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hypothesis import strategies as st

from iommuctl.architecture import PageRequest, PageRequests, PageResponse, Unit
from iommuctl.model import Rid, Slot
from tests.machine import SilentBus

Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask"] * 6 + ["end"] * 3 + ["stop", "take", "answer", "answer"]),
        st.integers(0, 3),
        st.integers(0, 2),
    ),
    max_size=120,
)
"""What happens: devices ask for pages and end groups and stop; software takes requests and answers groups."""


class Machine(Protocol):
    """A machine whose driver takes page requests."""

    @property
    def bus(self) -> SilentBus: ...

    @property
    def unit(self) -> Unit: ...


class Devices:
    """Devices of several slots, which give an index again only when its group was answered.

    Software collects requests in groups, and forgets the groups that it has begun where the queue has overflowed.
    """

    def __init__(self, machine: Machine, driver: Callable[[], PageRequests], slots: Sequence[Slot]) -> None:
        self._machine = machine
        self._driver = driver
        self._slots = slots
        self._sent = 0
        self.waiting: set[tuple[Slot, int]] = set()
        """Groups whose last request was sent, and that were not answered."""
        self.asked: dict[tuple[Slot, int], list[PageRequest]] = {}
        """The requests of each group that is not answered."""
        self.begun: dict[tuple[Slot, int], list[PageRequest]] = {}
        self.collected: dict[tuple[Slot, int], list[PageRequest]] = {}
        """What software has: groups without their last request, and with it."""
        self.last_taken: dict[Slot, int] = {}

    def do(self, step: Step) -> None:
        what, which, group = step
        slot = self._slots[which]
        if what in ("ask", "end"):
            if (slot, group) not in self.waiting:
                self.send(slot, group, last=what == "end")
        elif what == "stop":
            if slot.pasid is not None:
                self._machine.unit.page_request(PageRequest(slot, 0, False, False, 0, last=True))
        elif what == "take":
            self.take()
        elif self.collected:
            self.answer(sorted(self.collected, key=repr)[which % len(self.collected)], "success")
        self.hear()

    def send(self, slot: Slot, group: int, *, last: bool) -> None:
        self._sent += 1
        request = PageRequest(slot, self._sent << 12, True, bool(group), group, last)
        self.asked.setdefault((slot, group), []).append(request)
        if last:
            self.waiting.add((slot, group))
        self._machine.unit.page_request(request)

    def take(self) -> None:
        requests, overflow = self._driver().take_page_requests()
        if overflow:
            self.begun.clear()
        for request in requests:
            slot = request.slot
            if request.stops:
                continue
            # The page tells when it was sent.
            assert request.iova > self.last_taken.get(slot, 0), "out of order"
            self.last_taken[slot] = request.iova
            key = slot, request.group
            assert request in self.asked[key]
            self.begun.setdefault(key, []).append(request)
            if request.last:
                assert key in self.waiting
                self.collected[key] = self.begun.pop(key)

    def answer(self, key: tuple[Slot, int], response: PageResponse) -> None:
        del self.collected[key]
        self._driver().respond(*key, response)
        assert [(key[0].rid.source_id, key[0].pasid, key[1], response)] == self._machine.bus.answers

    def hear(self) -> None:
        """What devices were answered: groups that they wait for, and no others."""
        for source, pasid, group, _ in self._machine.bus.answers:
            key = Slot(Rid(0, source >> 8, source >> 3 & 0x1F, source & 7), pasid), group
            self.waiting.remove(key)
            del self.asked[key]
            assert key not in self.collected
        self._machine.bus.answers.clear()

    def finish(self) -> None:
        """Software takes all and answers all: then nobody waits."""
        self.take()
        self.hear()
        for key in [*self.collected]:
            self.answer(key, "invalid")
            self.hear()
        assert not self.waiting


def any_sequence(machine: Machine, driver: Callable[[], Any], slots: Sequence[Slot], steps: Sequence[Step]) -> None:
    """Nothing is lost, nothing is answered twice, and each slot's requests keep their order."""
    devices = Devices(machine, driver, slots)
    for step in steps:
        devices.do(step)
    devices.finish()
