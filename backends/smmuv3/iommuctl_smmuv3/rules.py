# SPDX-License-Identifier: Apache-2.0
"""Which invalidation after which change, as a table: IHI0070 G.b sections 3.21, 4.3 to 4.7 and 13.

The unit may cache structures that are not valid, so what is added to stream tables and CD tables is announced, too;
descriptors of page tables that are not valid are never cached. Commands of one phase are complete, by a CMD_SYNC,
before those of the next: structures, stage 2, what was made of both stages, and last the devices, which
may ask the TLB.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class Scope(Enum):
    """What a command makes the unit or a device forget: its phase, the cache that it is for, and what of it."""

    EVERY_STREAM = 0, "ste", "all"
    BUS = 0, "ste", "streams of a level 2 table"
    STREAM = 0, "ste", "stream, with its CDs"
    SUBSTREAM = 0, "cd", "substream"
    SUBSTREAM_TABLE = 0, "cd", "substream, with the level 1 descriptor"
    ALL_SUBSTREAMS = 0, "cd", "stream"
    EVERY_TRANSLATION = 1, "tlb", "all"
    VMID = 1, "tlb", "VMID"
    IPAS = 1, "tlb", "intermediate addresses of VMID"
    STAGE_1_OF_VMID = 2, "tlb", "stage 1 of VMID"
    ASID = 2, "tlb", "ASID of VMID"
    ADDRESSES = 2, "tlb", "addresses of ASID"
    DEVICE_TLB = 3, "device_tlb", "slot"
    DEVICE_TLB_ADDRESSES = 3, "device_tlb", "addresses of slot"

    @property
    def phase(self) -> int:
        """Commands of lower phases are complete before."""
        return self.value[0]

    @property
    def cache(self) -> str:
        """The cache: ste, cd (with their level 1 descriptors), tlb (with the walk cache), or device_tlb."""
        return self.value[1]


class Change(Enum):
    """What the driver does to what the unit may have cached."""

    STREAM_TABLE_SET = "a stream table is given to the unit"
    STREAM_TABLE_CHANGED = "a level 2 stream table is put into the first level, or taken out"
    STE_WRITTEN = "an STE is changed"
    CD_WRITTEN = "a CD is changed"
    CD_LEAF_ADDED = "a table of CDs is put into the first level"
    CD_LEAF_REMOVED = "a table of CDs is taken out of the first level"
    STAGE_1_LEFT = "a slot does not use the stage 1 of a domain any more"
    PAGE_TABLE_LEFT = "a slot does not use a page table any more, or all of a page table has changed"
    STAGE_2_LEFT = "a stream does not use a stage 2 any more"
    STAGE_2_COVERED = "a stage 1 is put before the stage 2 that a stream used alone"
    STAGE_1_REMOVED = "pages are taken out of a stage 1, and tables that became empty"
    STAGE_2_REMOVED = "pages are taken out of a stage 2, and tables that became empty"
    PARENT_REMOVED = "the same, of a stage 2 that page tables are nested on"


INVALIDATIONS: Mapping[Change, tuple[Scope, ...]] = MappingProxyType({
    Change.STREAM_TABLE_SET: (Scope.EVERY_STREAM, Scope.EVERY_TRANSLATION),
    Change.STREAM_TABLE_CHANGED: (Scope.BUS,),
    Change.STE_WRITTEN: (Scope.STREAM,),
    Change.CD_WRITTEN: (Scope.SUBSTREAM,),
    Change.CD_LEAF_ADDED: (Scope.SUBSTREAM_TABLE,),
    # One command cannot name all substreams of a leaf.
    Change.CD_LEAF_REMOVED: (Scope.ALL_SUBSTREAMS,),
    Change.STAGE_1_LEFT: (Scope.ASID, Scope.DEVICE_TLB),
    # A guest may have global pages, which the command for an ASID leaves: any page table of the VMID would find them.
    Change.PAGE_TABLE_LEFT: (Scope.STAGE_1_OF_VMID, Scope.DEVICE_TLB),
    Change.STAGE_2_LEFT: (Scope.VMID, Scope.DEVICE_TLB),
    # What the TLB has of stage 2 is still true.
    Change.STAGE_2_COVERED: (Scope.DEVICE_TLB,),
    Change.STAGE_1_REMOVED: (Scope.ADDRESSES, Scope.DEVICE_TLB_ADDRESSES),
    Change.STAGE_2_REMOVED: (Scope.IPAS, Scope.DEVICE_TLB_ADDRESSES),
    # An intermediate address does not tell which addresses of the device led there, and the command for it need not
    # take out what was made of both stages.
    Change.PARENT_REMOVED: (Scope.IPAS, Scope.STAGE_1_OF_VMID, Scope.DEVICE_TLB),
})  # fmt: skip
"""The table."""
