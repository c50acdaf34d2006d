# SPDX-License-Identifier: Apache-2.0
"""What a stage 1 descriptor of each level means, and what is written."""

import struct

import pytest

from iommuctl.errors import BadStructure, DamagedTable
from iommuctl.formats import radix
from iommuctl.formats.format import Entry, index
from iommuctl.formats.memory import write_word
from iommuctl_smmuv3.stage1 import Stage1Descriptor, Stage1Descriptor64K, Stage1DescriptorDs, Stage1Format
from tests.formats.toy import BytesMemory, ToyMemory

K4, K16, K64, M2, M32, M512, G1 = (1 << shift for shift in (12, 14, 16, 21, 25, 29, 30))
L3, L2, L1, L0, L_1 = range(1, 6)
EMPTY, NO_TYPE = Entry("empty"), Entry("reserved")
EVERY_BIT = (1 << 64) - 1
AF, NG, DBM, HINT = 1 << 10, 1 << 11, 1 << 51, 1 << 52


# Words that were not made with this code.
@pytest.mark.parametrize(
    ("form", "level", "raw", "entry"),
    [
        (Stage1Format(), L2, 0x0000000910001003, Entry("table", 0x9_1000_1000, "rwx")),
        (Stage1Format(), L3, 0x0060000800003F47, Entry("leaf", 0x8_0000_3000, "rw")),
        (Stage1Format(), L2, 0x0060000800200F45, Entry("leaf", 0x8_0020_0000, "rw")),
        (Stage1Format(), L3, 0x00000008000047C7, Entry("leaf", 0x8_0000_4000, "rx")),
        (Stage1Format(), L3, 0x0068000800005FC7, Entry("leaf", 0x8_0000_5000, "r")),
        (Stage1Format(K64, 52, output=52), L3, 0x006012345678FF47, Entry("leaf", 0xF_1234_5678_0000, "rw")),
        (Stage1Format(K4, 52, output=52, ds=True), L3, 0x0062123456789F47, Entry("leaf", 0xE_1234_5678_9000, "rw")),
    ],
)
def test_descriptors(form: Stage1Format, level: int, raw: int, entry: Entry) -> None:
    assert form.decode(level, raw) == entry
    if entry.kind == "table":
        assert form.table(level, entry.address) == raw
    elif entry.prot == "rw":
        assert form.leaf(level, entry.address, entry.prot) == raw
    else:
        # Not global here; the second has DBM and execution taken away besides.
        assert form.leaf(level, entry.address, entry.prot) & ~NG == raw & ~(NG | DBM)


@pytest.mark.parametrize(
    ("iova", "granule", "width", "indices"),
    [
        (0x7F1234567000, K4, 48, {L0: 0xFE, L1: 0x48, L2: 0x1A2, L3: 0x167}),
        (0x7F1234567000, K16, 48, {L0: 0, L1: 0x7F1, L2: 0x11A, L3: 0x159}),
        (0x7F1234567000, K16, 47, {L1: 0x7F1, L2: 0x11A, L3: 0x159}),
        (0x7F1234567000, K64, 48, {L1: 0x1F, L2: 0x1891, L3: 0x1456}),
        (0xF7F1234567000, K64, 52, {L1: 0x3DF, L2: 0x1891, L3: 0x1456}),
        (0x3F1234567, K4, 39, {L1: 0xF, L2: 0x189, L3: 0x34}),
    ],
)
def test_indices(iova: int, granule: int, width: int, indices: dict[int, int]) -> None:
    form = Stage1Format(granule, width)
    assert {level: index(form, level, iova) for level in range(form.levels, 0, -1)} == indices


def test_a_walk_through_four_levels() -> None:
    base = 0x9_1000_0000
    memory = BytesMemory(bytearray(4 * K4), base)
    steps = [
        (L0, 0x9_1000_07F0, 0x910001003),
        (L1, 0x9_1000_1240, 0x910002003),
        (L2, 0x9_1000_2D10, 0x910003003),
        (L3, 0x9_1000_3B38, 0x60000800003F47),
    ]
    for _, address, raw in steps:
        write_word(memory, address, raw)
    visits = list(radix.walk(Stage1Format(), memory, base, 0x7F1234567ABC))
    assert [(visit.level, visit.address, visit.raw) for visit in visits] == steps
    assert [4 - level for level, *_ in steps] == [Stage1Format().numbered(level) for level, *_ in steps] == [0, 1, 2, 3]
    assert visits[-1].entry.address == 0x8_0000_3000


