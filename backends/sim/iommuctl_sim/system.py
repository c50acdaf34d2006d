# SPDX-License-Identifier: Apache-2.0
"""A simulated machine, put together for one transaction: unit, driver, devices, and who watches them."""

import contextlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any, cast

from iommuctl.architecture import Answer, Architecture, Driver, FaultRecords, PageRequest, PageRequests, Unit
from iommuctl.hookspecs import Context, UnmapRequest
from iommuctl.model import Slot
from iommuctl.page_requests import Asked, AskedPages, PageAnswer
from iommuctl.recorded import Events
from iommuctl_sim.bus import DeviceBus
from iommuctl_sim.device_tlb import DeviceTlbs, Question, Told
from iommuctl_sim.journal import Journal
from iommuctl_sim.page_groups import PageGroups
from iommuctl_sim.peek import Peek
from iommuctl_sim.sanitizer import Sanitizer, same
from iommuctl_sim.watched import WatchedContext, still_reached, torn

UNIT = "sim0"
"""The name of the only unit."""


class System:
    """The parts of the machine. Its architecture was chosen when the state folder was set up."""

    def __init__(self, context: Context) -> None:
        self.context = context

    @cached_property
    def architecture(self) -> Architecture:
        return self.context.architecture(self.context.rows.get("sim", "architecture"))

    @cached_property
    def tlbs(self) -> DeviceTlbs:
        return DeviceTlbs(self.context.rows, self._answer_that_is_wrong)

    @cached_property
    def groups(self) -> PageGroups:
        return PageGroups(self.context.rows, self.context.warn)

    @cached_property
    def _bus(self) -> DeviceBus:
        return DeviceBus(self.tlbs, self.groups)

    @cached_property
    def unit(self) -> Unit:
        return self.architecture.unit(self.context, self._bus)

    @cached_property
    def driver(self) -> Driver:
        watched = self._watched
        watched.memory.unit = self.unit
        return self.architecture.driver(watched, self.unit)

    @cached_property
    def journal(self) -> Journal:
        return Journal(self.context.rows, self.architecture.structures)

    @cached_property
    def sanitizer(self) -> Sanitizer:
        return Sanitizer(self.unit, self.context.memory, self.journal, self.architecture.structures)

    @contextlib.contextmanager
    def writing(self, slot: Slot) -> Iterator[Driver]:
        """The driver, while it writes the structures of a slot: in an order that hardware may watch."""
        memory = self._watched.memory
        memory.stores = []
        yield self.driver
        for problem in torn(self.unit, slot, memory.stores, self.architecture.structures):
            self.context.warn(problem)
        memory.stores = None

    def unmap(self, request: UnmapRequest) -> None:
        """Have the driver unmap, and see that nothing leads to what it frees."""
        self.driver.unmap(request.domain, request.mappings, request.users)
        freed = self._watched.memory.freed
        for table in sorted(still_reached(self.driver, self.context.memory, request, freed)):
            self.context.warn(f"the table at {table:#x} was freed while another table still points to it")

    @cached_property
    def _watched(self) -> WatchedContext:
        return WatchedContext(self.context)

    def take_faults(self) -> list[Events]:
        """What the driver reads out of the unit's records; it declares that it can."""
        return [cast("FaultRecords", self.driver).take_faults(UNIT)]

    def take_page_requests(self) -> AskedPages:
        """What the driver reads out of the unit's queue; a group is answered by its index. It declares that it can."""
        requests, overflow = cast("PageRequests", self.driver).take_page_requests()
        return AskedPages([Asked(request, request.group) for request in requests], overflow)

    def respond(self, answer: PageAnswer) -> None:
        """Have the unit tell the device."""
        cast("PageRequests", self.driver).respond(answer.slot, answer.token, answer.response)

    def page_request(self, request: PageRequest) -> None:
        """A device asks for a page. Raises InUse where it waits for an answer to a group of that index."""
        self.groups.sent(request)
        self.unit.page_request(request)

    def unit_now(self, question: Question) -> Answer:
        """What the unit would answer a translation request at this moment; it does not come to it."""
        slot, iova, access, privileged = question
        unit = self.architecture.unit(Peek(self.context), self._bus)
        return unit.request(slot, iova, access, privileged=privileged, kind="translation")

    def _answer_that_is_wrong(self, question: Question) -> Told | None:
        """What the unit would answer now, if that is not what the tables say."""
        answer = self.unit_now(question)
        told = answer.translation
        if told.pa is None or same(told, self.sanitizer.truth(question, "translation")):
            return None
        return Told(told.pa, told.prot or "", answer.tag, answer.made_of)


def describe(context: Context) -> dict[str, Any]:
    """The unit's registers, and how many entries the caches have."""
    system = System(context)
    caches = {**system.unit.caches(), "device_tlb": system.tlbs.size()}
    return {"registers": system.unit.registers(), "caches": caches}
