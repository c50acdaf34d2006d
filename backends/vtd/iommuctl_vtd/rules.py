# SPDX-License-Identifier: Apache-2.0
"""Which invalidation after which change, as a table: VT-d 4.1 section 6.5.3.3.

It is that of a unit that never caches what is not present (CAP.CM = 0), so what is added needs none. Commands are in
the order in which they are submitted; those to device TLBs go last, to devices that have ATS on (section 6.5.2.5).
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class Scope(Enum):
    """What one command makes the unit or a device forget; the value is the cache that it is for."""

    ALL_CONTEXTS = "context", "all"
    DEVICE_CONTEXT = "context", "device"
    ALL_PASIDS = "pasid", "all"
    ONE_PASID = "pasid", "PASID in domain"
    ALL_TRANSLATIONS = "iotlb", "all"
    DOMAIN = "iotlb", "domain"
    DOMAIN_PAGES = "iotlb", "pages in domain"
    PASID_PAGES = "iotlb", "pages in PASID"
    DEVICE_TLB = "device_tlb", "slot"
    DEVICE_TLB_PAGES = "device_tlb", "pages of slot"

    @property
    def cache(self) -> str:
        """The cache: context, pasid, iotlb (and with it the paging-structure caches), or device_tlb."""
        return self.value[0]


class Change(Enum):
    """What the driver does to tables that the unit may have cached."""

    ROOT_TABLE_SET = "another root table is latched"
    CONTEXT_ENTRY_REMOVED = "a scalable-mode context entry is taken out; none of its PASID entries is present"
    LEGACY_CONTEXT_ENTRY_REMOVED = "a context entry of legacy mode is taken out"
    LEGACY_CONTEXT_TABLE_REPLACED = "a copy of a context table, with one entry changed, takes its place"
    PASID_ENTRY_REMOVED = "a PASID table entry is taken out"
    PASID_TABLE_REPLACED = "a copy of a PASID table, with one entry changed, takes its place"
    SECOND_STAGE_REMOVED = "pages are taken out of a second stage, and tables that became empty"
    PARENT_REMOVED = "the same, of a second stage that page tables are nested on"
    FIRST_STAGE_REMOVED = "pages are taken out of a first stage, and tables that became empty"


INVALIDATIONS: Mapping[Change, tuple[Scope, ...]] = MappingProxyType({
    Change.ROOT_TABLE_SET: (Scope.ALL_CONTEXTS, Scope.ALL_PASIDS, Scope.ALL_TRANSLATIONS),
    Change.CONTEXT_ENTRY_REMOVED: (Scope.DEVICE_CONTEXT,),
    Change.LEGACY_CONTEXT_ENTRY_REMOVED: (Scope.DEVICE_CONTEXT, Scope.DOMAIN, Scope.DEVICE_TLB),
    # The root entry changed, which only a global invalidation of the context cache takes out.
    Change.LEGACY_CONTEXT_TABLE_REPLACED: (Scope.ALL_CONTEXTS, Scope.DOMAIN, Scope.DEVICE_TLB),
    Change.PASID_ENTRY_REMOVED: (Scope.ONE_PASID, Scope.DOMAIN, Scope.DEVICE_TLB),
    # The directory entry changed, under which others of the device's PASIDs are found.
    Change.PASID_TABLE_REPLACED: (Scope.ALL_PASIDS, Scope.DOMAIN, Scope.DEVICE_TLB),
    Change.SECOND_STAGE_REMOVED: (Scope.DOMAIN_PAGES, Scope.DEVICE_TLB_PAGES),
    # A guest physical address does not tell which addresses of the device led there.
    Change.PARENT_REMOVED: (Scope.DOMAIN_PAGES, Scope.DEVICE_TLB),
    Change.FIRST_STAGE_REMOVED: (Scope.PASID_PAGES, Scope.DEVICE_TLB_PAGES),
})  # fmt: skip
"""The table."""
