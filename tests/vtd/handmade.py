# SPDX-License-Identifier: Apache-2.0
"""One good set of tables, word by word as VT-d 4.1 chapter 9 lays them out, made without our driver.

RID 0000:03:00.1 and its PASIDs 0x41 to 0x44 have one kind of table each. All first-stage walks use one tree, whose
addresses are physical or, nested, guest physical: the second stage maps the pages of that tree to themselves.
"""

from typing import NamedTuple

from iommuctl.model import Access, RequestKind, Rid, Slot, Translation
from tests.machine import SparseMemory
from tests.vtd.machine import SCALABLE, Machine

RAM = (0, 0x10_0000)
NOWHERE = 0x80_0000
"""A physical address without memory."""

RTADDR = 0x1000 | SCALABLE
RID = Rid(0, 3, 0, 1)
BY_RID = Slot(RID)
FIRST = Slot(RID, 0x41)
NESTED = Slot(RID, 0x42)
THROUGH = Slot(RID, 0x43)
SECOND = Slot(RID, 0x44)

# Addresses of entries, for tests that change them.
ROOT = 0x1030
CONTEXT = 0x2020
DIRECTORY_0, DIRECTORY_1 = 0x3000, 0x3008
ENTRY_OF_RID, ENTRY_FIRST, ENTRY_NESTED, ENTRY_THROUGH, ENTRY_SECOND = 0x5000, 0x4040, 0x4080, 0x40C0, 0x4100

# Input addresses have the indices 1, 2, 3 and n: 0x80_8060_0000 + 0x1000 * n, in either stage.
BASE = 1 << 39 | 2 << 30 | 3 << 21
IN_2M = 1 << 39 | 2 << 30 | 4 << 21
IN_2M_OVER_4K = 1 << 39 | 2 << 30 | 5 << 21
IN_1G = 1 << 39 | 3 << 30

SS4, SS3, SS2, SS1 = 0x10008, 0x11010, 0x12018, 0x13000
"""Second-stage entries on the way to BASE; SS1 is the one of n = 0."""
FS4, FS3, FS2, FS1 = 0x20008, 0x21010, 0x22018, 0x23000
GPA4, GPA3, GPA2, GPA1 = 0x10000, 0x14000, 0x15000, 0x16000
"""Second-stage entries on the way to GPA 0."""

WORDS = {
    # Root entry of bus 3: the lower half. Context entry of 00.1: P, PASIDE, PDTS 0.
    ROOT: 0x2001,
    CONTEXT: 0x3009,
    # PASID directory: PASIDs 0 to 63, PASIDs 64 to 127.
    DIRECTORY_0: 0x5001,
    DIRECTORY_1: 0x4001,
    # PASID entries: PGTT 2, 1, 3, 4, 2; AW 2; DIDs 0x42, 7, 0x43, 1, 0x42; PWSNP.
    ENTRY_OF_RID: 0x10089,
    ENTRY_OF_RID + 8: 0x800042,
    ENTRY_FIRST: 0x49,
    ENTRY_FIRST + 8: 0x800007,
    ENTRY_FIRST + 16: 0x20000,
    ENTRY_NESTED: 0x100C9,
    ENTRY_NESTED + 8: 0x800043,
    ENTRY_NESTED + 16: 0x20000,
    ENTRY_THROUGH: 0x109,
    ENTRY_THROUGH + 8: 0x800001,
    ENTRY_SECOND: 0x10089,
    ENTRY_SECOND + 8: 0x800042,
    # Second stage: pages of 4 KiB that can be read and written, only read, only written; 2 MiB; 1 GiB.
    SS4: 0x11003,
    SS3: 0x12003,
    SS2: 0x13003,
    SS1 + 8 * 4: 0x99003,
    SS1 + 8 * 5: 0x9A001,
    SS1 + 8 * 6: 0x9B002,
    SS2 + 8: 0x200083,
    SS3 + 8: 0x4000_0083,
    # Second stage: GPAs of the first stage's tables, then of its pages in the three kinds, then 2 MiB and 1 GiB.
    GPA4: 0x14003,
    GPA3: 0x15003,
    GPA2: 0x16003,
    GPA1 + 8 * 0x20: 0x20003,
    GPA1 + 8 * 0x21: 0x21003,
    GPA1 + 8 * 0x22: 0x22003,
    GPA1 + 8 * 0x23: 0x23003,
    GPA1 + 8 * 0x30: 0x98003,
    GPA1 + 8 * 0x31: 0x97001,
    GPA1 + 8 * 0x32: 0x96002,
    GPA2 + 8: 0x60_0083,
    GPA3 + 8: 0x8000_0083,
    # First stage: tables are P, RW, US, A.
    FS4: 0x21027,
    FS3: 0x22027,
    FS2: 0x23027,
    # Pages: to the three kinds of guest memory; read-only; privileged, privileged read-only; of a larger page.
    FS1 + 8 * 4: 0x30067,
    FS1 + 8 * 5: 0x31067,
    FS1 + 8 * 6: 0x32067,
    FS1 + 8 * 7: 0x30025,
    FS1 + 8 * 8: 0x30063,
    FS1 + 8 * 9: 0x30021,
    FS1 + 8 * 10: 0x201067,
    # 2 MiB at 0x200000 and at 0, 1 GiB at 0x40000000.
    FS2 + 8: 0x2000E7,
    FS2 + 16: 0xE7,
    FS3 + 8: 0x4000_00E7,
    # The upper half of the root table points to the lower half's first table.
    0x20000 + 8 * 0x1FF: 0x21027,
}

PAGE_RW, PAGE_RO, PAGE_WO = BASE + 0x4000, BASE + 0x5000, BASE + 0x6000
"""In the second stage; nested, what the second stage says of the page."""
FS_RO, FS_PRIVILEGED, FS_PRIVILEGED_RO, FS_IN_2M = BASE + 0x7000, BASE + 0x8000, BASE + 0x9000, BASE + 0xA000
UPPER_HALF = 0xFFFF_FF80_8060_4000


def handmade(changes: dict[int, int] | None = None, *, rtaddr: int = RTADDR, **options: int) -> Machine:
    """A machine with these tables, some words changed, and translation on."""
    memory = SparseMemory(RAM)
    memory.put(WORDS | (changes or {}))
    machine = Machine(memory, **options)
    machine.switch_on(rtaddr)
    return machine


class Ask(NamedTuple):
    """A request, by default a read in the middle of the page that allows everything."""

    slot: Slot
    iova: int = PAGE_RW + 0x123
    access: Access = "r"
    privileged: bool = False
    kind: RequestKind = "untranslated"

    def of(self, machine: Machine) -> Translation:
        """What the tables alone say."""
        return machine.unit.walk(self.slot, self.iova, self.access, privileged=self.privileged, kind=self.kind)

    def sent_to(self, machine: Machine) -> tuple[Translation, bool, bool]:
        """The request itself: see Machine.request."""
        return machine.request(self.slot, self.iova, self.access, privileged=self.privileged, kind=self.kind)
