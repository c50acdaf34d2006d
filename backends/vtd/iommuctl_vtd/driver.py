# SPDX-License-Identifier: Apache-2.0
"""What the drivers of both modes share: domains, which are second stages, their cache tags, and invalidation."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingABC
from typing import TYPE_CHECKING, ClassVar

from iommuctl.architecture import Stale, Unit
from iommuctl.errors import Unsupported
from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, Run
from iommuctl.hookspecs import Context
from iommuctl.model import Binding, Command, Domain, Mapping, Occupant, Placed, Rid, Slot
from iommuctl.recorded import Events
from iommuctl_vtd.capability import Capability, capability
from iommuctl_vtd.commands import QUEUE_PAGES, CommandQueue, Span, Target, command, logged
from iommuctl_vtd.missing import missing
from iommuctl_vtd.queue import NARROW, WIDE
from iommuctl_vtd.recorded_faults import take_faults
from iommuctl_vtd.registers import CAP, GCMD, IQA, RTADDR
from iommuctl_vtd.rules import INVALIDATIONS, Change, Scope
from iommuctl_vtd.tags import Tags

if TYPE_CHECKING:
    from iommuctl_vtd.legacy_tables import LegacyTables
    from iommuctl_vtd.tables import Tables

DOMAINS = "vtd.domain"


class Driver(ABC):
    """One unit's driver, for one transaction. A subclass drives one mode and knows its tables."""

    mode: ClassVar[int]
    """The value of RTADDR.TTM."""
    wide_descriptors: ClassVar[bool]
    without: ClassVar[frozenset[Scope]] = frozenset()
    """Scopes of the table of rules that the mode has no commands for."""

    def __init__(self, context: Context, unit: Unit) -> None:
        self._context = context
        self._memory = context.memory
        self._rows = context.rows
        self._unit = unit
        self._capability: Capability = capability(
            unit.read_register("CAP"), unit.read_register("ECAP"), context.rows.get("vtd", "haw")
        )
        self._tags = Tags(context.rows, self._capability.domain_ids)

    @abstractmethod
    def why_not(self) -> str:
        """Why the unit cannot be driven in this mode; nothing when it can."""

    @abstractmethod
    def has_ats(self, rid: Rid) -> bool:
        """Whether the device may keep translations of its own."""

    def start(self) -> None:
        if because := self.why_not():
            raise Unsupported("the unit cannot be driven", because=because)
        root, queue, status = (self._zeroed(pages) for pages in (1, QUEUE_PAGES, 1))
        self._rows.put("vtd", "root", root)
        self._rows.put("vtd", "status", status)
        write = self._unit.write_register
        write("IQT", 0)
        write("IQA", IQA.encode(QS=QUEUE_PAGES.bit_length() - 1, DW=self.wide_descriptors, IQA=queue))
        write("GCMD", GCMD.encode(QIE=1))
        write("RTADDR", RTADDR.encode(TTM=self.mode, RTA=root))
        write("GCMD", GCMD.encode(QIE=1, SRTP=1))
        if not CAP.ESRTPS.get(self._capability.cap):
            self.announce((Change.ROOT_TABLE_SET, [Target(Slot(Rid(0, 0, 0, 0)), 0, 0)]))
        write("GCMD", GCMD.encode(QIE=1, TE=1))

    def _zeroed(self, pages: int) -> int:
        """Table memory that the unit can reach. Raises Unsupported."""
        address = self._memory.allocate_run(pages)
        if address >> self._capability.haw:
            raise Unsupported(
                "the unit cannot be driven",
                because=f"table memory at {address:#x} is beyond its {self._capability.haw} address bits",
            )
        self._memory.write(address, bytes(pages * PAGE))
        return address

    def domain_create(self, domain: Domain) -> None:
        root = radix.new_root(self.domain_format(domain), self._memory)
        self._rows.put(DOMAINS, f"{domain.id}", root)
        self._tags.create(domain)

    def domain_destroy(self, domain: Domain) -> None:
        for run in radix.table_runs(self.domain_format(domain), self._memory, self.domain_root(domain)):
            self._memory.free(run)
        self._rows.delete(DOMAINS, f"{domain.id}")
        self._tags.destroy(domain)

    def map(self, domain: Domain, mapping: Mapping) -> None:
        radix.map_range(
            self.domain_format(domain),
            self._memory,
            self.domain_root(domain),
            mapping.iova,
            mapping.size,
            mapping.pa,
            mapping.prot,
            domain.page_sizes,
        )

    def unmap(self, domain: Domain, mappings: Sequence[Mapping], users: Sequence[Occupant]) -> None:
        first, last = mappings[0].iova, mappings[-1].iova + mappings[-1].size - 1
        gone = radix.unmap_range(
            self.domain_format(domain), self._memory, self.domain_root(domain), first, last + 1 - first
        )
        span = Span(first, last, leaf=not gone.freed)
        nested = [user for user in users if isinstance(user, Binding)]
        plain = [user for user in users if not isinstance(user, Binding)]
        self.announce(
            (Change.SECOND_STAGE_REMOVED, [self.target(user, span) for user in plain]),
            (Change.PARENT_REMOVED, [self.target(user, span) for user in nested]),
        )
        for run in gone.freed:
            self._memory.free(run)

    def domain_format(self, domain: Domain) -> radix.Format:
        return self._capability.second_stage(domain.width)

    def domain_root(self, domain: Domain) -> int:
        root: int = self._rows.get(DOMAINS, f"{domain.id}")
        return root

    # Looking after the tables

    @property
    @abstractmethod
    def _tables(self) -> "Tables | LegacyTables":
        """What leads to the page tables."""

    def structures(self, rid: Rid) -> Iterator[Placed]:
        return self._tables.structures(rid)

    def used(self) -> Iterator[Run]:
        yield Run(IQA.IQA.get(self._unit.read_register("IQA")), QUEUE_PAGES)
        # The word that waits are answered in.
        yield Run(self._rows.get("vtd", "status"), 1)
        yield from self._tables.runs()

    def take_faults(self, source: str) -> Events:
        return take_faults(self._unit, source)

    # Invalidation

    def announce(self, *changes: tuple[Change, Sequence[Target]]) -> None:
        """Invalidate what these changes require: the caches of the unit first, then those of devices that have ATS on.

        Each command is sent once, however many targets need it.
        """
        unit: dict[int, None] = {}
        devices: dict[int, None] = {}
        for change, targets in changes:
            for scope in INVALIDATIONS[change]:
                if scope in self.without:
                    continue
                for target in targets:
                    if scope.cache != "device_tlb":
                        unit[command(scope, target, self._capability)] = None
                    elif self.has_ats(target.slot.rid):
                        devices[command(scope, target, self._capability)] = None
        self._queue.submit(unit)
        self._queue.submit(devices)

    @property
    def _queue(self) -> CommandQueue:
        return CommandQueue(self._context, self._unit, self._rows.get("vtd", "status"))

    def target(self, occupant: Occupant, span: Span | None = None) -> Target:
        """What tags the translations of a slot that is held so."""
        return Target(occupant.slot, self.pasid_of(occupant.slot), self._did(occupant), span)

    @staticmethod
    def pasid_of(slot: Slot) -> int:
        """The PASID that tags a slot's translations."""
        return slot.pasid or 0

    def missing(self, slot: Slot, stale: Sequence[Stale]) -> list[Command]:
        size = WIDE if self.wide_descriptors else NARROW
        return [logged(raw, size) for raw in missing(slot, stale, self._capability)]

    def _did(self, occupant: Occupant) -> int:
        return self._tags.of(occupant if isinstance(occupant, Binding) else occupant.domain)

    def _check_served(self, rid: Rid, reasons: MappingABC[str, bool]) -> None:
        """Raise Unsupported for the first reason that applies, of those of the mode and of any device."""
        for because, applies in {"it serves PCI segment 0000": rid.segment != 0, **reasons}.items():
            if applies:
                raise Unsupported(f"the unit cannot serve {rid}", because=because)

    def _has(self, name: str) -> bool:
        return self._capability.has(name)
