# SPDX-License-Identifier: Apache-2.0
"""The driver side of VT-d in scalable mode: what is written for each generic operation, and what is invalidated.

The invalidations are those of VT-d 4.1 section 6.5.3.3 for a unit that does not cache entries that are not present.
"""

from collections.abc import Iterable, Iterator, Sequence

from iommuctl.architecture import Unit
from iommuctl.capabilities import Capabilities
from iommuctl.errors import Unsupported
from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, Run
from iommuctl.hookspecs import CheckRequest, Context, SlotChange
from iommuctl.model import Attachment, Binding, Device, Domain, Mapping, Occupant, Rid, Slot
from iommuctl_vtd import commands
from iommuctl_vtd.audit import audit
from iommuctl_vtd.capability import AW_OF_WIDTH, INTERRUPT_RANGE, SCALABLE_MODE, Capability, capability
from iommuctl_vtd.commands import QUEUE_PAGES, CommandQueue, Span
from iommuctl_vtd.context_entry import ScalableContextEntry
from iommuctl_vtd.pasid_entry import NESTED, SECOND_STAGE, PasidEntry
from iommuctl_vtd.registers import CAP, ECAP, GCMD, IQA, RTADDR
from iommuctl_vtd.tables import Tables
from iommuctl_vtd.tags import Tags

RID_PASID = 0
"""The PASID that requests without one use."""
PASID_BITS = 20
"""No PASID has more, whatever ECAP says."""
DOMAINS = "vtd.domain"


