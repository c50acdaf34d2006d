# SPDX-License-Identifier: Apache-2.0
"""Objects of the iommufd: made with a note of their ids, and destroyed when no row names them any more.

The id that a call returned dies with a process that is killed before it noted it. The kernel gives the lowest free id,
so that such an object can be told, if nobody else has objects that no row names.
"""

import errno
from collections.abc import Callable, Iterable, Set
from typing import Any

from iommuctl.errors import IommuError, KernelRefused
from iommuctl.kernel.machine import Machine


def make(machine: Machine, alloc: Callable[[], int], kind: str = "") -> int:
    """Make an object, with an intent before and its id after; the id."""
    machine.intend({"alloc": True, "kind": kind})
    try:
        made = alloc()
    except IommuError:
        # Nothing was made. After an interrupt that is not known.
        machine.intend({"made": 0})
        raise
    machine.intend({"made": made, "kind": kind})
    return made


def destroy_later(machine: Machine, *object_ids: int) -> None:
    """Destroy objects, in this order, after the commit: until then a failure needs them. What is lost is gone."""
    if machine.lost():
        return

    def destroy() -> None:
        for object_id in object_ids:
            machine.iommufd.destroy(object_id)

    if machine.dry:
        destroy()
    else:
        machine.intend({"gone": object_ids})
        machine.context.after_commit(destroy)


def unnoted(machine: Machine, intents: Iterable[Any]) -> int | None:
    """The object that a killed process had made last and not noted, if it can be told. Nothing was freed since."""
    ends = [intent for intent in intents if "alloc" in intent or "made" in intent]
    if not ends or "made" in ends[-1]:
        return None
    free = machine.iommufd.ioas_alloc()
    machine.iommufd.destroy(free)
    found = set(range(1, free)) - _named(machine, void(intents)) - _noted(intents)
    # Where there are more, some are a program's that has our descriptors: better one too many than one of its own.
    return found.pop() if len(found) == 1 else None


def sweep(machine: Machine, intents: Iterable[Any], orphan: int | None) -> None:
    """Destroy what these intents made, or meant to destroy, and no row names; what uses others goes before them."""
    left = (_noted(intents) | ({orphan} if orphan is not None else set())) - _named(machine)
    while left and (gone := {object_id for object_id in left if destroyed(machine, object_id)}):
        left -= gone


def void(intents: Iterable[Any]) -> set[int]:
    """The ids of vDEVICEs that were released, and may be those of other objects by now, whatever rows say."""
    return {intent["void"] for intent in intents if "void" in intent}


def _named(machine: Machine, released: Set[int] = frozenset()) -> set[int]:
    records = machine.records
    return records.object_ids() | (records.vdevice_ids() - released) | machine.devices.object_ids()


def _noted(intents: Iterable[Any]) -> set[int]:
    found: set[int] = set()
    for intent in intents:
        found |= {intent["made"]} if "made" in intent else set(intent.get("gone", ()))
    return found - {0}


def destroyed(machine: Machine, object_id: int) -> bool:
    """Whether it is gone now. What is in use stays, until what uses it is gone."""
    try:
        machine.iommufd.destroy(object_id)
    except KernelRefused as refused:
        return refused.errno == errno.ENOENT
    return True