@pytest.mark.parametrize(
    ("granule", "t0sz", "start"),
    [
        *((K4, t0sz, level) for least, most, level in ((12, 15, -1), (16, 24, 0), (25, 33, 1), (34, 42, 2), (43, 48, 3))
          for t0sz in (least, most)),
        *((K16, t0sz, level) for least, most, level in ((12, 16, 0), (17, 27, 1), (28, 38, 2), (39, 48, 3))
          for t0sz in (least, most)),
        *((K64, t0sz, level) for least, most, level in ((12, 21, 1), (22, 34, 2), (35, 47, 3))
          for t0sz in (least, most)),
    ],
)  # fmt: skip
def test_start_levels(granule: int, t0sz: int, start: int) -> None:
    form = Stage1Format(granule, 64 - t0sz, output=52, ds=True)
    assert form.numbered(form.levels) == start
    assert form.entries(form.levels) * 8 <= granule
    assert all(form.entries(level) * 8 == granule for level in range(1, form.levels))


@pytest.mark.parametrize(
    ("form", "sizes"),
    [
        (Stage1Format(), "4K 64K 2M 32M 1G 16G"),
        (Stage1Format(K4, 33), "4K 64K 2M 32M 1G"),
        (Stage1Format(K4, 52, output=52, ds=True), "4K 64K 2M 32M 1G 16G 512G"),
        (Stage1Format(K4, 48, ds=True), "4K 64K 2M 32M 1G 16G 512G"),
        (Stage1Format(K16), "16K 2M 32M 1G"),
        (Stage1Format(K16, ds=True), "16K 2M 32M 1G 64G"),
        (Stage1Format(K64), "64K 2M 512M 16G"),
        (Stage1Format(K64, output=52), "64K 2M 512M 16G 4T"),
        (Stage1Format(K64, output=44, oas=52), "64K 2M 512M 16G 4T"),
        (Stage1Format(K64, ds=True), "64K 2M 512M 16G"),
    ],
)
def test_page_sizes(form: Stage1Format, sizes: str) -> None:
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    assert form.page_sizes == tuple(int(size[:-1]) << units[size[-1]] for size in sizes.split())


@pytest.mark.parametrize(
    ("granule", "runs"),
    [(K4, {L3: 16, L2: 16, L1: 16, L0: 1}), (K16, {L3: 128, L2: 32, L1: 1, L0: 1}), (K64, {L3: 32, L2: 32, L1: 1})],
)
def test_contiguous_runs(granule: int, runs: dict[int, int]) -> None:
    form = Stage1Format(granule)
    assert {level: form.contiguous(level) for level in range(1, form.levels + 1)} == runs


def test_bit_0_alone_makes_a_descriptor_valid() -> None:
    form = Stage1Format()
    for level in range(1, 5):
        assert form.decode(level, 0) == EMPTY
        assert form.decode(level, EVERY_BIT & ~1) == EMPTY


@pytest.mark.parametrize(
    ("form", "blocks", "others"),
    [
        (Stage1Format(), (L2, L1), (L3, L0)),
        (Stage1Format(K4, 52, ds=True), (L2, L1, L0), (L3, L_1)),
        (Stage1Format(K16), (L2,), (L3, L1, L0)),
        (Stage1Format(K16, ds=True), (L2, L1), (L3, L0)),
        (Stage1Format(K64), (L2,), (L3, L1)),
        (Stage1Format(K64, output=52), (L2, L1), (L3,)),
        (Stage1Format(K64, output=44, oas=52), (L2, L1), (L3,)),
    ],
)
def test_where_blocks_are(form: Stage1Format, blocks: tuple[int, ...], others: tuple[int, ...]) -> None:
    assert set(blocks) | set(others) == set(range(1, form.levels + 1))
    for level in blocks:
        assert form.decode(level, 0x441) == Entry("leaf", 0, "rwx")
        assert form.leaf(level, 0, "rwx") & 3 == 1
    for level in others:
        assert form.decode(level, 0x441) == NO_TYPE
        if level != L3:
            with pytest.raises(BadStructure, match=f"cannot map a page of {1 << form.shift(level):#x} bytes at 0x0"):
                form.leaf(level, 0, "rw")


