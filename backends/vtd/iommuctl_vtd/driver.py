# SPDX-License-Identifier: Apache-2.0
"""What the drivers of both modes share: domains, which are second stages, their cache tags, and the queue.

The invalidations are those of VT-d 4.1 section 6.5.3.3 for a unit that does not cache entries that are not present.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as MappingABC
from typing import ClassVar

from iommuctl.architecture import Unit
from iommuctl.errors import Unsupported
from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, Run
from iommuctl.hookspecs import Context
from iommuctl.model import Binding, Domain, Mapping, Occupant, Rid, Slot
from iommuctl_vtd import commands
from iommuctl_vtd.capability import Capability, capability
from iommuctl_vtd.commands import QUEUE_PAGES, CommandQueue, Span
from iommuctl_vtd.registers import CAP, GCMD, IQA, RTADDR
from iommuctl_vtd.tags import Tags

DOMAINS = "vtd.domain"


class Driver(ABC):
    """One unit's driver, for one transaction. A subclass drives one mode and knows its tables."""

    mode: ClassVar[int]
    """The value of RTADDR.TTM."""
    wide_descriptors: ClassVar[bool]

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
    def everything(self) -> list[int]:
        """The commands that forget all, in the order that a new root table asks for."""

    @abstractmethod
    def has_ats(self, rid: Rid) -> bool:
        """Whether the device may keep translations of its own."""

    def start(self) -> None:
        if because := self.why_not():
            raise Unsupported("the unit cannot be driven", because=because)
        root, queue, status = (self._memory.allocate_run(pages) for pages in (1, QUEUE_PAGES, 1))
        for address, pages in ((root, 1), (queue, QUEUE_PAGES), (status, 1)):
            if address >> self._capability.haw:
                raise Unsupported(
                    "the unit cannot be driven",
                    because=f"table memory at {address:#x} is beyond its {self._capability.haw} address bits",
                )
            self._memory.write(address, bytes(pages * PAGE))
        self._rows.put("vtd", "root", root)
        self._rows.put("vtd", "status", status)
        write = self._unit.write_register
        write("IQT", 0)
        write("IQA", IQA.encode(QS=QUEUE_PAGES.bit_length() - 1, DW=self.wide_descriptors, IQA=queue))
        write("GCMD", GCMD.encode(QIE=1))
        write("RTADDR", RTADDR.encode(TTM=self.mode, RTA=root))
        write("GCMD", GCMD.encode(QIE=1, SRTP=1))
        if not CAP.ESRTPS.get(self._capability.cap):
            self._submit(self.everything(), [], [])
        write("GCMD", GCMD.encode(QIE=1, TE=1))

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
        dids = dict.fromkeys(self._did(user) for user in users)
        # The range is of guest addresses to a nested slot: its device cannot be told which inputs led there.
        self._submit(
            [commands.iotlb_pages(self._capability, did, span) for did in dids],
            [commands.device_tlb(user.slot, None if isinstance(user, Binding) else span) for user in users],
            [user.slot for user in users],
        )
        for run in gone.freed:
            self._memory.free(run)

    def domain_format(self, domain: Domain) -> radix.Format:
        return self._capability.second_stage(domain.width)

    def domain_root(self, domain: Domain) -> int:
        root: int = self._rows.get(DOMAINS, f"{domain.id}")
        return root

    # Looking after the tables

    def queue_runs(self) -> Iterator[Run]:
        """The pages of the queue and of the word that its waits are answered in."""
        yield Run(IQA.IQA.get(self._unit.read_register("IQA")), QUEUE_PAGES)
        yield Run(self._rows.get("vtd", "status"), 1)

    def _submit(self, iotlb: Iterable[int], device_tlb: Sequence[int], slots: Sequence[Slot]) -> None:
        """IOTLB commands first; then those device TLB commands whose device has ATS on."""
        queue = CommandQueue(self._context, self._unit, self._rows.get("vtd", "status"))
        queue.submit(iotlb)
        queue.submit(raw for raw, slot in zip(device_tlb, slots, strict=True) if self.has_ats(slot.rid))

    def _did(self, occupant: Occupant) -> int:
        return self._tags.of(occupant if isinstance(occupant, Binding) else occupant.domain)

    def _check_served(self, rid: Rid, reasons: MappingABC[str, bool]) -> None:
        """Raise Unsupported for the first reason that applies, of those of the mode and of any device."""
        for because, applies in {"it serves PCI segment 0000": rid.segment != 0, **reasons}.items():
            if applies:
                raise Unsupported(f"the unit cannot serve {rid}", because=because)

    def _has(self, name: str) -> bool:
        return self._capability.has(name)
