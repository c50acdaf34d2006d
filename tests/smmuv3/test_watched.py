# SPDX-License-Identifier: Apache-2.0
"""The sanitizer watches the driver's stores: what the unit does not look at may change, and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest

from iommuctl.formats.bits import Layout
from iommuctl.formats.memory import Memory
from iommuctl.hookspecs import SlotChange
from iommuctl.model import Attachment, Slot
from iommuctl_sim.watched import WatchedContext, torn
from iommuctl_smmuv3.driver import Driver
from iommuctl_smmuv3.structures import STRUCTURES
from tests.smmuv3.driven import Driven
from tests.smmuv3.test_driver import A


def warnings(machine: Driven, slot: Slot, new: Attachment | None) -> list[str]:
    """What the sanitizer says about a change of a slot."""
    context = WatchedContext(machine)
    context.memory.stores = []
    Driver(context, machine.unit).install(SlotChange(slot, machine.slots.pop(slot, None), new))
    if new:
        machine.slots[slot] = new
    return torn(machine.unit, slot, context.memory.stores, STRUCTURES)


def at_once(memory: Memory, layout: type[Layout], address: int, new: int, announce: Callable[[], None]) -> None:
    """All words in their order, as a copy of bytes has it."""
    memory.write(address, layout.to_bytes(new))
    announce()


@pytest.fixture
def machine() -> Driven:
    return Driven()


def test_the_driver_as_it_is(machine: Driven) -> None:
    rid = machine.device(A)
    one, other, parent, another = machine.domain(), machine.domain(), machine.parent(), machine.parent()
    for slot, domain in (
        (Slot(rid), one), (Slot(rid), other), (Slot(rid, 5), one), (Slot(rid, 200), one), (Slot(rid, 5), other),
        (Slot(rid, 5), None), (Slot(rid, 200), None), (Slot(rid), parent), (Slot(rid), another), (Slot(rid), one),
        (Slot(rid), None),
    ):  # fmt: skip
        assert warnings(machine, slot, domain and Attachment(slot, domain)) == [], (slot, domain)


@pytest.mark.parametrize(
    ("where", "structure", "then", "what"),
    [
        ("stream_slots", "ste", "domain", "had V set before the rest was written"),
        ("stream_slots", "ste", "parent", "was changed by several stores while it was present"),
        ("cd_tables", "cd", "other", "was changed by several stores while it was present"),
    ],
)
def test_a_copy_of_bytes(
    machine: Driven, monkeypatch: pytest.MonkeyPatch, *, where: str, structure: str, then: str, what: str
) -> None:
    slot = Slot(machine.device(A))
    domains: dict[str, Any] = {"domain": machine.domain(), "other": machine.domain(), "parent": machine.parent()}
    if then == "domain":
        # Not valid at first, as of a device that is not there.
        machine.memory.put({machine.entry_address(slot.rid): 0})
        monkeypatch.setattr(
            "iommuctl_smmuv3.stream_tables.StreamTables.present_address", lambda tables, rid: tables.address(rid)
        )
    else:
        machine.attach(domains["domain"], slot)
    monkeypatch.setattr(f"iommuctl_smmuv3.{where}.write_live", at_once)
    (warning,) = warnings(machine, slot, Attachment(slot, domains[then]))
    assert warning.startswith(f"the smmuv3.{structure} of 0000:00:01.0 at 0x")
    assert warning.endswith(what)