# By AP[2:1], PXN and UXN.
@pytest.mark.parametrize(
    ("ap", "pxn", "uxn", "prot"),
    [
        (0, 0, 0, "rwxp"),
        (0, 0, 1, "rwxp"),
        (0, 1, 0, "rwp"),
        (0, 1, 1, "rwp"),
        (1, 0, 0, "rwx"),
        (1, 1, 0, "rwx"),
        (1, 0, 1, "rw"),
        (1, 1, 1, "rw"),
        (2, 0, 1, "rxp"),
        (2, 1, 0, "rp"),
        (3, 0, 0, "rx"),
        (3, 1, 0, "r"),
        (3, 0, 1, "r"),
        (3, 1, 1, "r"),
    ],
)
def test_permissions(ap: int, pxn: int, uxn: int, prot: str) -> None:
    raw = Stage1Descriptor.encode(Valid=1, Type=1, AF=1, AP=ap, PXN=pxn, UXN=uxn, OA=0x5000)
    assert Stage1Format().decode(L3, raw) == Entry("leaf", 0x5000, prot)
    assert Stage1Format().decode(L2, raw & ~2 | M2) == Entry("leaf", M2, prot)


@pytest.mark.parametrize(
    ("bits", "prot"),
    [
        (0, "rwx"),
        (1 << 59, "rw"),
        (1 << 60, "rw"),
        (1 << 61, "rwxp"),
        (1 << 62, "rx"),
        (31 << 59, "rp"),
        (1 << 63, "rwx"),
    ],
)
def test_what_tables_allow(bits: int, prot: str) -> None:
    for level in (L2, L1, L0):
        assert Stage1Format().decode(level, bits | 0x5003) == Entry("table", 0x5000, prot)
        assert Stage1Format(had=True).decode(level, bits | 0x5003) == Entry("table", 0x5000, "rwx")


def test_tables_take_permissions_away() -> None:
    form = Stage1Format()
    memory = ToyMemory()
    root = radix.new_root(form, memory)
    radix.map_range(form, memory, root, 0, K4, 0, "rwx", (K4,))
    top = next(radix.walk(form, memory, root, 0))
    write_word(memory, top.address, top.raw | 1 << 62 | 1 << 61)
    assert [leaf.prot for leaf in radix.leaves(form, memory, root)] == ["rxp"]
    assert [leaf.prot for leaf in radix.leaves(Stage1Format(had=True), memory, root)] == ["rwx"]


def test_ignored_bits() -> None:
    form = Stage1Format()
    ignored = 3 << 48 | 1 << 50 | DBM | HINT | 15 << 55 | 31 << 59 | AF | NG | 3 << 8 | 1 << 5 | 7 << 2
    assert form.decode(L3, 0x5043 | ignored) == Entry("leaf", 0x5000, "rwx")
    assert form.decode(L2, M2 | 0x41 | ignored | (M2 - K4)) == Entry("leaf", M2, "rwx")
    assert form.decode(L1, G1 | 0x41 | ignored | (G1 - K4)) == Entry("leaf", G1, "rwx")
    assert form.decode(L2, 0x5003 | ignored & (1 << 59) - 1 | 0xFFC) == Entry("table", 0x5000, "rwx")
    assert Stage1Format(K16).decode(L2, K16 | 0x3003) == Entry("table", K16, "rwx")
    assert Stage1Format(K64).decode(L2, K64 | 0xF003) == Entry("table", K64, "rwx")
    assert Stage1Format(K64).decode(L3, K64 | 0xF043) == Entry("leaf", K64, "rwx")


