# SPDX-License-Identifier: Apache-2.0
"""What each command takes out of the TLB, and what it leaves: IHI0070 G.b sections 3.17 and 4.4."""

import pytest

from iommuctl_smmuv3.register_bank import DEFAULTS
from iommuctl_smmuv3.tlb import EL2, EL2_E2H, GLOBAL, IPA, PAGES, TABLES, VA, Page, Table, Tag, Tlb
from tests.smmuv3.handmade import CD_5, ONE, ONE_5, handmade
from tests.smmuv3.handmade import GLOBAL as GLOBAL_PAGE
from tests.smmuv3.machine import CMDQEN, SMMUEN, Machine, Words, idr0_with

TAGS = {
    "a": Tag(VA, 0x2A, 0x12),
    "b": Tag(VA, 0x2A, 0x13),
    "g": Tag(VA, 0x2A, GLOBAL, 0),
    "h": Tag(VA, 0x2A, GLOBAL, 1),
    "c": Tag(VA, 0x2B, 0x12),
    "k": Tag(VA, 0x2B, GLOBAL, 1),
    "i": Tag(IPA, 0x2A, GLOBAL),
    "j": Tag(IPA, 0x2B, GLOBAL),
    "e": Tag(EL2, 0, GLOBAL),
    "f": Tag(EL2_E2H, 0, 0x12),
    "m": Tag(EL2_E2H, 0, 0x13),
    "n": Tag(EL2_E2H, 0, GLOBAL),
}
"""Two ASIDs, what is global, by ASET, of a VMID, two VMIDs; both their IPAs; both forms of EL2."""
PAGE_4K, PAGE_64K, BLOCK_2M, BLOCK_1G, ALONE = 0x4000_1000, 0x5000_0000, 0x6020_0000, 0x8000_0000, 0x7FFF_FFFF_F000


def page(order: int, level: int, granule: int) -> Page:
    return Page(0, order, order, 63, 63, level, granule, order, True, False, [])


def full(idr0: int = DEFAULTS["IDR0"], idr3: int = DEFAULTS["IDR3"], idr5: int = DEFAULTS["IDR5"]) -> Machine:
    """Of each tag, by name and number: 0, 1, 2 pages of 4 KB, 64 KB, 2 MB; 3 a page elsewhere; t, u tables."""
    machine = handmade(idr0=idr0, idr3=idr3, idr5=idr5)
    tlb = Tlb(machine.rows)
    for tag in TAGS.values():
        tlb.fill(tag, PAGE_4K, page(12, 3, 12))
        tlb.fill(tag, PAGE_64K, page(16, 3, 16))
        tlb.fill(tag, BLOCK_2M, page(21, 2, 12))
        tlb.fill(tag, ALONE, page(12, 3, 12))
        tlb.fill_table(tag, PAGE_4K >> 21 << 21, Table(0, 3, 0, 2, 12, 21, 0))
        tlb.fill_table(tag, PAGE_4K >> 30 << 30, Table(0, 3, 0, 1, 12, 30, 0))
    return machine


def left(machine: Machine) -> set[str]:
    tlb = Tlb(machine.rows)
    found = set()
    for name, tag in TAGS.items():
        # What is global would be found by any ASID, so each is looked up by its own key alone.
        for number, (iova, order) in enumerate(((PAGE_4K, 12), (PAGE_64K, 16), (BLOCK_2M, 21), (ALONE, 12))):
            if machine.rows.get(PAGES, f"{tag.owner}{iova:016x}.{order:02d}"):
                found.add(f"{name}{number}")
        for letter, level, order in (("t", 2, 21), ("u", 1, 30)):
            if tlb.find_table(tag, level, PAGE_4K >> order << order):
                found.add(name + letter)
    assert len(found) == machine.rows.count(PAGES) + machine.rows.count(TABLES)
    return found


EVERYTHING = {name + entry for name in TAGS for entry in "0123tu"}


def of(names: str, entries: str = "0123tu") -> set[str]:
    return {name + entry for name in names for entry in entries}


TTL, TG, SCALE, NUM = 8, 10, 20, 12
TAG_A = 0x0012_002A_0000_0000

