# SPDX-License-Identifier: Apache-2.0
"""The driver of scalable mode: PASID entries for attachments and bindings, and what is invalidated for them."""

from collections.abc import Iterator, Sequence
from functools import cached_property

from iommuctl.architecture import PageRequest, PageResponse
from iommuctl.capabilities import Capabilities
from iommuctl.errors import Unsupported
from iommuctl.formats import radix
from iommuctl.formats.memory import Run
from iommuctl.hookspecs import CheckRequest, SlotChange
from iommuctl.model import Attachment, Binding, Device, Occupant, Rid, Slot
from iommuctl_vtd.audit import audit
from iommuctl_vtd.capability import AW_OF_WIDTH, INTERRUPT_RANGE, SCALABLE_MODE
from iommuctl_vtd.commands import Span, Target
from iommuctl_vtd.context_entry import ScalableContextEntry
from iommuctl_vtd.driver import Driver
from iommuctl_vtd.pasid_entry import NESTED, SECOND_STAGE, PasidEntry
from iommuctl_vtd.registers import ECAP
from iommuctl_vtd.requested_pages import answer, has_queue, page_queue, start_queue, take_page_requests
from iommuctl_vtd.rules import Change
from iommuctl_vtd.tables import Tables

PASID_BITS = 20
"""No PASID has more, whatever ECAP says."""


class ScalableDriver(Driver):
    """Drives a unit whose requests may have PASIDs."""

    mode = SCALABLE_MODE
    wide_descriptors = True

    def why_not(self) -> str:
        return self._capability.why_not_driven("QI", "SMTS", "SSTS")

    def has_ats(self, rid: Rid) -> bool:
        return bool(ScalableContextEntry.DTE.get(self._tables.context(rid)))

    def capabilities(self) -> Capabilities:
        unit = self._capability
        nests = unit.has("NEST")
        return Capabilities(
            nesting="slot" if nests else "none",
            hitless_replace=True,
            physical_addresses=True,
            simulates=True,
            fault_records=True,
            widths=unit.domain_widths,
            page_sizes=unit.page_sizes,
            reserved=(INTERRUPT_RANGE,),
            pasid_bits=min(ECAP.PSS.get(unit.ecap) + 1, PASID_BITS) if unit.has("PASID") else 0,
            pgtable_formats=tuple(f"vtd.first-stage-{n}" for n in unit.first_stage_levels) if nests else (),
            page_responses=("success", "invalid", "failure") if has_queue(self._unit) else (),
        )

    # Page requests

    def take_page_requests(self) -> tuple[list[PageRequest], bool]:
        return take_page_requests(self._memory, self._unit)

    def respond(self, slot: Slot, group: int, response: PageResponse) -> None:
        self._queue.submit([answer(slot, group, response)])

    def used(self) -> Iterator[Run]:
        yield from super().used()
        if queue := page_queue(self._unit):
            yield Run(queue, 1)

    # Devices

    def device_add(self, device: Device) -> None:
        limit = self.capabilities().pasid_bits
        lacks = [name for name, wanted in (("DT", device.ats), ("PRS", device.pri)) if wanted and not self._has(name)]
        reasons = {
            f"its ECAP lacks {', '.join(lacks)}": bool(lacks),
            f"it takes PASIDs of up to {limit} bits": device.pasid_bits > limit,
        }
        self._check_served(device.rid, reasons)
        # Before PRE is set: VT-d 4.1 section 11.4.11.3.
        if device.pri and has_queue(self._unit) and not page_queue(self._unit):
            start_queue(self._unit, self._zeroed(1))
        self._tables.add_context(device)

    def device_remove(self, device: Device) -> None:
        rid = device.rid
        entry = self._tables.clear_context(rid)
        self.announce((Change.CONTEXT_ENTRY_REMOVED, [Target(Slot(rid), 0, 0)]))
        self._tables.free_context(rid, entry)

    def stage1_format(self, name: str) -> radix.Format:
        for levels in self._capability.first_stage_levels:
            if (fmt := self._capability.first_stage(levels)).name == name:
                return fmt
        raise Unsupported(f"the unit has no page tables of format {name}")

    # Slots

    def install(self, change: SlotChange) -> None:
        rid, pasid = change.slot.rid, self.pasid_of(change.slot)
        old, new = change.old, change.new
        if isinstance(new, Binding):
            self._tags.acquire(new)
        if old is None:
            if new:
                self._tables.add_pasid(rid, pasid, self.pasid_entry(new))
            return
        if new is None:
            self._tables.clear_pasid(rid, pasid)
            self.announce((Change.PASID_ENTRY_REMOVED, [self.target(old)]))
            self._tables.zero_pasid(rid, pasid)
        else:
            replaced = self._tables.swap_pasid(rid, pasid, self.pasid_entry(new))
            self.announce((Change.PASID_TABLE_REPLACED, [self.target(old)]))
            self._memory.free(replaced)
        if isinstance(old, Binding):
            self._tags.release(old)

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
        self.announce((Change.FIRST_STAGE_REMOVED, [self.target(binding, area) for binding in bindings]))

    # Looking after the tables

    def check(self, request: CheckRequest) -> list[str]:
        return audit(self, self._tables, self._memory, request)

    @cached_property
    def _tables(self) -> Tables:
        return Tables(self._memory, self._rows.get("vtd", "root"))
