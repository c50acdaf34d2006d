# SPDX-License-Identifier: Apache-2.0
"""What a second-stage entry of each level means, and what is written."""

import pytest

from iommuctl.errors import BadStructure
from iommuctl.formats.format import Entry
from iommuctl_vtd.second_stage import SecondStageFormat

K4, M2, G1 = 1 << 12, 1 << 21, 1 << 30
EMPTY = Entry("empty")
EVERY_BIT = (1 << 64) - 1
PS, SNP = 1 << 7, 1 << 11


@pytest.mark.parametrize(("width", "levels"), [(39, 3), (48, 4), (57, 5)])
def test_geometry(width: int, levels: int) -> None:
    form = SecondStageFormat(width)
    assert (form.name, form.width, form.levels) == (f"vtd.second-stage-{width}", width, levels)
    assert [form.shift(level) for level in range(1, levels + 1)] == [12, 21, 30, 39, 48][:levels]
    assert {form.entries(level) for level in range(1, levels + 1)} == {512}
    assert form.page_sizes == (K4, M2, G1)


def test_an_entry_without_r_and_w_is_empty_whatever_else_it_holds() -> None:
    form = SecondStageFormat(57)
    for level in range(1, 6):
        assert form.decode(level, 0) == EMPTY
        assert form.decode(level, EVERY_BIT & ~3) == EMPTY


@pytest.mark.parametrize(("bits", "prot"), [(1, "r"), (2, "w"), (3, "rw")])
def test_permissions(bits: int, prot: str) -> None:
    form = SecondStageFormat()
    assert form.decode(1, 0x5000 | bits) == Entry("leaf", 0x5000, prot)
    assert form.decode(4, 0x5000 | bits) == Entry("table", 0x5000, prot)


def test_pages() -> None:
    form = SecondStageFormat()
    assert form.decode(1, 0x789AB803) == Entry("leaf", 0x789AB000, "rw")
    assert form.decode(2, 0x80000181) == Entry("leaf", 0x80000000, "r")
    assert form.decode(3, 0x40000383) == Entry("leaf", 0x40000000, "rw")


def test_tables() -> None:
    form = SecondStageFormat(57)
    for level in range(2, 6):
        assert form.decode(level, 0x789AB003) == Entry("table", 0x789AB000, "rw")


def test_bit_7_of_a_4k_page_is_ignored() -> None:
    assert SecondStageFormat().decode(1, 0x5000 | PS | 3) == Entry("leaf", 0x5000, "rw")


def test_ignored_bits() -> None:
    form = SecondStageFormat()
    software = 1 << 63 | 0x3FF << 52 | 1 << 10 | 1 << 2
    accessed = 1 << 8 | 1 << 9
    memory_type = 0b1111 << 3
    assert form.decode(1, 0x5003 | software | accessed | memory_type) == Entry("leaf", 0x5000, "rw")
    assert form.decode(2, 0x5003 | software | accessed | memory_type) == Entry("table", 0x5000, "rw")


# The reserved bits on a unit with 48 address bits and without snoop control.
@pytest.mark.parametrize(
    ("level", "raw", "reserved"),
    [
        (1, EVERY_BIT, 0x400F000000000800),
        (2, EVERY_BIT & ~PS, 0x400F000000000800),
        (2, EVERY_BIT, 0x400F0000001FF800),
        (3, EVERY_BIT & ~PS, 0x400F000000000800),
        (3, EVERY_BIT, 0x400F00003FFFF800),
        (4, EVERY_BIT & ~PS, 0x400F000000000800),
        (4, EVERY_BIT, 0x400F000000000880),
        (5, EVERY_BIT, 0x400F000000000880),
    ],
)
def test_reserved_bits(level: int, raw: int, reserved: int) -> None:
    form = SecondStageFormat(57, haw=48, snoop_control=False)
    assert form.decode(level, raw) == Entry("reserved", reserved=reserved)
    assert form.decode(level, raw & ~reserved).kind in ("leaf", "table")


def test_the_snoop_bit_of_a_page_is_reserved_without_snoop_control() -> None:
    assert SecondStageFormat(snoop_control=True).decode(1, 0x5803) == Entry("leaf", 0x5000, "rw")
    assert SecondStageFormat(snoop_control=False).decode(1, 0x5803) == Entry("reserved", reserved=SNP)


def test_the_snoop_bit_of_a_table_is_always_reserved() -> None:
    assert SecondStageFormat(snoop_control=True).decode(2, 0x5803) == Entry("reserved", reserved=SNP)


@pytest.mark.parametrize(
    ("page_sizes", "level"), [((K4,), 2), ((K4,), 3), ((K4, M2), 3), ((K4, M2, G1), 4), ((K4, M2, G1), 5)]
)
def test_ps_is_reserved_where_the_unit_has_no_such_page(page_sizes: tuple[int, ...], level: int) -> None:
    form = SecondStageFormat(57, page_sizes=page_sizes)
    assert form.decode(level, PS | 3) == Entry("reserved", reserved=PS)
    assert form.decode(level, 3) == Entry("table", 0, "rw")
    with pytest.raises(BadStructure, match=f"cannot map a page of {1 << form.shift(level):#x} bytes"):
        form.leaf(level, 0, "rw")


@pytest.mark.parametrize("haw", [36, 39, 46, 52])
def test_addresses_end_at_the_host_address_width(haw: int) -> None:
    form = SecondStageFormat(haw=haw)
    highest = 1 << haw - 1
    assert form.decode(1, highest | 3) == Entry("leaf", highest, "rw")
    assert form.decode(2, highest | 3) == Entry("table", highest, "rw")
    for bit in range(haw, 52):
        assert form.decode(1, 1 << bit | 3) == Entry("reserved", reserved=1 << bit)
        assert form.decode(2, 1 << bit | 3) == Entry("reserved", reserved=1 << bit)
    with pytest.raises(BadStructure, match=f"cannot map a page of 0x1000 bytes at {1 << haw:#x}"):
        form.leaf(1, 1 << haw, "rw")
    with pytest.raises(BadStructure, match=f"cannot point to a table at {1 << haw:#x}"):
        form.table(2, 1 << haw)


def test_what_is_written() -> None:
    form = SecondStageFormat(snoop_control=False)
    assert form.table(4, 0x789AB000) == 0x789AB003
    assert form.leaf(1, 0x789AB000, "rw") == 0x789AB003
    assert form.leaf(1, 0x789AB000, "r") == 0x789AB001
    assert form.leaf(1, 0x789AB000, "w") == 0x789AB002
    assert form.leaf(2, 0x80000000, "r") == 0x80000081
    assert form.leaf(3, 0x40000000, "rw") == 0x40000083


def test_pages_are_snooped_where_the_unit_can() -> None:
    form = SecondStageFormat(snoop_control=True)
    assert form.table(4, 0x4000) == 0x4003
    assert form.leaf(1, 0xABCDE000, "rw") == 0xABCDE803
    assert form.leaf(2, 0x200000, "rw") == 0x200883


@pytest.mark.parametrize(("level", "pa"), [(1, 0x800), (1, -K4), (2, K4), (3, M2), (1, 1 << 52)])
def test_addresses_that_do_not_fit_are_refused(level: int, pa: int) -> None:
    form = SecondStageFormat()
    with pytest.raises(BadStructure, match=f"cannot map a page of {1 << form.shift(level):#x} bytes at {pa:#x}"):
        form.leaf(level, pa, "rw")
    if level == 1:
        with pytest.raises(BadStructure, match=f"cannot point to a table at {pa:#x}"):
            form.table(2, pa)