@pytest.mark.parametrize(
    ("form", "bits", "beyond"),
    [
        (Stage1Format(), 48, 0),
        (Stage1Format(output=52), 48, 0),
        (Stage1Format(output=44), 44, 0xF << 44),
        (Stage1Format(output=32), 32, 0xFFFF << 32),
        (Stage1Format(K4, ds=True, output=52), 52, 0),
        (Stage1Format(K4, ds=True, output=48), 48, 3 << 48 | 3 << 8),
        (Stage1Format(K16, ds=True, output=44), 44, 0x3F << 44 | 3 << 8),
        (Stage1Format(K64), 48, 0),
        (Stage1Format(K64, output=52), 52, 0),
        (Stage1Format(K64, output=48, oas=52), 48, 0xF << 12),
        (Stage1Format(K64, output=44, oas=52), 44, 0xF << 44 | 0xF << 12),
    ],
)
def test_addresses_beyond_the_output_size(form: Stage1Format, bits: int, beyond: int) -> None:
    """Each of these bits alone, and all of them, in pages, blocks and tables; no others."""
    alone = [1 << bit for bit in range(64) if beyond >> bit & 1]
    for level, raw in ((L3, 0x43), (L2, 0x41), (L2, 3)):
        for bad in [*alone, beyond] if beyond else []:
            assert form.decode(level, raw | bad) == Entry("reserved", reserved=bad)
        assert form.decode(level, (EVERY_BIT ^ 3) & ~beyond | raw & 3).kind in ("leaf", "table")
    for bit in range(form.shift(1), 52):
        for level in (L3, L2):
            if form.shift(level) <= bit < bits:
                assert form.decode(level, form.leaf(level, 1 << bit, "rw")).address == 1 << bit
            else:
                with pytest.raises(BadStructure):
                    form.leaf(level, 1 << bit, "rw")


def test_layouts() -> None:
    assert Stage1Format().layout is Stage1Format(K64).layout is Stage1Format(K16, output=52).layout is Stage1Descriptor
    assert Stage1Format(K64, output=52).layout is Stage1Format(K64, oas=52).layout is Stage1Descriptor64K
    assert Stage1Format(K4, ds=True).layout is Stage1Format(K16, ds=True).layout is Stage1DescriptorDs
    assert Stage1Format(K64, ds=True).layout is Stage1Descriptor
    assert Stage1Descriptor.values(0x0060000800003F47) == {
        "Valid": 1, "Type": 1, "AttrIndx": 1, "NS": 0, "AP": 1, "SH": 3, "AF": 1, "nG": 1, "OA": 0x8_0000_3000,
        "DBM": 0, "Contiguous": 0, "PXN": 1, "UXN": 1, "PXNTable": 0, "UXNTable": 0, "APTable": 0, "NSTable": 0,
    }  # fmt: skip
    wide = Stage1Descriptor64K.values(0x006012345678FF47)
    assert (wide["OA"], wide["OA_51_48"], wide["SH"]) == (0x1234_5678_0000, 0xF, 3)
    wide = Stage1DescriptorDs.values(0x0062123456789F47)
    assert (wide["OA"], wide["OA_51_50"], "SH" in wide) == (0x2_1234_5678_9000, 3, False)
    for layout in (Stage1Descriptor, Stage1Descriptor64K, Stage1DescriptorDs):
        assert layout.reserved == 0, "hardware checks none but address bits"


def test_names() -> None:
    assert [
        form.name for form in (Stage1Format(), Stage1Format(K64, 52, output=52), Stage1Format(K16, 52, ds=True))
    ] == [
        "smmuv3.stage-1-4k-48",
        "smmuv3.stage-1-64k-52",
        "smmuv3.stage-1-16k-52-ds",
    ]


def test_what_is_written() -> None:
    form = Stage1Format()
    assert form.leaf(L3, 0x5000, "rwx") == 0x0000000000005F47
    assert form.leaf(L3, 0x5000, "r") == 0x0060000000005FC7
    assert form.leaf(L3, 0x5000, "rp") == 0x0060000000005F87
    assert form.leaf(L3, 0x5000, "rwxp") == 0x0040000000005F07
    assert form.leaf(L1, G1, "rw") == 0x0060000040000F45
    assert Stage1Format(K64, 52, output=52).leaf(L2, 0xA_0000_2000_0000, "rw") == 0x006000002000AF45
    assert Stage1Format(K64, 52, output=52).table(L1, 0xA_0000_2001_0000) == 0x000000002001A003
    assert Stage1Format(K4, 52, output=52, ds=True).leaf(L3, 0, "rw") == 0x0060000000000C47
    assert Stage1Format(K4, 52, output=52, ds=True).table(L0, 0xF_0000_0000_1000) == 0x0003000000001303