GONE: dict[str, tuple[Words, set[str]]] = {
    "NH_ALL": ((0x2A_0000_0010,), of("abgh")),
    "NH_ALL of another VMID": ((0x2B_0000_0010,), of("ck")),
    "NH_ALL of none": ((0x2C_0000_0010,), set()),
    "C6: NH_ASID": ((0x0012_002A_0000_0011, 0), of("a")),
    "NH_ASID of another VMID": ((0x0012_002B_0000_0011,), of("c")),
    "NH_ASID, the second": ((0x0013_002A_0000_0011,), of("b")),
    "NH_VA": ((TAG_A | 0x12, PAGE_4K), of("agh", "0tu")),
    "NH_VA, Leaf": ((TAG_A | 0x12, PAGE_4K | 1), of("agh", "0")),
    "NH_VA, another page": ((TAG_A | 0x12, PAGE_4K + 0x1000 | 1), set()),
    "NH_VA, another page, its tables": ((TAG_A | 0x12, PAGE_4K + 0x1000), of("agh", "tu")),
    "NH_VA, in a larger page": ((TAG_A | 0x12, PAGE_64K + 0xF000 | 1), of("agh", "1")),
    "NH_VA, in a block": ((TAG_A | 0x12, BLOCK_2M + 0x1F_F001), of("agh", "2")),
    "NH_VA, behind a block": ((TAG_A | 0x12, BLOCK_2M + 0x20_0000), of("agh", "u")),
    "NH_VAA": ((0x2A_0000_0013, PAGE_4K), of("abgh", "0tu")),
    "NH_VAA, Leaf": ((0x2A_0000_0013, PAGE_4K | 1), of("abgh", "0")),
    "NH_VAA, another VMID": ((0x2B_0000_0013, PAGE_4K), of("ck", "0tu")),
    "EL2_ALL": ((0x20,), of("efmn")),
    "EL2_ASID": ((0x0012_0000_0000_0021,), of("f")),
    "EL2_VA": ((0x0012_0000_0000_0022, PAGE_4K | 1), of("efn", "0")),
    "EL2_VAA": ((0x23, PAGE_4K | 1), of("efmn", "0")),
    "C12: S12_VMALL": ((0x2A_0000_0028, 0), of("abghi")),
    "S2_IPA": ((0x2A_0000_002A, PAGE_4K), of("i", "0tu")),
    "S2_IPA, Leaf": ((0x2A_0000_002A, PAGE_4K | 1), of("i", "0")),
    "C13: NSNH_ALL": ((0x30, 0), of("abghckij")),
    # Others are about other things.
    "CFGI_ALL": ((0x04, 0x1F), set()),
    "CFGI_STE": ((0x08_0000_0003, 1), set()),
    "CFGI_CD_ALL": ((0x08_0000_0006,), set()),
    "SYNC": ((0x46,), set()),
    "ATC_INV": ((0x40, 0x34), set()),
    "PREFETCH_CONFIG": ((0x08_0000_0001,), set()),
    "PREFETCH_ADDR": ((0x08_0000_0002, PAGE_4K), set()),
}  # fmt: skip


@pytest.mark.parametrize("name", GONE)
def test_what_goes(name: str) -> None:
    command, gone = GONE[name]
    machine = full()
    assert left(machine) == EVERYTHING
    assert machine.send(command) == 0
    assert EVERYTHING - left(machine) == gone


def ranged(addr: int, *, num: int = 0, scale: int = 0, ttl: int = 0, tg: int = 1, leaf: int = 1) -> Words:
    """TLBI_NH_VA of the first tag with a range."""
    return (TAG_A | scale << SCALE | num << NUM | 0x12, addr | tg << TG | ttl << TTL | leaf)


