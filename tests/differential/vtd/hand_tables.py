# SPDX-License-Identifier: Apache-2.0
"""Tables that no operation of the library installs yet: the first stage alone, and pass-through.

A device is attached to a domain as usual, and then its entry is written over. No request has come by then, so no
cache has to be told.
"""

from iommuctl.errors import NoRoom
from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, Run
from iommuctl.model import Rid
from iommuctl_vtd.capability import AW_OF_WIDTH
from iommuctl_vtd.context_entry import PASSES_THROUGH, ContextEntry
from iommuctl_vtd.first_stage import FirstStageEntry, FirstStageFormat
from iommuctl_vtd.pasid_entry import FIRST_STAGE, PASS_THROUGH, PasidEntry
from iommuctl_vtd.registers import CAP
from tests.differential.plans import Range
from tests.differential.vtd.ours import OurMachine
from tests.differential.vtd.plans import POOL, Space

FIRST_DID = 0x100
"""DIDs that no domain of a configuration gets."""
_USED = FirstStageEntry.A.mask | FirstStageEntry.D.mask


class Pool:
    """Pages that nobody else uses, as a TableMemory over our RAM."""

    def __init__(self, machine: OurMachine) -> None:
        self._machine = machine
        self._next, self._end = POOL[0], sum(POOL)

    def read(self, address: int, size: int) -> bytes:
        return self._machine.read(address, size)

    def write(self, address: int, data: bytes) -> None:
        self._machine.write(address, data)

    def allocate(self, pages: int) -> list[Run]:
        return [Run(self.allocate_run(pages), pages)]

    def allocate_run(self, pages: int) -> int:
        """Pages, in ascending order, none of them twice."""
        address, self._next = self._next, self._next + pages * PAGE
        if self._next > self._end:
            raise NoRoom("the pool of tables that are made by hand is used up")
        return address

    def free(self, run: Run) -> None:
        """Nothing: pages are not used again."""


class FirstStage:
    """A first-stage table of four levels."""

    def __init__(self, machine: OurMachine, pool: Pool, space: Space) -> None:
        huge = bool(CAP.FS1GP.get(machine.registers()["CAP"]))
        self._format = FirstStageFormat(4, haw=machine.kind.haw, one_gib_pages=huge)
        self._pool = pool
        self._page_sizes = [size for size in space.page_sizes if size in self._format.page_sizes]
        self.root = radix.new_root(self._format, pool)
        for mapping in space.ranges:
            self._map(mapping)
        if not space.used:
            for visit in radix.entries(self._format, pool, self.root):
                machine.put(visit.address, visit.raw & ~_USED)

    def unmap(self, mapping: Range) -> bool:
        """Take a mapping away. Returns whether tables became empty."""
        return bool(radix.unmap_range(self._format, self._pool, self.root, mapping.iova, mapping.size).freed)

    def _map(self, mapping: Range) -> None:
        radix.map_range(
            self._format, self._pool, self.root, mapping.iova, mapping.size, mapping.pa, mapping.prot, self._page_sizes
        )


def write_entry(machine: OurMachine, rid: Rid, did: int, table: FirstStage | None) -> None:
    """Have a device that is attached use this first stage instead; or, for None, pass through."""
    step = machine.steps(rid, 0)
    if machine.kind.legacy:
        address = next(one.address for one in step if one.structure == ContextEntry.name)
        raw = ContextEntry.encode(P=1, TT=PASSES_THROUGH, AW=AW_OF_WIDTH[max(machine.kind.widths)], DID=did)
        machine.write(address, ContextEntry.to_bytes(raw))
        return
    address = next(one.address for one in step if one.structure == PasidEntry.name)
    # QEMU goes by AW for the number of canonical bits of a first stage.
    values = {"P": 1, "AW": AW_OF_WIDTH[48], "DID": did, "PWSNP": machine.kind.snoops}
    if table:
        raw = PasidEntry.encode(PGTT=FIRST_STAGE, FSPTPTR=table.root, **values)
    else:
        raw = PasidEntry.encode(PGTT=PASS_THROUGH, **values)
    machine.write(address, PasidEntry.to_bytes(raw))
