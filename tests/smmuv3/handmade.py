# SPDX-License-Identifier: Apache-2.0
"""One good set of tables, word by word as IHI0070 G.b and DDI0487 M.a.a have them, made without our driver.

There is a linear stream table of 32 streams. Streams with stage 1 have eight CDs, of which the first is that of
requests without PASID, and share one tree; its addresses are physical or, nested, intermediate ones. Stage 2 maps the
CDs and the tables of that tree to themselves.
"""

from typing import NamedTuple

from iommuctl.model import Access, RequestKind, Slot
from tests.machine import SparseMemory
from tests.smmuv3.machine import Machine, slot, structures

RAM = (0, 0x10_0000)
NOWHERE = 0x80_0000
"""A physical address without memory."""
STRTAB, LINEAR_32 = 0x1000, 5
"""STRTAB_BASE, and STRTAB_BASE_CFG."""

ONE, ONE_5 = slot(8), slot(8, 5)
"""Stage 1 alone: ASIDs 0x12 and, with PASID 5, 0x15; VMID 0x11."""
TWO = slot(9)
"""Stage 2 alone, VMID 0x2a."""
BOTH, BOTH_5 = slot(10), slot(10, 5)
"""Nested: the ASIDs of ONE, VMID 0x2b."""
THROUGH, ABORTED, HYP, UNUSED = slot(11), slot(12), slot(13), slot(14)
"""Bypass; abort; stage 1 alone of EL2 without ASIDs; an STE that is not valid."""


def ste(where: Slot) -> int:
    """Where the STE lies."""
    return STRTAB + 64 * where.rid.source_id


STE_ONE = (0x1800_0000_0000_300B, 0x0000_1000_1000_00D6, 0x11)
"""S1CDMax 3, S1ContextPtr 0x3000, S1DSS 2, EATS 1, SHCFG 1."""
STE_TWO = (0xD, 0x0000_1000_1000_0000, 0x044C_3594_0000_002A, 0x10000)
"""The stage 2 of V5: 44 bits from level 0 on, 4 KB, S2PS 4, S2PTW, S2R."""
STE_BOTH = (0x1800_0000_0000_300F, 0x0000_1000_1000_00D6, 0x044C_3594_0000_002B, 0x10000)
STE_HYP = (0x1800_0000_0000_300B, 0x0000_1000_9000_00D6, 0x11)

CD_0, CD_5 = 0x3000, 0x3140
CD_WORDS = (0x0012_E205_C000_3510, 0x20000, 0, 0xF404_FF44)
"""V11, but for TTB0: 48 bits of TTB0 alone, 4 KB, IPS 5, R, A, ASET, ASID 0x12."""
CD_WORDS_5 = (0x0015_E205_C000_3510, *CD_WORDS[1:])

# Input addresses of stage 1 have the indices 1, 2, 3 and n.
BASE = 1 << 39 | 2 << 30 | 3 << 21
RW, RO, PRIV, PRIV_RO, GLOBAL, OLD, CLEAN = (BASE + 0x1000 * n for n in (4, 5, 6, 7, 8, 9, 10))
"""All may read and write, read; privileged requests alone; not of the ASID; AF = 0; writable-clean, by DBM."""
ABSENT = BASE + 0xB000
IN_2M = 1 << 39 | 2 << 30 | 4 << 21
IN_2M_OVER_4K = 1 << 39 | 2 << 30 | 5 << 21
"""A block of stage 1 of which stage 2 maps the first 16 pages one by one, from PA 0x90000 on."""
IN_1G = 1 << 39 | 3 << 30

L0, L1, L2, L3 = 0x20008, 0x21010, 0x22018, 0x23000
"""Stage 1 descriptors on the way to BASE; L3 is the one of n = 0."""
I0, I1, I2, I3 = 0x10000, 0x14000, 0x15000, 0x16000
"""Stage 2 descriptors on the way to IPA 0."""

STREAMS = (
    structures(STE_ONE, ste(ONE))
    | structures(STE_TWO, ste(TWO))
    | structures(STE_BOTH, ste(BOTH))
    | structures(STE_HYP, ste(HYP))
    | {ste(THROUGH): 0x9, ste(THROUGH) + 8: 0x1000_0000_0000, ste(ABORTED): 0x1}
)
WORDS = STREAMS | structures(CD_WORDS, CD_0) | structures(CD_WORDS_5, CD_5) | {
    # Stage 1: tables, then pages with AF, nG, ISH, AttrIndx 1.
    L0: 0x21003,
    L1: 0x22003,
    L2: 0x23003,
    L3 + 8 * 4: 0x30F47,
    L3 + 8 * 5: 0x31FC7,
    L3 + 8 * 6: 0x32F07,
    L3 + 8 * 7: 0x33F87,
    L3 + 8 * 8: 0x34747,
    L3 + 8 * 9: 0x35B47,
    L3 + 8 * 10: 0x0008_0000_0003_6FC7,
    # 2 MB at 0x200000 and 0x400000, 1 GB at 0x40000000.
    L2 + 8: 0x20_0F45,
    L2 + 16: 0x40_0F45,
    L1 + 8: 0x4000_0F45,
    # Stage 2: tables, then what stage 1 is made of, then its pages: WB, ISH, AF, read and write or less.
    I0: 0x14003,
    I1: 0x15003,
    I2: 0x16003,
    I3 + 8 * 0x03: 0x37FF,
    I3 + 8 * 0x20: 0x207FF,
    I3 + 8 * 0x21: 0x217FF,
    I3 + 8 * 0x22: 0x227FF,
    I3 + 8 * 0x23: 0x237FF,
    I3 + 8 * 0x30: 0x987FF,
    I3 + 8 * 0x31: 0x9977F,
    I3 + 8 * 0x32: 0x9A7FF,
    I3 + 8 * 0x33: 0x9B7FF,
    I3 + 8 * 0x34: 0x9C7FF,
    I3 + 8 * 0x35: 0x9D7FF,
    I3 + 8 * 0x36: 0x9E7FF,
    I3 + 8 * 0x38: 0x9F7BF,
    # IPA 0x200000 and 0x40000000 are blocks; 0x400000 are pages.
    I2 + 8: 0x60_07FD,
    I1 + 8: 0x8000_07FD,
    I2 + 16: 0x17003,
    **{0x17000 + 8 * n: 0x90000 + 0x1000 * n | 0x7FF for n in range(16)},
}  # fmt: skip
WRITE_ONLY = 0x38000
"""Of stage 2, an address of that kind."""


def handmade(changes: dict[int, int] | None = None, *, cr2: int = 0, cr0: int = 0xD, **options: int) -> Machine:
    """A machine with these tables, some words changed, and translation on."""
    memory = SparseMemory(RAM)
    memory.put(WORDS | (changes or {}))
    machine = Machine(memory, **options)
    machine.switch_on(STRTAB, LINEAR_32, cr0=cr0, cr2=cr2)
    return machine


class Ask(NamedTuple):
    """A request, by default a read in the middle of the page that allows everything."""

    slot: Slot
    iova: int = RW + 0x123
    access: Access = "r"
    privileged: bool = False
    kind: RequestKind = "untranslated"

    def of(self, machine: Machine) -> int | str:
        """Send it: where it goes, or the name of its event."""
        told = machine.unit.request(
            self.slot, self.iova, self.access, privileged=self.privileged, kind=self.kind
        ).translation
        return told.fault.name if told.fault else told.pa or 0