RANGES: dict[str, tuple[Words, str]] = {
    # C8, C9, C10: 512 pages at 0x40000000; 19 of 499, and the other 480.
    "C8": ((0x0012_002A_0090_0012, 0x4000_0701), "0"),
    "C9": ((0x0012_002A_0001_2012, 0x4000_0701), "0"),
    "C10": ((0x0012_002A_0050_E012, 0x4001_3701), ""),
    "before": (ranged(PAGE_4K - 0x2000, num=1), ""),
    "up to it": (ranged(PAGE_4K - 0x1000, num=1), "0"),
    "from it on": (ranged(PAGE_4K, num=1), "0"),
    "behind it": (ranged(PAGE_4K + 0x1000, num=1), ""),
    "one page by TTL": (ranged(PAGE_4K, ttl=3), "0"),
    "all, of the granule": (ranged(0, num=31, scale=26), "02"),
    "all, of 64 KB": (ranged(0, num=31, scale=22, tg=3), "1"),
    "all, of 16 KB": (ranged(0, num=31, scale=24, tg=2), ""),
    "all, of level 3": (ranged(0, num=31, scale=26, ttl=3), "0"),
    "all, of level 2": (ranged(0, num=31, scale=26, ttl=2), "2"),
    "all, of level 1": (ranged(0, num=31, scale=26, ttl=1), ""),
    "a block by its level": (ranged(BLOCK_2M, ttl=2), "2"),
    "in a block": (ranged(BLOCK_2M + 0x1F_F000, num=1), "2"),
    "tables above level 3": (ranged(PAGE_4K, ttl=3, leaf=0), "0tu"),
    "tables down to level 2": (ranged(PAGE_4K, ttl=2, leaf=0), "tu"),
    "tables down to level 1": (ranged(PAGE_4K, ttl=1, leaf=0), "u"),
    "tables of any level": (ranged(PAGE_4K, num=1, leaf=0), "0tu"),
    "tables of another granule": (ranged(PAGE_4K & -0x1_0000, num=1, tg=3, leaf=0), ""),
    # With 16 KB and without DS there is no level 1 of blocks, so the level counts as any.
    "level 1 of 16 KB": (ranged(0, num=31, scale=24, tg=2, ttl=1, leaf=0), ""),
    # Without a granule the other fields are reserved: one page.
    "no granule": (ranged(PAGE_4K - 0x1000, num=3, scale=3, ttl=2, tg=0), ""),
    "no granule, the page": (ranged(PAGE_4K, num=3, scale=3, ttl=2, tg=0), "0"),
    # SCALE has five bits without DS; more than 39 acts as 39.
    "bit 25": (ranged(PAGE_4K - 0x4000, num=1, scale=32), ""),
    "bit 25, another": (ranged(PAGE_4K - 0x1000, num=1, scale=32), "0"),
}  # fmt: skip


@pytest.mark.parametrize("name", RANGES)
def test_ranges(name: str) -> None:
    command, gone = RANGES[name]
    machine = full()
    assert machine.send(command) == 0
    assert EVERYTHING - left(machine) == of("agh", gone)


def test_the_largest_range() -> None:
    """With DS. Beyond the last address there is nothing."""
    for scale in (39, 63):
        machine = full(idr5=0xF5)
        high = (1 << 64) - (1 << 30)
        Tlb(machine.rows).fill(TAGS["a"], high, page(12, 3, 12))
        assert machine.send(ranged(0, num=31, scale=scale)) == 0
        # 2**56 bytes.
        assert Tlb(machine.rows).find(TAGS["a"], high)
        assert machine.send(ranged(high, num=31, scale=scale)) == 0
        assert EVERYTHING - left(machine) == of("agh", "023")


def test_level_1_of_16_kb_counts_with_ds() -> None:
    for idr5, left_over in ((0x75, 0), (0xF5, 1)):
        machine = handmade(idr5=idr5)
        Tlb(machine.rows).fill(TAGS["a"], 0, page(14, 3, 14))
        assert machine.send(ranged(0, num=1, tg=2, ttl=1)) == 0
        assert machine.rows.count(PAGES) == left_over


def test_ipas_come_with_ranges_too() -> None:
    """C11, a block at 0x40000000, and addresses of 56 bits: reserved bits are ignored."""
    machine = handmade()
    tlb = Tlb(machine.rows)
    for tag in (TAGS["i"], TAGS["a"]):
        tlb.fill(tag, 0x4000_0000, page(21, 2, 12))
        tlb.fill(tag, 0x4020_0000, page(21, 2, 12))
    assert machine.send((0x2A_0000_002A, 0x4000_0601)) == 0
    assert not tlb.find(TAGS["i"], 0x4000_0000)
    assert tlb.find(TAGS["i"], 0x4020_0000)
    assert tlb.find(TAGS["a"], 0x4000_0000)
    assert machine.send((0x2A_0000_002A, 0xFF00_0000_4020_0001)) == 0
    assert not tlb.find(TAGS["i"], 0x4020_0000)


