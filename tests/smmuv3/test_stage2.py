# SPDX-License-Identifier: Apache-2.0
"""What a stage 2 descriptor of each level means, and what is written; where walks begin."""

import pytest

from iommuctl.errors import BadStructure
from iommuctl.formats import radix
from iommuctl.formats.format import Entry, index
from iommuctl.formats.memory import write_word
from iommuctl_smmuv3.stage2 import Stage2Descriptor, Stage2Descriptor64K, Stage2DescriptorDs, Stage2Format
from tests.formats.toy import ToyMemory

K4, K16, K64, M2, G1 = (1 << shift for shift in (12, 14, 16, 21, 30))
L3, L2, L1, L0, L_1 = range(1, 6)
EMPTY, NO_TYPE = Entry("empty"), Entry("reserved")
EVERY_BIT = (1 << 64) - 1
AF, DBM, HINT = 1 << 10, 1 << 51, 1 << 52


# Words that were not made with this code.
@pytest.mark.parametrize(
    ("form", "level", "raw", "entry", "ours"),
    [
        (Stage2Format(), L2, 0x0000000910001003, Entry("table", 0x9_1000_1000, "rwx"), True),
        (Stage2Format(), L3, 0x00000004000077FF, Entry("leaf", 0x4_0000_7000, "rwx"), True),
        (Stage2Format(fwb=True), L2, 0x0000000400200759, Entry("leaf", 0x4_0020_0000, "rx"), True),
        # Device memory, which we do not write.
        (Stage2Format(), L3, 0x00400000090007C7, Entry("leaf", 0x0900_0000, "rw"), False),
    ],
)
def test_descriptors(form: Stage2Format, level: int, raw: int, entry: Entry, ours: bool) -> None:
    assert form.decode(level, raw) == entry
    if entry.kind == "table":
        assert form.table(level, entry.address) == raw
    elif ours:
        assert form.leaf(level, entry.address, entry.prot) == raw
    else:
        assert form.leaf(level, entry.address, entry.prot) ^ raw == 0b1110 << 2


def test_indices_of_tables_side_by_side() -> None:
    form = Stage2Format(K4, 40, start_level=1)
    assert [index(form, level, 0xFF12345678) for level in (L1, L2, L3)] == [0x3FC, 0x91, 0x145]
    assert (form.levels, form.entries(L1)) == (3, 1024)
    memory = ToyMemory()
    root = radix.new_root(form, memory)
    assert root % (2 * K4) == 0
    radix.map_range(form, memory, root, 0xFF12345000, K4, 0x7000, "rw", (K4,))
    first, *_, last = radix.walk(form, memory, root, 0xFF12345678)
    assert first.address == root + 8 * 0x3FC
    assert last.entry.address == 0x7000


# Least and most T0SZ with one table, and from there down with 2, 4, 8 and 16.
ONE_TABLE = {
    (K4, -1): (12, 15),
    (K4, 0): (16, 24),
    (K4, 1): (25, 33),
    (K4, 2): (34, 42),
    (K4, 3): (43, 48),
    (K16, 0): (12, 16),
    (K16, 1): (17, 27),
    (K16, 2): (28, 38),
    (K16, 3): (39, 48),
    (K64, 1): (12, 21),
    (K64, 2): (22, 34),
    (K64, 3): (35, 47),
}


@pytest.mark.parametrize(("granule", "level"), ONE_TABLE)
def test_start_levels(granule: int, level: int) -> None:
    least, most = ONE_TABLE[granule, level]
    for t0sz in range(least, most + 1):
        form = Stage2Format(granule, 64 - t0sz, output=52, ds=True, start_level=level)
        assert form.numbered(form.levels) == level
        assert 2 <= form.entries(form.levels) <= granule // 8
    for more in range(1, 5):
        if least - more >= 12:
            form = Stage2Format(granule, 64 - least + more, output=52, ds=True, start_level=level)
            assert form.entries(form.levels) * 8 == granule << more


