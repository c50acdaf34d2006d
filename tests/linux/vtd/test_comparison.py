# SPDX-License-Identifier: Apache-2.0
"""Comparing small tables, word by word as VT-d 4.1 chapter 9 lays them out, with what Linux would print of them."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from iommuctl.model import Rid, Slot
from tests.linux import snapshot
from tests.linux.architecture import UnknownLine
from tests.linux.vtd.comparison import Comparison
from tests.linux.vtd.devices import MODES
from tests.linux.vtd.kernel_dump import parse
from tests.machine import SparseMemory

RID = Rid(0, 0, 0x10, 0)
CAP, ECAP = 0x80D2008C222F0606, 0x480080F00FCE
"""A unit with 48 bits, pages of 2 MiB and 1 GiB, scalable mode, second stage, pass-through, snoop control."""

ROOT, CONTEXT, DIRECTORY, ENTRY = 0x1000, 0x1_0000, 0x3000, 0x4000
SCALABLE = {
    # Root entry of bus 0: both halves. 00:10.0 is the first of the upper one, 00:01.0 is in the lower one.
    ROOT: 0x2001,
    ROOT + 8: 0x1_0001,
    CONTEXT: 0x3001,
    0x2000 + 8 * 32: 0x5001,
    DIRECTORY: 0x4001,
    # PASID entries: second stage of 48 bits, DID 5; pass-through, DID 1.
    ENTRY: 0x2_0089,
    ENTRY + 8: 0x5,
    0x5000: 0x6001,
    0x6000: 0x109,
    0x6008: 0x1,
}
TREE = {
    # IOVA 0x4000_0000: 4 KiB that can be written, 2 MiB that can be read; a table that leads nowhere.
    0x2_0000: 0x2_1403,
    0x2_1008: 0x2_2403,
    0x2_2000: 0x2_3403,
    0x2_3000: 0x5_0803,
    0x2_2008: 0x20_0881,
    0x2_2010: 0x2_4403,
}
LEGACY = {ROOT: 0x2001, 0x2800: 0x2_0001, 0x2808: 0x502, 0x2080: 0x9, 0x2088: 0x102}
"""Context entries: the same page tables; pass-through."""

REGISTERS = f"""\
IOMMU: dmar0 Register Base Address: fed90000
Name\t\t\tOffset\t\tContents
VER             \t0x00\t\t0x0000000000000010
CAP             \t0x08\t\t{CAP:#018x}
ECAP            \t0x10\t\t{ECAP:#018x}
RTADDR          \t0x20\t\t0x%016x
MTRR_FIX64K_00000\t0x120\t\t0x0000000000000000

"""
HEAD = """\
IOMMU dmar0: Root Table Address: 0x1000
B.D.F\tRoot_entry\t\t\t\tContext_entry\t\t\t\tPASID\tPASID_table_entry
"""
DEVICES = f"""\
{HEAD}\
00:01.0\t0x0000000000010001:0x0000000000002001\t0x0000000000000000:0x0000000000005001\t0     \
\t0x0000000000000000:0x0000000000000001:0x0000000000000109
00:10.0\t0x0000000000010001:0x0000000000002001\t0x0000000000000000:0x0000000000003001\t0     \
\t0x0000000000000000:0x0000000000000005:0x0000000000020089

"""
DEVICES_LEGACY = f"""\
{HEAD}\
00:01.0\t0x0000000000000000:0x0000000000002001\t0x0000000000000102:0x0000000000000009\t-1    \
\t0x0000000000000000:0x0000000000000000:0x0000000000000000
00:10.0\t0x0000000000000000:0x0000000000002001\t0x0000000000000502:0x0000000000020001\t-1    \
\t0x0000000000000000:0x0000000000000000:0x0000000000000000

"""
COLUMNS = "IOVA_PFN         \tPML5E             \tPML4E             \tPDPE              \tPDE               \tPTE\n"
SMALL = """\
0x0000000040000 |\t0x0000000000000000\t0x0000000000021403\t0x0000000000022403\t0x0000000000023403\t0x0000000000050803
"""
LARGE = "0x0000000040200 |\t0x0000000000000000\t0x0000000000021403\t0x0000000000022403\t0x0000000000200881\n"
PAGES = f"Device 0000:00:10.0 with pasid 0 @0x20000\n{COLUMNS}{SMALL}{LARGE}"
SCALABLE_MODE, LEGACY_MODE = 0x1400, 0x1000
"""Values of RTADDR."""
MARK = 0x1000A
CONTENT = {0x5_0000: MARK, **{0x20_0000 + at: MARK + 0x1000 + at for at in range(0, 0x20_0000, 0x1000)}}
MAPPINGS = (
    snapshot.Mapped(Slot(RID), 0x4000_0000, 0x1000, "rw", MARK),
    snapshot.Mapped(Slot(RID), 0x4020_0000, 0x20_0000, "r", MARK + 0x1000),
)


def compared(
    folder: Path,
    words: Mapping[int, int] | None = None,
    *,
    rtaddr: int = SCALABLE_MODE,
    devices: str = DEVICES,
    pages: str = PAGES,
) -> Comparison:
    """The tables, some of their words changed, against these texts."""
    memory = SparseMemory((0, 0x40_0000))
    memory.put({**(SCALABLE if rtaddr == SCALABLE_MODE else LEGACY), **TREE, **CONTENT, **(words or {})})
    for name, text in (
        ("iommu_regset", REGISTERS % rtaddr), ("dmar_translation_struct", devices),
        ("0000:00:01.0/domain_translation_struct", ""), ("0000:00:10.0/domain_translation_struct", pages),
    ):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "DMAR").write_bytes(bytes(36) + b"\x2f")
    return Comparison(snapshot.Snapshot(memory, parse(folder), {}, MAPPINGS, next(iter(MODES.values()))))


def test_equal_tables_in_scalable_mode(tmp_path: Path) -> None:
    found = compared(tmp_path)
    assert (found.findings, found.differences) == ([], [])
    assert found.counts["vtd.scalable-context-entry"] == found.counts["vtd.pasid-entry"] == 2
    assert found.counts["4 KiB page"] == found.counts["2 MiB page"] == 1
    assert found.counts["table entries that lead to no page, not printed"] == 1
    assert found.counts["4 KiB with the content that the program wrote"] == 513


def test_equal_tables_in_legacy_mode(tmp_path: Path) -> None:
    pages = PAGES.replace(" with pasid 0", "")
    found = compared(tmp_path, rtaddr=LEGACY_MODE, devices=DEVICES_LEGACY, pages=pages)
    assert (found.findings, found.differences) == ([], [])
    assert found.counts["vtd.context-entry"] == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param({ROOT: 0x2003}, "vtd.scalable-root-entry at 0x1000: reserved bit 1 set", id="root"),
        pytest.param({ENTRY: 0x2_0289}, "bit 9 set, which this unit reserves", id="what the unit has not"),
        pytest.param({CONTEXT + 8: 0x1_0000_0000}, "reserved bit", id="words that are not printed"),
        pytest.param({ENTRY: 0x2_0149}, "PGTT is 0x5", id="value without a meaning"),
        pytest.param({0x2_2008: 0x20_1881}, "reserved bit 12", id="page that is not aligned"),
        pytest.param({0x2_2010: 0x80_0003}, "is outside memory", id="table that is nowhere"),
    ],
)
def test_structures_that_the_specification_forbids_are_found(
    tmp_path: Path, words: dict[int, int], sentence: str
) -> None:
    assert any(sentence in finding for finding in compared(tmp_path, words).findings)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param({0x2_3000: 0x5_1803}, id="another page"),
        pytest.param({0x2_3000: 0}, id="a page less"),
        pytest.param({0x2_3FF8: 0x5_1803}, id="a page more"),
        pytest.param({0x2_4000: 0x5_1803}, id="a page that is not printed"),
        pytest.param({ENTRY + 8: 6}, id="another DID"),
        pytest.param({ENTRY: 0x2_1089}, id="another top table"),
        pytest.param({0x1_0000 + 9 * 32: 0x3001}, id="a device more"),
        pytest.param({CONTEXT: 0}, id="a device less"),
        pytest.param({0x5_0000: MARK + 1}, id="other content"),
    ],
)
def test_tables_that_are_not_what_is_printed(tmp_path: Path, words: dict[int, int]) -> None:
    assert compared(tmp_path, words).differences


@pytest.mark.parametrize("pages", [PAGES.replace(LARGE, ""), PAGES + SMALL, PAGES.replace("50803", "50801")])
def test_prints_that_are_not_what_is_in_tables(tmp_path: Path, pages: str) -> None:
    assert compared(tmp_path, pages=pages).differences


@pytest.mark.parametrize("name", ["iommu_regset", "dmar_translation_struct", "0000:00:10.0/domain_translation_struct"])
@pytest.mark.parametrize("more", ["DMA Remapping is not enabled on dmar0\n", "0x1", HEAD])
def test_unknown_lines(tmp_path: Path, name: str, more: str) -> None:
    compared(tmp_path)
    with open(tmp_path / name, "a") as file:
        file.write(more)
    with pytest.raises(UnknownLine):
        parse(tmp_path)


def test_a_file_of_another_device_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(UnknownLine, match=r"0000:00:10\.1"):
        compared(tmp_path, pages=PAGES.replace("00:10.0", "00:10.1"))
