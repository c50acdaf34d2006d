# SPDX-License-Identifier: Apache-2.0
"""After a change that did not come to its end, and after all was lost: the kernel is brought to what rows say."""

import errno
from collections.abc import Callable
from typing import Any

from iommuctl.errors import KernelRefused
from iommuctl.hookspecs import RepairRequest, Truth
from iommuctl.kernel import domains, memories
from iommuctl.kernel.machine import Connection, Machine
from iommuctl.kernel.slots import make, reinstall
from iommuctl.model import Rid, Slot


def repair(machine: Machine, request: RepairRequest) -> None:
    """Bring what intents name to what rows say, the last one first, and destroy what no row names. Idempotent."""
    if machine.context.kept(Connection).running() is None or machine.lost():
        # There is nothing that outlived the command but what drivers were told.
        _each(request, {"driver": machine.devices.repair})
        return
    _each(
        request,
        {
            "range": lambda intent: _range(machine, request.truth, intent["range"]),
            "slot": lambda intent: reinstall(machine, Slot(Rid.parse(intent["slot"][0]), intent["slot"][1])),
            "tracking": lambda intent: _tracking(machine, request.truth, intent["tracking"]),
            "memory": lambda intent: _memory(machine, intent["memory"]),
            "device": machine.devices.repair,
            "driver": machine.devices.repair,
        },
    )
    if machine.keeper.get("iommufd") is not None:
        sweep(machine)


def _each(request: RepairRequest, ways: dict[str, Callable[[Any], None]]) -> None:
    done: list[Any] = []
    for intent in reversed(request.intents):
        way = next((way for name, way in ways.items() if name in intent), None)
        if way and intent not in done:
            way(intent)
            done.append(intent)


def _range(machine: Machine, truth: Truth, intent: list[int]) -> None:
    domain_id, ioas, iova, size = intent
    said = [mapping for mapping in truth.mappings.get(domain_id, ()) if (mapping.iova, mapping.size) == (iova, size)]
    try:
        if said:
            domains.map_again(machine, ioas, said[0])
        else:
            machine.iommufd.ioas_unmap(ioas, iova, size)
    except KernelRefused as refused:
        # It is as it should be: mapped already, or nothing there. The IOAS itself is gone when the domain is.
        if refused.errno not in (errno.EEXIST, errno.ENOENT):
            raise


def _tracking(machine: Machine, truth: Truth, domain_id: int) -> None:
    for domain in truth.domains:
        if domain.id == domain_id:
            record = machine.records.domain(domain)
            for table in record["hwpts"].values():
                machine.iommufd.hwpt_set_dirty_tracking(table, record["tracking"])


def _memory(machine: Machine, kept: str) -> None:
    if kept not in machine.records.kept_memories():
        machine.drop(kept)


def sweep(machine: Machine) -> None:
    """Destroy what no row names. The kernel gives the lowest free id, so whatever it gave is below the next one."""
    iommufd = machine.iommufd
    free = iommufd.ioas_alloc()
    iommufd.destroy(free)
    named = machine.records.object_ids() | machine.devices.object_ids()
    orphans = [object_id for object_id in range(1, free) if object_id not in named]
    while orphans:
        left = [object_id for object_id in orphans if not _destroyed(machine, object_id)]
        if left == orphans:
            return
        orphans = left


def _destroyed(machine: Machine, object_id: int) -> bool:
    """Whether it is gone now. What is in use stays, until what uses it is gone."""
    try:
        machine.iommufd.destroy(object_id)
    except KernelRefused as refused:
        return refused.errno == errno.ENOENT
    return True


def recover(machine: Machine, truth: Truth) -> list[str]:
    """Make all objects again that rows name. Returns sentences about what is not as it was. A dry run does nothing."""
    if machine.dry:
        return []
    connection = machine.context.kept(Connection)
    if (running := connection.running()) is not None:
        # What it holds is of an earlier attempt.
        for name in running.names():
            running.drop(name)
    machine.records.boot = connection.started().boot
    machine.intend({"objects": True})
    told: list[str] = []
    machine.devices.reopen()
    for memory in truth.memories:
        told += [sentence] if (sentence := memories.reopen(machine, memory)) else []
    for domain in truth.domains:
        domains.remake(machine, domain, truth.mappings[domain.id])
    for slot, held in sorted(truth.slots.items(), key=lambda item: (item[0].rid, item[0].pasid or 0)):
        record = make(machine, machine.devices.port(slot.rid), held)
        machine.devices.port(slot.rid).attach(record["pt"], slot.pasid)
        machine.records.put_slot(slot, record)
    return told
