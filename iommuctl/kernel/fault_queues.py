# SPDX-License-Identifier: Apache-2.0
"""Fault queues: one for each slot whose page requests are queued, under a HWPT that is the slot's own.

The kernel fixes the queue of a HWPT when that is made, and refuses one for nest parents. Each slot has a queue of its
own, so that a group is told by the queue and its cookie, goes with the slot, and what a reader that died took out can
be found: cookies count from 1 in each queue. Its file is with the keeper, and must be closed before the queue can go.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from iommuctl.architecture import PageRequest
from iommuctl.errors import KernelRefused
from iommuctl.iommufd import fault_queue, uapi
from iommuctl.iommufd.fault_queue import PageFault
from iommuctl.kernel import objects
from iommuctl.kernel.machine import Machine
from iommuctl.model import Rid, Slot
from iommuctl.page_requests import Asked, AskedPages, PageAnswer

_CODES = {"success": uapi.IOMMUFD_PAGE_RESP_SUCCESS, "invalid": uapi.IOMMUFD_PAGE_RESP_INVALID}
RESPONSES = tuple(_CODES)
"""The answers that the kernel takes, as a capability."""


def make(machine: Machine) -> dict[str, Any]:
    """A queue, as a part of the record of a slot: `queue`, its object, and `kept`, the name of its file."""
    iommufd = machine.iommufd
    files: list[int] = []

    def queue() -> int:
        made, file = iommufd.fault_queue_alloc()
        files.append(file)
        return made

    try:
        made = objects.make(machine, queue)
        # Of two queues that are there at a time, as while one is replaced, none has the other's name.
        kept = f"page-requests-{made}"
        machine.intend({"kept": kept})
        machine.keep(kept, files[0])
    finally:
        for file in files if not machine.dry else ():
            os.close(file)
    return {"queue": made, "kept": kept}


def destroy_later(machine: Machine, record: dict[str, Any]) -> None:
    """Destroy the queue that was under a slot's HWPT, after the commit and after that HWPT."""
    if machine.lost():
        return
    machine.intend({"kept": record["kept"]})
    if not machine.dry:
        machine.context.after_commit(lambda: machine.drop(record["kept"]))
    objects.destroy_later(machine, record["queue"])


def take(machine: Machine) -> AskedPages:
    """What all queues hold, of each the oldest first; it is in them no more. What cannot be read is warned of.

    A dry run reads nothing.
    """
    if machine.dry or machine.lost():
        return AskedPages()
    held = {}
    for slot, record in machine.records.queues():
        file = machine.kept(record["kept"])
        if file is not None:
            held[file] = slot, record["queue"]
    asked: list[Asked] = []
    filled = fault_queue.filled(held)
    for file in [file for file in held if file in filled]:
        slot, queue = held[file]
        machine.intend({"read": _named(slot, queue)})
        try:
            found = fault_queue.drain(file)
        except OSError as error:
            machine.context.warn(f"page requests of {slot} cannot be read: {error.strerror}")
            continue
        requests, idle = _requests(slot, queue, found)
        asked += requests
        for cookie in idle:
            try:
                _answer(machine, file, _named(slot, queue), cookie, uapi.IOMMUFD_PAGE_RESP_INVALID)
            except OSError as error:
                machine.context.warn(f"a page request of {slot} cannot be answered: {error.strerror}")
    return AskedPages(asked)


def respond(machine: Machine, request: PageAnswer) -> None:
    """Answer a group. One that the kernel has answered, as it does when its HWPT leaves the slot, needs none.

    Raises KernelRefused, Lost.
    """
    if request.over and machine.lost():
        return
    queue, cookie = request.token
    record = machine.records.slot(request.slot)
    if record is None or record.get("queue") != queue:
        return
    code = _CODES[request.response]
    machine.log("write iommu_hwpt_page_response", {"cookie": cookie, "code": code})
    file = machine.kept(record["kept"])
    if file is None or machine.dry:
        return
    try:
        _answer(machine, file, _named(request.slot, queue), cookie, code)
    except OSError as error:
        number = error.errno or 0
        raise KernelRefused(
            f"a page request of {request.slot} could not be answered", errno=number, because=os.strerror(number)
        ) from None


def repair(machine: Machine, intents: Sequence[Any], tokens: Iterable[Any]) -> None:
    """Give the answers again that a command was about to give, and answer what a reader took out that died.

    `tokens` are those of the groups that rows say wait. Where rows name no such queue any more, nothing waits.
    """
    last_read = {tuple(intent["read"]): number for number, intent in enumerate(intents) if "read" in intent}
    known = [(queue, cookie) for queue, cookie in tokens]
    for number, intent in enumerate(intents):
        if "answer" not in intent:
            continue
        place, cookie, code = intent["answer"]
        # Before the queue was read again the answer was given, and another group may have the cookie since.
        if number > last_read.get(tuple(place), -1):
            for file in _file(machine, place):
                fault_queue.answer(file, [cookie], code)
                known.append((place[2], cookie))
    for place in last_read:
        for file in _file(machine, place):
            fault_queue.reject_unknown(file, [cookie for queue, cookie in known if queue == place[2]])


def _answer(machine: Machine, file: int, place: list[object], cookie: int, code: int) -> None:
    machine.intend({"answer": [place, cookie, code]})
    fault_queue.answer(file, [cookie], code)


def _named(slot: Slot, queue: int) -> list[object]:
    """A queue, and the slot whose row may name it."""
    return [str(slot.rid), slot.pasid, queue]


def _file(machine: Machine, place: Sequence[Any]) -> Iterator[int]:
    """The file of a queue, if rows name it."""
    rid, pasid, queue = place
    record = machine.records.slot(Slot(Rid.parse(rid), pasid))
    if record and record.get("queue") == queue:
        file = machine.kept(record["kept"])
        if file is not None:
            yield file


def _requests(slot: Slot, queue: int, faults: Sequence[PageFault]) -> tuple[list[Asked], list[int]]:
    """Them as the core has them, and the cookies of groups that ask for nothing.

    The kernel puts requests into a group by its index alone, and answers it by the last one, which is of this slot.
    What asks for nothing would look like a stop marker, which is not answered, while the kernel waits for an answer.
    """
    groups: dict[int, list[PageFault]] = {}
    for fault in faults:
        groups.setdefault(fault.cookie, []).append(fault)
    asked, idle = [], []
    for cookie, group in groups.items():
        wanted = [each for each in group if each.permissions & _WANTED]
        if not wanted:
            idle.append(cookie)
        for each in wanted:
            asked.append(Asked(_request(slot, each, last=each is wanted[-1]), [queue, cookie]))
    return asked, idle


_WANTED = uapi.IOMMU_PGFAULT_PERM_READ | uapi.IOMMU_PGFAULT_PERM_WRITE


def _request(slot: Slot, fault: PageFault, *, last: bool) -> PageRequest:
    has = fault.permissions.__and__
    return PageRequest(
        slot,
        fault.address & -4096,
        read=bool(has(uapi.IOMMU_PGFAULT_PERM_READ)),
        write=bool(has(uapi.IOMMU_PGFAULT_PERM_WRITE)),
        group=fault.group,
        last=last,
        execute=bool(has(uapi.IOMMU_PGFAULT_PERM_EXEC)),
        privileged=bool(has(uapi.IOMMU_PGFAULT_PERM_PRIV)),
    )
