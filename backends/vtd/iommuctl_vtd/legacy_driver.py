# SPDX-License-Identifier: Apache-2.0
"""The driver of legacy mode: a device has one slot, its own, and a domain's second stage in its context entry."""

from collections.abc import Sequence
from functools import cached_property

from iommuctl.audit import audit_domain
from iommuctl.capabilities import Capabilities
from iommuctl.errors import Unsupported
from iommuctl.formats import radix
from iommuctl.hookspecs import CheckRequest, SlotChange
from iommuctl.model import Binding, Device, Occupant, Rid
from iommuctl_vtd.capability import AW_OF_WIDTH, INTERRUPT_RANGE, LEGACY_MODE
from iommuctl_vtd.context_entry import TRANSLATE, TRANSLATE_WITH_ATS, ContextEntry
from iommuctl_vtd.driver import Driver
from iommuctl_vtd.legacy_tables import LegacyTables
from iommuctl_vtd.rules import Change, Scope

ATS = "vtd.ats"


class LegacyDriver(Driver):
    """Drives a unit without PASIDs and without nesting, through a queue of 128-bit descriptors."""

    mode = LEGACY_MODE
    wide_descriptors = False
    without = frozenset({Scope.ALL_PASIDS})

    def capabilities(self) -> Capabilities:
        unit = self._capability
        return Capabilities(
            hitless_replace=True,
            physical_addresses=True,
            simulates=True,
            fault_records=True,
            widths=unit.domain_widths,
            page_sizes=unit.page_sizes,
            reserved=(INTERRUPT_RANGE,),
        )

    def why_not(self) -> str:
        return self._capability.why_not_driven("QI")

    def has_ats(self, rid: Rid) -> bool:
        return bool(self._rows.get(ATS, str(rid)))

    # Devices

    def device_add(self, device: Device) -> None:
        reasons = {
            "legacy mode has no PASIDs": device.pasid_bits > 0,
            "page requests are scalable mode's": device.pri,
            "its ECAP lacks DT": device.ats and not self._has("DT"),
        }
        self._check_served(device.rid, reasons)
        self._rows.put(ATS, str(device.rid), device.ats)

    def device_remove(self, device: Device) -> None:
        # Its slot is empty, so its context entry has been taken out and the caches have been told.
        self._rows.delete(ATS, str(device.rid))

    # Slots

    def install(self, change: SlotChange) -> None:
        rid, old, new = change.slot.rid, change.old, change.new
        if old is None:
            if new:
                self._tables.add_context(rid, self.context_entry(new))
        elif new is None:
            self._tables.clear_context(rid)
            self.announce((Change.LEGACY_CONTEXT_ENTRY_REMOVED, [self.target(old)]))
            self._tables.zero_context(rid)
        else:
            replaced = self._tables.swap_context(rid, self.context_entry(new))
            self.announce((Change.LEGACY_CONTEXT_TABLE_REPLACED, [self.target(old)]))
            self._memory.free(replaced)

    def context_entry(self, occupant: Occupant) -> int:
        """The context entry for what a device's slot is to hold."""
        domain = occupant.domain
        return ContextEntry.encode(
            P=1,
            TT=TRANSLATE_WITH_ATS if self.has_ats(occupant.slot.rid) else TRANSLATE,
            SSPTPTR=self.domain_root(domain),
            AW=AW_OF_WIDTH[domain.width],
            DID=self._did(occupant),
        )

    def invalidate(self, bindings: Sequence[Binding], span: tuple[int, int] | None, *, leaf: bool) -> None:  # noqa: ARG002
        raise Unsupported("legacy mode has no bindings")

    def stage1_format(self, name: str) -> radix.Format:
        raise Unsupported(f"no page tables of format {name}", because="legacy mode has the second stage alone")

    # Looking after the tables

    def check(self, request: CheckRequest) -> list[str]:
        wanted = {slot.rid: self.context_entry(occupant) for slot, occupant in request.slots.items()}
        found = dict(self._tables.contexts())
        entries = [
            f"the context entry of {rid} is {found.get(rid, 0):#x}, not {wanted.get(rid, 0):#x}"
            for rid in sorted(wanted.keys() | found.keys())
            if wanted.get(rid) != found.get(rid)
        ]
        domains = (audit_domain(self, self._memory, domain, request) for domain in request.domains)
        return [*entries, *(problem for problems in domains for problem in problems)]

    @cached_property
    def _tables(self) -> LegacyTables:
        return LegacyTables(self._memory, self._rows.get("vtd", "root"))