class Driver:
    """One unit's driver, for one transaction."""

    def __init__(self, context: Context, unit: Unit) -> None:
        self._context = context
        self._memory = context.memory
        self._rows = context.rows
        self._unit = unit
        self._capability: Capability = capability(
            unit.read_register("CAP"), unit.read_register("ECAP"), context.rows.get("vtd", "haw")
        )
        self._tags = Tags(context.rows, self._capability.domain_ids)

    def capabilities(self) -> Capabilities:
        unit = self._capability
        nests = unit.has("NEST")
        return Capabilities(
            nesting="slot" if nests else "none",
            hitless_replace=True,
            physical_addresses=True,
            simulates=True,
            widths=unit.domain_widths,
            page_sizes=unit.page_sizes,
            reserved=(INTERRUPT_RANGE,),
            pasid_bits=min(ECAP.PSS.get(unit.ecap) + 1, PASID_BITS) if unit.has("PASID") else 0,
            pgtable_formats=tuple(f"vtd.first-stage-{n}" for n in unit.first_stage_levels) if nests else (),
        )

    def start(self) -> None:
        if because := self._capability.why_not_driven():
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
        write("IQA", IQA.encode(QS=QUEUE_PAGES.bit_length() - 1, DW=1, IQA=queue))
        write("GCMD", GCMD.encode(QIE=1))
        write("RTADDR", RTADDR.encode(TTM=SCALABLE_MODE, RTA=root))
        write("GCMD", GCMD.encode(QIE=1, SRTP=1))
        if not CAP.ESRTPS.get(self._capability.cap):
            self._submit(commands.everything(self._capability), [], [])
        write("GCMD", GCMD.encode(QIE=1, TE=1))

    # Devices

    def device_add(self, device: Device) -> None:
        rid, limit = device.rid, self.capabilities().pasid_bits
        lacks = [name for name, wanted in (("DT", device.ats), ("PRS", device.pri)) if wanted and not self._has(name)]
        if rid.segment or device.pasid_bits > limit or lacks:
            raise Unsupported(
                f"the unit cannot serve {rid}",
                because=f"its ECAP lacks {', '.join(lacks)}"
                if lacks
                else "it serves PCI segment 0000"
                if rid.segment
                else f"it takes PASIDs of up to {limit} bits",
            )
        self._tables.add_context(device)

    def device_remove(self, device: Device) -> None:
        rid = device.rid
        entry = self._tables.clear_context(rid)
        # No PASID entry of the device is present, so nothing else caches anything of it.
        self._submit([commands.context_device(rid.source_id)], [commands.device_tlb(Slot(rid), None)], [Slot(rid)])
        self._tables.free_context(rid, entry)

    # Domains

    def domain_create(self, domain: Domain) -> None:
        if domain.nest_parent and not self._has("NEST"):
            raise Unsupported("the unit cannot nest", because="its ECAP lacks NEST", hint="leave --nest-parent away")
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

    def stage1_format(self, name: str) -> radix.Format:
        for levels in self._capability.first_stage_levels:
            if (fmt := self._capability.first_stage(levels)).name == name:
                return fmt
        raise Unsupported(f"the unit has no page tables of format {name}")

    # Slots

    def install(self, change: SlotChange) -> None:
        rid, pasid = change.slot.rid, _pasid(change.slot)
        old, new = change.old, change.new
        old_did = self._did(old) if old else None
        if isinstance(new, Binding):
            self._tags.acquire(new)
        if new is None:
            self._tables.clear_pasid(rid, pasid)
        elif old is None:
            self._tables.add_pasid(rid, pasid, self.pasid_entry(new))
        else:
            replaced = self._tables.swap_pasid(rid, pasid, self.pasid_entry(new))
        if old_did is not None:
            # A swap moves the whole table, so the unit must look for it again under every PASID.
            forget = commands.pasid_entry(old_did, pasid) if new is None else commands.all_pasid_entries()
            self._submit(
                [forget, commands.iotlb_domain(self._capability, old_did)],
                [commands.device_tlb(change.slot, None)],
                [change.slot],
            )
        if isinstance(old, Binding):
            self._tags.release(old)
        if new is None:
            self._tables.zero_pasid(rid, pasid)
        elif old is not None:
            self._memory.free(replaced)

    def pasid_entry(self, occupant: Occupant) -> int:
        """The PASID table entry for what a slot is to hold."""
        domain = occupant.domain
        second_stage = {
            "P": 1,
            "AW": AW_OF_WIDTH[domain.width],
            "SSPTPTR": self.domain_root(domain),
            "DID": self._did(occupant),
            "PWSNP": self._has("SMPWCS"),
        }
        if isinstance(occupant, Attachment):
            return PasidEntry.encode(PGTT=SECOND_STAGE, **second_stage)
        return PasidEntry.encode(
            PGTT=NESTED,
            FSPM=self.stage1_format(occupant.format).levels - 4,
            FSPTPTR=occupant.root,
            SRE=self._has("SRS"),
            WPE=self._has("SRS"),
            **second_stage,
        )

    def invalidate(self, bindings: Sequence[Binding], span: tuple[int, int] | None, *, leaf: bool) -> None:
        area = Span(*span, leaf) if span else None
        tags = dict.fromkeys((self._did(binding), _pasid(binding.slot)) for binding in bindings)
        self._submit(
            [commands.pasid_iotlb(did, pasid, area) for did, pasid in tags],
            [commands.device_tlb(binding.slot, area) for binding in bindings],
            [binding.slot for binding in bindings],
        )

    # Looking after the tables

    def check(self, request: CheckRequest) -> list[str]:
        return audit(self, self._tables, self._memory, request)

    def used(self) -> Iterator[Run]:
        """Every page of table memory that is in use."""
        yield Run(IQA.IQA.get(self._unit.read_register("IQA")), QUEUE_PAGES)
        yield Run(self._rows.get("vtd", "status"), 1)
        yield from self._tables.runs()

    @property
    def _tables(self) -> Tables:
        return Tables(self._memory, self._rows.get("vtd", "root"))

    def _submit(self, iotlb: Iterable[int], device_tlb: Sequence[int], slots: Sequence[Slot]) -> None:
        """IOTLB commands first; then those device TLB commands whose device has ATS on."""
        queue = CommandQueue(self._context, self._unit, self._rows.get("vtd", "status"))
        queue.submit(iotlb)
        queue.submit(raw for raw, slot in zip(device_tlb, slots, strict=True) if self._has_ats(slot.rid))

    def _did(self, occupant: Occupant) -> int:
        return self._tags.of(occupant if isinstance(occupant, Binding) else occupant.domain)

    def _has(self, name: str) -> bool:
        return self._capability.has(name)

    def _has_ats(self, rid: Rid) -> bool:
        return bool(ScalableContextEntry.DTE.get(self._tables.context(rid)))


def _pasid(slot: Slot) -> int:
    return RID_PASID if slot.pasid is None else slot.pasid