def test_a_run_has_the_hint_in_all_its_descriptors() -> None:
    form = Stage1Format()
    memory = ToyMemory()
    root = radix.new_root(form, memory)
    radix.map_range(form, memory, root, 0, 18 * K4, 0x8_0000_0000, "rw", form.page_sizes)
    words = [visit.raw for visit in radix.entries(form, memory, root) if visit.level == L3]
    assert words == [
        *(0x0070000800000F47 + number * K4 for number in range(16)),
        0x0060000800010F47,
        0x0060000800011F47,
    ]


@pytest.mark.parametrize(
    ("form", "pa"),
    [
        (Stage1Format(K64, 52, output=52), 1 << 48),
        (Stage1Format(K64, 52, output=52), 5 << 48),
        (Stage1Format(K4, 52, output=52, ds=True), 1 << 50),
        (Stage1Format(K16, 52, output=52, ds=True), 3 << 50),
    ],
)
def test_a_mapping_over_a_boundary_of_packed_bits(form: Stage1Format, pa: int) -> None:
    memory = ToyMemory()
    root = radix.new_root(form, memory)
    page = form.page_sizes[0]
    radix.map_range(form, memory, root, 0, 200 * page, pa - 100 * page, "rw", (page,))
    words = [visit.raw for visit in radix.entries(form, memory, root) if visit.level == L3]
    assert words == [form.leaf(L3, pa + number * page, "rw") for number in range(-100, 100)]
    assert [leaf.pa for leaf in radix.leaves(form, memory, root)] == [pa + n * page for n in range(-100, 100)]


def test_dirty_state_by_hardware_does_not_break_a_run() -> None:
    """A write to one page of a run clears AP[2] there, where DBM allows it."""
    form = Stage1Format()
    memory = ToyMemory()
    root = radix.new_root(form, memory)
    radix.map_range(form, memory, root, 0, K64, 0, "r", form.page_sizes)
    pages = [visit for visit in radix.entries(form, memory, root) if visit.level == L3]
    for page in pages:
        write_word(memory, page.address, (page.raw | DBM) & ~AF)
    write_word(memory, pages[3].address, (pages[3].raw | DBM) & ~(1 << 7))
    assert radix.check(form, memory, root) == []
    write_word(memory, pages[5].address, pages[5].raw & ~(1 << 7))
    assert radix.check(form, memory, root) != []


def test_texts_have_the_levels_of_the_architecture() -> None:
    form = Stage1Format(output=44)
    memory = ToyMemory()
    root = radix.new_root(form, memory)
    radix.map_range(form, memory, root, 0, K4, 0, "rw", (K4,))
    last = list(radix.walk(form, memory, root, 0))[-1]
    write_word(memory, last.address, last.raw | 1 << 44)
    write_word(memory, root + 8, form.table(L0, 0x7000))
    assert radix.check(form, memory, root) == [
        f"the entry of level 3 at {last.address:#x} for IOVA 0x0, {last.raw | 1 << 44:#x}, has reserved bit 44 set",
        "the table of level 1 at 0x7000 for IOVA 0x8000000000 is outside memory",
    ]
    with pytest.raises(DamagedTable, match="the table of level 1 at 0x7000 is outside memory"):
        radix.unmap_range(form, memory, root, 1 << 39, K4)


def test_words_that_count_up_are_not_always_pages() -> None:
    """The bits above the address in its place mean something else: here only the first and the last are good."""
    form = Stage1Format(K64, 52, output=44, oas=52)
    size = 1 << 42
    memory = ToyMemory()
    root = radix.new_root(form, memory)
    words = [form.leaf(L1, 0, "rw") + number * size for number in range(65)]
    assert [form.decode(L1, word).kind for word in (words[0], words[4], words[64])] == ["leaf", "reserved", "leaf"]
    memory.write(root, struct.pack("<65Q", *words))
    with pytest.raises(DamagedTable):
        radix.unmap_range(form, memory, root, 0, 65 * size)


def test_the_upper_half_has_tables_of_its_own() -> None:
    """The format looks at the bits below the size of the region only."""
    form = Stage1Format(K4, 39)
    memory = ToyMemory()
    root = radix.new_root(form, memory)
    radix.map_range(form, memory, root, 0x12345000, K4, 0x7000, "rw", (K4,))
    upper = 0x12345000 - (1 << 39) & EVERY_BIT
    assert upper == 0xFFFFFF8012345000
    assert list(radix.walk(form, memory, root, upper))[-1].entry.address == 0x7000
