# SPDX-License-Identifier: Apache-2.0
"""What a first-stage entry of each level means, and what is written."""

import pytest

from iommuctl.errors import BadStructure
from iommuctl.formats.format import Entry
from iommuctl_vtd.first_stage import FirstStageFormat

K4, M2, G1 = 1 << 12, 1 << 21, 1 << 30
EMPTY = Entry("empty")
EVERY_BIT = (1 << 64) - 1
PS = 1 << 7


@pytest.mark.parametrize(("levels", "width"), [(4, 48), (5, 57)])
def test_geometry(levels: int, width: int) -> None:
    form = FirstStageFormat(levels)
    assert (form.name, form.width, form.levels) == (f"vtd.first-stage-{levels}", width, levels)
    assert [form.shift(level) for level in range(1, levels + 1)] == [12, 21, 30, 39, 48][:levels]
    assert {form.entries(level) for level in range(1, levels + 1)} == {512}
    assert form.page_sizes == (K4, M2, G1)
    assert FirstStageFormat(levels, one_gib_pages=False).page_sizes == (K4, M2)


def test_an_entry_without_p_is_empty_whatever_else_it_holds() -> None:
    form = FirstStageFormat(5)
    for level in range(1, 6):
        assert form.decode(level, 0) == EMPTY
        assert form.decode(level, EVERY_BIT & ~1) == EMPTY


@pytest.mark.parametrize(("bits", "prot"), [(0b001, "rp"), (0b011, "rwp"), (0b101, "r"), (0b111, "rw")])
def test_permissions(bits: int, prot: str) -> None:
    form = FirstStageFormat()
    assert form.decode(1, 0x5000 | bits) == Entry("leaf", 0x5000, prot)
    assert form.decode(4, 0x5000 | bits) == Entry("table", 0x5000, prot)


def test_pages() -> None:
    form = FirstStageFormat()
    assert form.decode(1, 0x789AB067) == Entry("leaf", 0x789AB000, "rw")
    assert form.decode(2, 0x80000000800004A5) == Entry("leaf", 0x80000000, "r")
    assert form.decode(3, 0x40000087) == Entry("leaf", 0x40000000, "rw")


def test_tables() -> None:
    form = FirstStageFormat(5)
    for level in range(2, 6):
        assert form.decode(level, 0x789AB027) == Entry("table", 0x789AB000, "rw")


def test_ignored_bits() -> None:
    form = FirstStageFormat()
    ignored = 1 << 63 | 0x7FF << 52 | 1 << 11 | 1 << 10 | 1 << 9 | 1 << 8
    accessed = 1 << 5 | 1 << 6
    caching = 1 << 3 | 1 << 4
    assert form.decode(1, 0x5007 | ignored | accessed | caching) == Entry("leaf", 0x5000, "rw")
    assert form.decode(2, 0x5007 | ignored | accessed | caching) == Entry("table", 0x5000, "rw")


def test_the_memory_type_bit_is_not_part_of_the_address() -> None:
    form = FirstStageFormat()
    assert form.decode(1, 0x5000 | 1 << 7 | 7) == Entry("leaf", 0x5000, "rw")
    assert form.decode(2, 0x200000 | 1 << 12 | PS | 7) == Entry("leaf", 0x200000, "rw")
    assert form.decode(3, 0x40000000 | 1 << 12 | PS | 7) == Entry("leaf", 0x40000000, "rw")


# The reserved bits on a unit with 48 address bits.
@pytest.mark.parametrize(
    ("level", "raw", "reserved"),
    [
        (1, EVERY_BIT, 0x000F000000000000),
        (2, EVERY_BIT & ~PS, 0x000F000000000000),
        (2, EVERY_BIT, 0x000F0000001FE000),
        (3, EVERY_BIT & ~PS, 0x000F000000000000),
        (3, EVERY_BIT, 0x000F00003FFFE000),
        (4, EVERY_BIT & ~PS, 0x000F000000000000),
        (4, EVERY_BIT, 0x000F000000000080),
        (5, EVERY_BIT, 0x000F000000000080),
    ],
)
def test_reserved_bits(level: int, raw: int, reserved: int) -> None:
    form = FirstStageFormat(5, haw=48)
    assert form.decode(level, raw) == Entry("reserved", reserved=reserved)
    assert form.decode(level, raw & ~reserved).kind in ("leaf", "table")


@pytest.mark.parametrize(("one_gib_pages", "level"), [(False, 3), (True, 4), (True, 5)])
def test_ps_is_reserved_where_the_unit_has_no_such_page(one_gib_pages: bool, level: int) -> None:
    form = FirstStageFormat(5, one_gib_pages=one_gib_pages)
    assert form.decode(level, PS | 7) == Entry("reserved", reserved=PS)
    assert form.decode(level, 7) == Entry("table", 0, "rw")
    with pytest.raises(BadStructure, match=f"cannot map a page of {1 << form.shift(level):#x} bytes"):
        form.leaf(level, 0, "rw")


@pytest.mark.parametrize("haw", [36, 39, 46, 52])
def test_addresses_end_at_the_host_address_width(haw: int) -> None:
    form = FirstStageFormat(haw=haw)
    highest = 1 << haw - 1
    assert form.decode(1, highest | 7) == Entry("leaf", highest, "rw")
    assert form.decode(2, highest | 7) == Entry("table", highest, "rw")
    for bit in range(haw, 52):
        assert form.decode(1, 1 << bit | 7) == Entry("reserved", reserved=1 << bit)
        assert form.decode(2, 1 << bit | 7) == Entry("reserved", reserved=1 << bit)
    with pytest.raises(BadStructure, match=f"cannot map a page of 0x1000 bytes at {1 << haw:#x}"):
        form.leaf(1, 1 << haw, "rw")
    with pytest.raises(BadStructure, match=f"cannot point to a table at {1 << haw:#x}"):
        form.table(2, 1 << haw)


def test_what_is_written() -> None:
    form = FirstStageFormat()
    assert form.table(4, 0x789AB000) == 0x789AB027
    assert form.leaf(1, 0x789AB000, "rw") == 0x789AB067
    assert form.leaf(1, 0x789AB000, "r") == 0x789AB025
    assert form.leaf(1, 0x789AB000, "rwp") == 0x789AB063
    assert form.leaf(2, 0x80000000, "r") == 0x800000A5
    assert form.leaf(3, 0x40000000, "rw") == 0x400000E7


@pytest.mark.parametrize(("level", "pa"), [(1, 0x800), (1, -K4), (2, K4), (3, M2), (1, 1 << 52)])
def test_addresses_that_do_not_fit_are_refused(level: int, pa: int) -> None:
    form = FirstStageFormat()
    with pytest.raises(BadStructure, match=f"cannot map a page of {1 << form.shift(level):#x} bytes at {pa:#x}"):
        form.leaf(level, pa, "rw")
    if level == 1:
        with pytest.raises(BadStructure, match=f"cannot point to a table at {pa:#x}"):
            form.table(2, pa)
