# SPDX-License-Identifier: Apache-2.0
"""A configuration on our machine: devices, spaces and slots, and the events that are a driver's doing."""

from iommuctl.model import Rid
from iommuctl_vtd.invalidation import InvalidationWait, PasidIotlbInvalidate, covering_block
from tests.differential.plans import DEVICES
from tests.differential.vtd.hand_tables import FIRST_DID, FirstStage, Pool, write_entry
from tests.differential.vtd.ours import OurMachine
from tests.differential.vtd.plans import SCRATCH, Attach, Configuration, Space, Unmap


class Built:
    """What a configuration's numbers stand for, on our machine."""

    def __init__(self, machine: OurMachine, configuration: Configuration) -> None:
        self._machine = machine
        self._spaces = configuration.spaces
        self._slots = list(configuration.slots)
        self._first: dict[int, FirstStage] = {}
        pool = Pool(machine)
        iommu = machine.iommu
        for rid, _ in DEVICES:
            iommu.device_add(rid)
        for number, space in enumerate(configuration.spaces):
            width = space.width if space.stage == "second" else max(machine.kind.widths)
            iommu.domain_create(_name(number), width=width, page_sizes=_sizes(space))
            if space.stage == "first":
                self._first[number] = FirstStage(machine, pool, space)
            elif space.stage == "second":
                for mapping in space.ranges:
                    iommu.map(_name(number), **mapping._asdict())
        for (rid, _), slot in zip(DEVICES, configuration.slots, strict=True):
            if slot is not None:
                self._install(rid, slot)

    def _install(self, rid: Rid, number: int) -> None:
        self._machine.iommu.attach(_name(number), rid)
        if self._spaces[number].stage != "second":
            write_entry(self._machine, rid, FIRST_DID + number, self._first.get(number))

    def change(self, event: Unmap | Attach) -> None:
        """Have our driver make a change."""
        if isinstance(event, Unmap):
            self._unmap(event.space, event.range)
        else:
            self._attach(event.device, event.space)

    def _attach(self, device: int, number: int | None) -> None:
        """Put a second-stage space into a slot that has one or none, or take it out."""
        old, rid = self._slots[device], DEVICES[device][0]
        self._slots[device] = number
        if number is not None:
            self._machine.iommu.attach(_name(number), rid, replace=True)
        elif old is not None:
            self._machine.iommu.detach(_name(old), rid)

    def _unmap(self, number: int, index: int) -> None:
        """Take a mapping away, and tell the caches."""
        mapping = self._spaces[number].ranges[index]
        if number in self._first:
            leaf = not self._first[number].unmap(mapping)
            address, order = covering_block(mapping.iova, mapping.iova + mapping.size - 1)
            tell = PasidIotlbInvalidate.encode(G=3, DID=FIRST_DID + number, AM=order, IH=leaf, ADDR=address)
            self._machine.queue([tell, WAIT])
        else:
            self._machine.iommu.unmap(_name(number), iova=mapping.iova, size=mapping.size)


WAIT = InvalidationWait.encode(SW=1, STDATA=0x5EE5, STADDR=SCRATCH + 0x900)
"""A wait whose answer nobody reads."""


def _name(number: int) -> str:
    return f"space{number}"


def _sizes(space: Space) -> tuple[int, ...] | None:
    return space.page_sizes if space.stage == "second" else None
