# SPDX-License-Identifier: Apache-2.0
"""After a change that did not come to its end, and after all was lost: the kernel is brought to what rows say.

Devices come first, as slots need them; then ranges, slots, page requests and caches, and what no row names is
destroyed. What cannot be repaired does not keep the rest from it; the first such error is raised at the end.
"""

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from iommuctl.errors import IommuError, KernelRefused
from iommuctl.hookspecs import RepairRequest, Truth
from iommuctl.kernel import domains, fault_queues, memories, objects, viommus
from iommuctl.kernel.machine import IOMMUFD, Connection, Machine
from iommuctl.model import Mapping, Rid, Slot


def repair(machine: Machine, request: RepairRequest) -> None:
    """Bring what intents name to what rows say, and destroy what no row names. Idempotent."""
    running = machine.context.kept(Connection).running()
    devices = [intent for intent in request.intents if "driver" in intent or "device" in intent]
    if running is None or machine.lost():
        # Nothing of ours outlived the command but what drivers were told, and what a new keeper was given for nothing.
        for name in running.names() if running else ():
            machine.drop(name)
        failures = Failures()
        failures.all(machine.devices.repair, [one for one in reversed(devices) if "driver" in one])
        failures.tell()
        return
    # Before anything is freed: then the lowest free id tells.
    orphan = objects.unnoted(machine, request.intents) if machine.keeper.get(IOMMUFD) is not None else None
    if orphan is not None:
        # A repair that is killed makes objects, too: then the next one could not tell this one from them.
        last = next(intent for intent in reversed(request.intents) if "alloc" in intent)
        machine.intend({"made": orphan, "kind": last["kind"]})
    reopened = {Rid.parse(intent["device"]) for intent in devices if "device" in intent}
    noted = [Slot(Rid.parse(intent["slot"][0]), intent["slot"][1]) for intent in request.intents if "slot" in intent]
    slots = [*noted, *(slot for slot in request.truth.slots if slot.rid in reopened)]
    failures = Failures()
    failures.all(machine.devices.repair, reversed(devices))
    failures.all(lambda ranges: _ranges(machine, request.truth, *ranges), _ranges_by_domain(request.intents))
    failures.all(lambda intents: viommus.destroy_strangers(machine, intents, orphan), [request.intents])
    released = {Rid.parse(intent["vdevice"]) for intent in request.intents if "vdevice" in intent}
    # Of another device's vDEVICE that has such an id now, no row tells whether it is still there.
    released |= machine.records.with_vdevice(objects.void(request.intents))
    failures.all(lambda rid: viommus.repair(machine, rid), sorted(released | reopened))
    failures.all(machine.slots.repair, dict.fromkeys(reversed(slots)))
    tokens = request.truth.tokens
    failures.all(lambda intents: fault_queues.repair(machine, intents, tokens), [request.intents])
    failures.all(machine.slots.refresh, [intent for intent in request.intents if "stale" in intent])
    failures.all(lambda intent: _others(machine, request.truth, intent), reversed(request.intents))
    if orphan is not None or any("made" in intent or "gone" in intent for intent in request.intents):
        objects.sweep(machine, request.intents, orphan)
    failures.tell()


class Failures:
    """Errors that do not keep the rest from being repaired."""

    def __init__(self) -> None:
        self._first: IommuError | None = None

    def all(self, way: Callable[[Any], None], each: Iterable[Any]) -> None:
        """Do all of it."""
        for one in each:
            try:
                way(one)
            except IommuError as error:
                self._first = self._first or error

    def tell(self) -> None:
        """Raise the first of them."""
        if self._first:
            raise self._first


Ranges = tuple[int, int, list[tuple[int, int]]]
"""A domain's id, its IOAS, and ranges (IOVA, size) of it, each as often as it was noted."""


def _ranges_by_domain(intents: Iterable[Any]) -> list[Ranges]:
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for intent in intents:
        if "range" in intent:
            domain_id, ioas, iova, size = intent["range"]
            found.setdefault((domain_id, ioas), []).append((iova, size))
    return [(*key, ranges) for key, ranges in found.items()]


def _ranges(machine: Machine, truth: Truth, domain_id: int, ioas: int, noted: list[tuple[int, int]]) -> None:
    """Have the kernel map in these ranges what rows say.

    A range that was noted once, and that rows have, is mapped as rows say or not at all: there DMA goes on. Others may
    be mapped as they were in between, so that they go first.
    """
    said = [mapping for mapping in truth.mappings.get(domain_id, ()) if _touches(mapping, noted)]
    if len(noted) > 1 or not said:
        for iova, size in sorted(set(noted), key=lambda one: -one[1]):
            with _tolerated(errno.ENOENT):
                machine.iommufd.ioas_unmap(ioas, iova, size)
    for mapping in said:
        with _tolerated(errno.EEXIST):
            domains.map_again(machine, ioas, mapping)


def _touches(mapping: Mapping, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(mapping.iova < iova + size and iova < mapping.iova + mapping.size for iova, size in ranges)


@contextmanager
def _tolerated(number: int) -> Iterator[None]:
    """A call that may find things as it would make them."""
    try:
        yield
    except KernelRefused as refused:
        # The IOAS itself is gone when the domain is.
        if refused.errno not in (number, errno.ENOENT):
            raise


def _others(machine: Machine, truth: Truth, intent: Any) -> None:
    if "kept" in intent and intent["kept"] not in machine.records.kept():
        machine.drop(intent["kept"])
    for domain in truth.domains if "tracking" in intent else ():
        if domain.id == intent["tracking"]:
            record = machine.records.domain(domain)
            for table in record["hwpts"].values():
                machine.iommufd.hwpt_set_dirty_tracking(table, record["tracking"])


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
    # A recovery that fails leaves another boot id in the rows than the keeper has: repair has the keeper drop it all.
    machine.intend({"recover": True})
    told: list[str] = []
    viommus.forget(machine)
    machine.devices.reopen()
    for memory in truth.memories:
        told += [sentence] if (sentence := memories.reopen(machine, memory)) else []
    for domain in truth.domains:
        domains.remake(machine, domain, truth.mappings[domain.id])
    machine.slots.recover(truth)
    return told
