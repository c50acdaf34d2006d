# SPDX-License-Identifier: Apache-2.0
"""vIOMMUs, over which page tables nest where the kernel does not nest them on the parent's HWPT itself.

A parent has one for each IOMMU, made with the first binding, with a queue of its events; both go with the parent. A
device has a number on it, its vDEVICE, from its first binding until its RID leaves the parent: while a translating
stage 1 is attached there has to be one. Closing a device before its vDEVICE goes would leave a dead id behind.
"""

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from iommuctl.errors import KernelRefused
from iommuctl.iommufd.refusals import InvalidationRefused
from iommuctl.kernel import objects
from iommuctl.kernel.domains import hwpt
from iommuctl.kernel.machine import Machine
from iommuctl.kernel.vendor import Port
from iommuctl.model import Domain, Rid

VDEVICE = "vdevice"
"""The kind of object that notes call so."""
EVENTS = 1024
"""How many events the kernel keeps for us; those beyond are lost, and it says so."""


def viommu(machine: Machine, domain: Domain, port: Port, kind: int) -> int:
    """The vIOMMU of a parent for the IOMMU of a device; `kind` is its type, and that of its events."""
    found = machine.records.viommu(domain.id, port.unit)
    if found:
        made: int = found["id"]
        return made
    iommufd, table = machine.iommufd, hwpt(machine, domain, port)
    made = objects.make(machine, lambda: iommufd.viommu_alloc(port.dev_id, table, kind)[0])
    kept = f"events-{domain.id}-{port.unit}"
    machine.intend({"kept": kept})
    events = event_queue(machine, made, kind, kept)
    machine.records.put_viommu(
        domain.id, port.unit, {"id": made, "events": events, "kept": kept, "parent": domain.name}
    )
    return made


def event_queue(machine: Machine, viommu_id: int, kind: int, kept: str) -> int:
    """A queue of a vIOMMU's events, whose file the keeper holds under that name; nobody under none."""
    iommufd = machine.iommufd
    files: list[int] = []

    def queue() -> int:
        events_id, file = iommufd.veventq_alloc(viommu_id, kind, EVENTS)
        files.append(file)
        return events_id

    try:
        events = objects.make(machine, queue)
        for file in files if kept else ():
            machine.keep(kept, file)
    finally:
        for file in files if not machine.dry else ():
            os.close(file)
    return events


def destroy_later(machine: Machine, domain: Domain) -> None:
    """Destroy the vIOMMUs of a parent after the commit, each after its events, whose file must be closed for that."""
    for _, unit, record in machine.records.viommus(domain.id):
        machine.records.put_viommu(domain.id, unit, None)
        if machine.lost():
            continue
        machine.intend({"kept": record["kept"]})
        if not machine.dry:
            machine.context.after_commit(lambda kept=record["kept"]: machine.drop(kept))  # type: ignore[misc]
        objects.destroy_later(machine, record["events"], record["id"])


def forget(machine: Machine) -> None:
    """After all was lost: there are none any more."""
    for domain_id, unit, _ in machine.records.viommus():
        machine.records.put_viommu(domain_id, unit, None)
    for rid, _ in machine.records.devices():
        machine.records.put_vdevice(rid, None)


def vdevice(machine: Machine, rid: Rid, viommu_id: int, virt_id: int) -> None:
    """See that a device has its number on a vIOMMU."""
    found = machine.records.vdevice(rid)
    if found and found["viommu"] == viommu_id:
        return
    dev_id, iommufd = machine.devices.port(rid).dev_id, machine.iommufd
    made = objects.make(machine, lambda: iommufd.vdevice_alloc(viommu_id, dev_id, virt_id), VDEVICE)
    machine.records.put_vdevice(rid, {"id": made, "viommu": viommu_id, "virt_id": virt_id})


def release(machine: Machine, rid: Rid) -> None:
    """Take a device's number away, before it may be closed. It is in no nested table any more."""
    found = machine.records.vdevice(rid)
    if found is None:
        return
    machine.records.put_vdevice(rid, None)
    if not machine.lost():
        # At once, so that the id may soon be another object's: what the row says of it counts no more.
        machine.intend({"void": found["id"], "vdevice": str(rid)})
        machine.iommufd.destroy(found["id"])


def destroy_strangers(machine: Machine, intents: Iterable[Any], orphan: int | None) -> None:
    """Destroy the vDEVICEs that a killed command made, as a device has one at a time, unless they are those of rows."""
    ends = [intent for intent in intents if intent.get("kind") == VDEVICE]
    made = {intent["made"] for intent in ends if intent.get("made")}
    if orphan is not None and ends and "alloc" in ends[-1]:
        made.add(orphan)
    own = machine.records.vdevice_ids() - objects.void(intents)
    for object_id in made - machine.records.object_ids() - own:
        objects.destroyed(machine, object_id)


def repair(machine: Machine, rid: Rid) -> None:
    """See that there is the vDEVICE that the row of a device names, which may have been released."""
    found = machine.records.vdevice(rid)
    if found is None:
        return
    dev_id, iommufd = machine.devices.port(rid).dev_id, machine.iommufd
    try:
        made = objects.make(machine, lambda: iommufd.vdevice_alloc(found["viommu"], dev_id, found["virt_id"]), VDEVICE)
    except KernelRefused as refused:
        if refused.errno != errno.EEXIST:
            raise
    else:
        machine.records.put_vdevice(rid, {**found, "id": made})


def invalidate(
    machine: Machine, viommu_id: int, kind: int, commands: Sequence[bytes], name: Callable[[bytes], str]
) -> None:
    """Have a vIOMMU carry out commands, all before this returns. Raises KernelRefused that names those it refuses.

    Of commands that are refused together the kernel tells the first, and counts those before it as done, of which it
    has not sent any: they are all sent again, one by one.
    """
    iommufd = machine.iommufd
    try:
        iommufd.hwpt_invalidate(viommu_id, kind, commands)
    except InvalidationRefused as refused:
        bad = []
        for command in commands:
            try:
                iommufd.hwpt_invalidate(viommu_id, kind, [command])
            except InvalidationRefused:
                bad.append(command)
        if bad:
            raise KernelRefused(
                f"the kernel refused {len(bad)} of {len(commands)} commands",
                errno=refused.errno,
                because=f"it does not carry out {', '.join(dict.fromkeys(map(name, bad)))}",
                hint="the others were carried out; --dry-run -j shows all with their fields",
            ) from None