def test_a_unit_without_ranges_ignores_them() -> None:
    machine = full(idr3=0x814)
    assert machine.send(ranged(PAGE_4K, num=31, scale=9, ttl=1, tg=3)) == 0
    assert EVERYTHING - left(machine) == of("agh", "0")


@pytest.mark.parametrize(
    ("vmw", "supported", "names"), [(0, 1, ""), (1, 1, "abgh"), (4, 1, "abgh"), (5, 1, ""), (7, 1, ""), (1, 0, "")]
)
def test_vmid_wildcards(vmw: int, supported: int, names: str) -> None:
    """Of VMID 0x2b, 0x2a is the neighbour in the last bit."""
    commands: dict[Words, set[str]] = {
        (0x2B_0000_0010,): of("ck" + names),
        (0x2B_0000_0013, PAGE_4K | 1): of("ck" + names, "0"),
        (0x0012_002B_0000_0011,): of("c" + names[:1]),
        (0x0012_002B_0000_0012, PAGE_4K | 1): of("ck" + names.replace("b", ""), "0"),
        (0x2B_0000_0028,): of("ckj" + names + ("i" if names else "")),
        (0x2B_0000_002A, PAGE_4K | 1): of("j" + ("i" if names else ""), "0"),
    }
    for command, gone in commands.items():
        machine = full(idr0=idr0_with(VMW=supported))
        machine.unit.write_register("CR0", vmw << 6 | CMDQEN | SMMUEN)
        assert machine.send(command) == 0
        assert EVERYTHING - left(machine) == gone


def test_without_stage_2_there_is_one_vmid() -> None:
    """The field is reserved, and reserved bits are ignored."""
    machine = handmade(idr0=idr0_with(S2P=0))
    Tlb(machine.rows).fill(Tag(VA, 0, 0x12), 0x1000, page(12, 3, 12))
    assert machine.send((0x2A_0000_0010,)) == 0
    assert machine.rows.count(PAGES) == 0


# Finding


@pytest.mark.parametrize(
    ("filled", "asked", "found"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "c", False),
        ("g", "a", True),
        ("h", "a", False),
        ("k", "a", False),
        ("i", "a", False),
        ("a", "i", False),
        ("e", "f", False),
        ("n", "f", True),
    ],
)
def test_tags(filled: str, asked: str, found: bool) -> None:
    """ASID, VMID, world; what is global serves all ASIDs of the same ASET."""
    tlb = Tlb(handmade().rows)
    tlb.fill(TAGS[filled], 0x1234_5000, page(12, 3, 12))
    assert bool(tlb.find(TAGS[asked], 0x1234_5FFF)) == found


@pytest.mark.parametrize(("aset", "pa"), [(1, 0x34000), (0, 0x3F000)])
def test_pages_of_all_asids(aset: int, pa: int) -> None:
    """A CD whose tables say otherwise finds what is global by another CD of its VMID and ASET."""
    tree = {0x24008: 0x25003, 0x25010: 0x26003, 0x26018: 0x27003, 0x27040: 0x3F747}
    machine = handmade(tree | {CD_5: 0x0015_6205_C000_3510 | aset << 47, CD_5 + 8: 0x24000})
    assert machine.goes(ONE, GLOBAL_PAGE) == 0x34000
    assert machine.goes(ONE_5, GLOBAL_PAGE) == pa
    assert machine.reaches(ONE_5, GLOBAL_PAGE) == 0x3F000


@pytest.mark.parametrize("order", [12, 14, 16, 21, 25, 29, 30, 36, 39, 42])
def test_sizes(order: int) -> None:
    """Of 4, 16 and 64 KB granules on all levels; in the upper half, too."""
    for start in (1 << 45, (1 << 64) - (1 << 46)):
        tlb = Tlb(handmade().rows)
        tlb.fill(TAGS["a"], start + 5, page(order, 3, 12))
        size = 1 << order
        inside = [bool(tlb.find(TAGS["a"], start + offset)) for offset in (-1, 0, size - 1, size)]
        assert inside == [False, True, True, False]