# What Linux makes of input and output sizes: the start level, and how many tables.
@pytest.mark.parametrize(
    ("granule", "width", "output", "level", "tables"),
    [
        (K4, 48, 48, 0, 1),
        (K4, 44, 44, 0, 1),
        (K4, 42, 42, 1, 8),
        (K4, 40, 40, 1, 2),
        (K4, 40, 44, 0, 1),
        (K4, 44, 40, 0, 1),
        (K4, 39, 40, 1, 1),
        (K4, 32, 32, 1, 1),
        (K16, 48, 48, 1, 2),
        (K16, 48, 44, 1, 2),
        (K16, 47, 48, 1, 1),
        (K16, 50, 48, 1, 8),
        (K16, 52, 48, 0, 1),
        (K16, 44, 44, 1, 1),
        (K16, 42, 42, 1, 1),
        (K16, 40, 40, 2, 16),
        (K16, 40, 42, 1, 1),
        (K16, 36, 40, 2, 1),
        (K64, 52, 52, 1, 1),
        (K64, 48, 48, 1, 1),
        (K64, 42, 42, 2, 1),
        (K64, 40, 40, 2, 1),
    ],
)
def test_the_usual_start_level(granule: int, width: int, output: int, level: int, tables: int) -> None:
    form = Stage2Format(granule, width, output=output)
    assert form.numbered(form.levels) == level
    assert max(1, form.entries(form.levels) * 8 // granule) == tables


def test_bit_0_alone_makes_a_descriptor_valid() -> None:
    form = Stage2Format()
    for level in range(1, 5):
        assert form.decode(level, 0) == EMPTY
        assert form.decode(level, EVERY_BIT & ~1) == EMPTY


@pytest.mark.parametrize(("bits", "prot"), [(0, ""), (1, "r"), (2, "w"), (3, "rw")])
def test_permissions(bits: int, prot: str) -> None:
    form = Stage2Format()
    never = 1 << 54
    assert form.decode(L3, bits << 6 | never | 0x5403) == Entry("leaf", 0x5000, prot)
    assert form.decode(L2, bits << 6 | never | M2 | 0x401) == Entry("leaf", M2, prot)
    assert form.leaf(L3, 0x5000, prot) == bits << 6 | never | 0x573F


@pytest.mark.parametrize(("xn", "with_xnx", "without"), [(0, "x", "x"), (1, "", "x"), (2, "", ""), (3, "", "")])
def test_execution(xn: int, with_xnx: str, without: str) -> None:
    raw = Stage2Descriptor.encode(Valid=1, Type=1, AF=1, XN=xn, OA=0x5000)
    assert Stage2Format(xnx=True).decode(L3, raw).prot == with_xnx
    assert Stage2Format(xnx=False).decode(L3, raw).prot == without


@pytest.mark.parametrize("xnx", [True, False])
def test_execution_is_for_all_or_for_nobody(xnx: bool) -> None:
    form = Stage2Format(xnx=xnx)
    assert Stage2Descriptor.XN.get(form.leaf(L3, 0, "rwx")) == 0
    assert Stage2Descriptor.XN.get(form.leaf(L3, 0, "rw")) == 2


def test_tables_take_nothing_away() -> None:
    form = Stage2Format()
    for level in (L2, L1, L0):
        assert form.decode(level, 31 << 59 | 3 << 53 | 0x5003) == Entry("table", 0x5000, "rwx")


def test_ignored_bits() -> None:
    form = Stage2Format()
    ignored = 7 << 48 | DBM | HINT | 15 << 55 | 31 << 59 | AF | 1 << 11 | 3 << 8 | 15 << 2
    assert form.decode(L3, 0x50C3 | ignored) == Entry("leaf", 0x5000, "rwx")
    assert form.decode(L2, M2 | 0xC1 | ignored | (M2 - K4)) == Entry("leaf", M2, "rwx")
    assert form.decode(L1, G1 | 0xC1 | ignored | (G1 - K4)) == Entry("leaf", G1, "rwx")
    assert form.decode(L2, 0x5003 | ignored | 0xFFC) == Entry("table", 0x5000, "rwx")


def test_types_without_a_meaning() -> None:
    form = Stage2Format()
    assert form.decode(L3, 0x5441) == NO_TYPE
    assert form.decode(L0, 0x441) == NO_TYPE
    assert Stage2Format(K4, 52, ds=True).decode(L0, 0x441).kind == "leaf"
    assert Stage2Format(K16).decode(L1, 0x441) == NO_TYPE
    assert Stage2Format(K64).decode(L1, 0x441) == NO_TYPE
    assert Stage2Format(K64, output=52).decode(L1, 0x441).kind == "leaf"


def test_addresses_beyond_the_output_size() -> None:
    form = Stage2Format(output=40)
    for level, raw in ((L3, 0x443), (L2, 0x441), (L2, 3)):
        assert form.decode(level, raw | 1 << 39).address == 1 << 39
        for bit in range(40, 48):
            assert form.decode(level, raw | 1 << bit) == Entry("reserved", reserved=1 << bit)
    with pytest.raises(BadStructure, match="cannot map a page of 0x1000 bytes at 0x10000000000"):
        form.leaf(L3, 1 << 40, "rw")
    with pytest.raises(BadStructure, match="cannot point to a table at 0x10000000000"):
        form.table(L2, 1 << 40)


def test_layouts() -> None:
    assert Stage2Format().layout is Stage2Format(K64).layout is Stage2Descriptor
    assert Stage2Format(K64, output=52).layout is Stage2Descriptor64K
    assert Stage2Format(K4, ds=True).layout is Stage2Format(K16, ds=True).layout is Stage2DescriptorDs
    assert Stage2Descriptor.values(0x00400000090007C7) == {
        "Valid": 1, "Type": 1, "MemAttr": 1, "S2AP": 3, "SH": 3, "AF": 1, "OA": 0x0900_0000, "DBM": 0, "Contiguous": 0,
        "XN": 2,
    }  # fmt: skip
    for layout in (Stage2Descriptor, Stage2Descriptor64K, Stage2DescriptorDs):
        assert layout.reserved == 0, "hardware checks none but address bits"


def test_what_is_written() -> None:
    assert Stage2Format().leaf(L3, 0x5000, "rw") == 0x00400000000057FF
    assert Stage2Format(fwb=True).leaf(L3, 0x5000, "rw") == 0x00400000000057DB
    assert Stage2Format().leaf(L1, G1, "r") == 0x004000004000077D
    assert Stage2Format(K64, output=52).leaf(L3, 0xA_0000_0001_0000, "rwx") == 0x000000000001A7FF
    assert Stage2Format(K4, 52, output=52, ds=True).leaf(L3, 0xF_0000_0000_1000, "rwx") == 0x00030000000017FF
    assert Stage2Format(K4, 52, output=52, ds=True).leaf(L3, 0x1000, "rwx") == 0x00000000000014FF


def test_dirty_state_by_hardware_does_not_break_a_run() -> None:
    """A write to one page of a run sets S2AP[1] there, where DBM allows it."""
    form = Stage2Format()
    memory = ToyMemory()
    root = radix.new_root(form, memory)
    radix.map_range(form, memory, root, 0, K64, 0, "r", form.page_sizes)
    pages = [visit for visit in radix.entries(form, memory, root) if visit.level == L3]
    for page in pages:
        write_word(memory, page.address, (page.raw | DBM) & ~AF)
    write_word(memory, pages[3].address, pages[3].raw | DBM | 1 << 7)
    assert radix.check(form, memory, root) == []
    write_word(memory, pages[5].address, pages[5].raw | 1 << 7)
    assert radix.check(form, memory, root) != []
