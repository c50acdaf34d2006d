# SPDX-License-Identifier: Apache-2.0
"""Comparing small tables, word by word as IHI0070 G.b and DDI0487 M.a.a lay them out, with what Linux would tell."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from iommuctl.model import Rid, Slot
from tests.linux import snapshot
from tests.linux.architecture import UnknownLine
from tests.linux.smmuv3.comparison import Comparison
from tests.linux.smmuv3.devices import MODES
from tests.linux.smmuv3.kernel_trace import parse
from tests.machine import SparseMemory

REGISTERS = {
    # A unit with both stages of 4 KB granules, 44 bits, two-level stream tables and no substreams.
    "IDR0": 0x0D44101B, "IDR1": 0x02730010, "IDR3": 0x1414, "IDR5": 0x74,
    "CR0": 0xD, "CR1": 0xD75, "CR2": 0x6,
    # 2^16 StreamIDs, 2^8 to a table.
    "STRTAB_BASE": 0x4000_0000_0001_0000, "STRTAB_BASE_CFG": 0x10210,
}  # fmt: skip
L1, STE_10, STE_13, STE_14, STE_1B, STE_1C = 0x1_0000, 0x2_2000, 0x2_2600, 0x2_2800, 0x2_3600, 0x2_3800
CD, S1_L2, S1_L3, S2_L3 = 0x3_0000, 0x3_3000, 0x3_4000, 0x4_3000
GUEST = 0x5_1000
"""Where the page at 0x4000_0000 of stage 2 is, with the CD of the nested device."""
TABLES = {
    L1: 0x2_0009,
    # 00:10.0 has stage 1, 00:13.0 passes through, 00:14.0 aborts, 00:1b.0 has stage 2 of 44 bits, 00:1c.0 both.
    STE_10: 0x3_000B, STE_10 + 8: 0xD4,
    STE_13: 0x9,
    STE_14: 0x1,
    STE_1B: 0xD, STE_1B + 16: 0x044C_3594_0000_0001, STE_1B + 24: 0x4_0000,
    STE_1C: 0x4000_004F, STE_1C + 8: 0xD4, STE_1C + 16: 0x044C_3594_0000_0001, STE_1C + 24: 0x4_0000,
    # 48 bits from TTB0.
    CD: 0x0012_E205_C000_3510, CD + 8: 0x3_1000, CD + 24: 0xF404_FF44,
    # IOVA 0x4000_0000: 4 KiB that can be written, 2 MiB that can be read; a table that leads nowhere.
    0x3_1000: 0x3_2003, 0x3_2008: 0x3_3003,
    S1_L2: 0x3_4003, S1_L2 + 8: 0x0060_0000_0020_0FC5, S1_L2 + 16: 0x3_5003,
    S1_L3: 0x0060_0000_0005_0F47,
    # Intermediate physical addresses from 0x4000_0000 on: six pages, the last but one not to be written, the last not
    # to be executed.
    0x4_0000: 0x4_1003, 0x4_1008: 0x4_2003, 0x4_2000: 0x4_3003,
    **{S2_L3 + 8 * page: GUEST + 0x1000 * page | 0x7FF for page in range(4)},
    S2_L3 + 32: 0x5_577F, S2_L3 + 40: 0x0040_0000_0005_67FF,
    # In these, the CD and the tables of the guest, with one page at 0x81_0060_4000 of its own.
    GUEST + 0x40: 0x0012_E205_C000_3510, GUEST + 0x48: 0x4000_1000, GUEST + 0x58: 0xF404_FF44,
    GUEST + 0x1008: 0x4000_2003, GUEST + 0x2010: 0x4000_3003, GUEST + 0x3018: 0x4000_4003,
    GUEST + 0x4020: 0x0060_0000_4000_5F47,
}  # fmt: skip
MARK, LARGE_MARK, GUEST_MARK = 0x1000, 0x10_0000, 0x4000_0000
CONTENT = {
    0x5_0000: MARK,
    **{0x20_0000 + at: LARGE_MARK + at for at in range(0, 0x20_0000, 0x1000)},
    **{GUEST + at: GUEST_MARK + at for at in range(0, 0x6000, 0x1000)},
}
ALONE, PARENT, NESTED = Slot(Rid(0, 0, 0x10, 0)), Slot(Rid(0, 0, 0x1B, 0)), Slot(Rid(0, 0, 0x1C, 0))
MAPPED = (
    snapshot.Mapped(ALONE, 0x4000_0000, 0x1000, "rw", MARK),
    snapshot.Mapped(ALONE, 0x4020_0000, 0x20_0000, "r", LARGE_MARK),
    snapshot.Mapped(PARENT, 0x4000_0000, 0x6000, "rw", GUEST_MARK),
    snapshot.Mapped(NESTED, 0x80_8060_4000, 0x1000, "rw", GUEST_MARK + 0x5000),
)
HEAD = "# tracer: nop\n#\n# entries-in-buffer/entries-written: %d/%d   #P:2\n#\n#   TASK-PID   CPU#  |||||  TIMESTAMP\n"
MAP = "         python3-53      [000] .....    10.305536: map: IOMMU: iova=0x%016x - 0x%016x paddr=0x%016x size=%d\n"
UNMAP = (
    "           <idle>-0       [001] d.h1.    10.3281: unmap: IOMMU: iova=0x%016x - 0x%016x size=%d unmapped_size=%d\n"
)
SMALL = MAP % (0x4000_0000, 0x4000_1000, 0x5_0000, 0x1000)
EVENTS = [
    SMALL,
    MAP % (0x8000_0000, 0x8000_1000, 0x6_0000, 0x1000),
    MAP % (0x4020_0000, 0x4040_0000, 0x20_0000, 0x20_0000),
    UNMAP % (0x8000_0000, 0x8000_1000, 0x1000, 0x1000),
    MAP % (0x4000_0000, 0x4000_6000, GUEST, 0x6000),
]
DEVICES = {"10": "DMA", "13": "identity", "14": "DMA", "1b": "DMA", "1c": "DMA"}


def compared(
    folder: Path,
    words: Mapping[int, int] | None = None,
    *,
    events: list[str] = EVENTS,
    devices: Mapping[str, str] = DEVICES,
    registers: Mapping[str, int] = REGISTERS,
) -> Comparison:
    """The tables, some of their words changed, against these texts."""
    memory = SparseMemory((0, 0x40_0000))
    memory.put({**TABLES, **CONTENT, **(words or {})})
    (folder / "trace").write_text(HEAD % (len(events), len(events)) + "".join(events))
    for device, kind in devices.items():
        path = folder / f"0000:00:{device}.0" / "iommu_group" / "type"
        path.parent.mkdir(parents=True)
        path.write_text(f"{kind}\n")
    return Comparison(snapshot.Snapshot(memory, parse(folder), dict(registers), MAPPED, MODES["both stages"]))


def test_equal_tables(tmp_path: Path) -> None:
    found = compared(tmp_path)
    assert (found.findings, found.differences) == ([], [])
    assert found.counts["smmuv3.ste"] == 5
    assert found.counts["smmuv3.cd"] == 2
    assert found.counts["stage 1: 4 KiB page"] == found.counts["stage 1: 2 MiB block"] == 1
    assert found.counts["stage 2: 4 KiB page"] == 6
    assert found.counts["stage 1: 4 KiB page of a guest"] == 1
    assert found.counts["4 KiB that the kernel mapped, compared"] == 519
    assert found.counts["4 KiB with the content that the program wrote"] == 520


def test_a_linear_stream_table(tmp_path: Path) -> None:
    found = compared(tmp_path, registers=REGISTERS | {"STRTAB_BASE": 0x2_0000, "STRTAB_BASE_CFG": 8})
    assert found.findings == []
    # StreamIDs that a table of 256 does not have are bad ones, on which both agree.
    assert found.differences == []
    assert found.counts["smmuv3.ste"] == 5


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param({L1: 0x2_000C}, "Span is 0xc but must be at most 11", id="level 1"),
        pytest.param({STE_10: 0x0800_0000_0003_000B}, "00:10.0 is ILLEGAL: S1CDMax", id="STE"),
        pytest.param(
            {STE_1B + 8: 0x1000_0000_0000}, "bit 108 set, which this unit reserves", id="what the unit has not"
        ),
        pytest.param({STE_1B + 16: 0x0444_3594_0000_0001}, "ILLEGAL: S2AA64", id="stage 2 of an STE"),
        pytest.param({CD: 0x0012_A205_C000_3510}, "CD 0 of 0000:00:10.0 is ILLEGAL: A", id="CD"),
        pytest.param({GUEST + 0x40: 0x0012_A205_C000_3510}, "CD 0 of 0000:00:1c.0 is ILLEGAL: A", id="guest's CD"),
        pytest.param({S1_L3: 0x0060_0000_0005_0F45}, "not a valid one", id="block on level 3"),
        pytest.param({S1_L2 + 16: 0x80_0003}, "is outside memory", id="table that is nowhere"),
        pytest.param({S1_L3: 0x0060_1000_0005_0F47}, "reserved bit 44 set", id="address of more than 44 bits"),
    ],
)
def test_structures_that_the_specification_forbids_are_found(
    tmp_path: Path, words: dict[int, int], sentence: str
) -> None:
    found = compared(tmp_path, words).findings
    assert any(sentence in finding for finding in found), found


@pytest.mark.parametrize(
    "words",
    [
        pytest.param({S1_L3: 0x0060_0000_0005_1F47}, id="another page"),
        pytest.param({S1_L3: 0}, id="a page less"),
        pytest.param({S1_L3 + 8: 0x0060_0000_0005_1F47}, id="a page more"),
        pytest.param({0x3_5000: 0x0060_0000_0005_1F47}, id="a page in the empty table"),
        pytest.param({S1_L2 + 8: 0x3_5003}, id="a block less"),
        pytest.param({S2_L3 + 40: 0x5_67FD}, id="an intermediate page less"),
        pytest.param({GUEST + 0x4020: 0x0060_0000_4000_4F47}, id="another page of the guest"),
        pytest.param({GUEST + 0x4028: 0x0060_0000_4000_4F47}, id="a page of the guest more"),
        pytest.param({STE_10: 0x9}, id="a device that passes through"),
        pytest.param({STE_13: 0x1}, id="a device that does not"),
        pytest.param({STE_14: 0x9}, id="a device that is not blocked"),
        pytest.param({STE_14: 0}, id="a device without an STE"),
        pytest.param({0x2_0080: 0x9}, id="an STE of no device"),
        pytest.param({0x5_0000: MARK + 1}, id="other content"),
    ],
)
def test_tables_that_are_not_what_linux_tells(tmp_path: Path, words: dict[int, int]) -> None:
    assert compared(tmp_path, words).differences


def test_another_stream_with_the_tables_of_a_device_is_that_of_its_bridge(tmp_path: Path) -> None:
    found = compared(tmp_path, {0x2_0080: 0x3_000B, 0x2_0088: 0xD4})
    assert found.differences == []
    assert found.counts["StreamIDs of bridges, with tables of a device"] == 1


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(EVENTS[1:], id="a mapping less"),
        pytest.param([*EVENTS, SMALL], id="a mapping more"),
        pytest.param([*EVENTS, UNMAP % (0x4000_0000, 0x4000_1000, 0x1000, 0x1000)], id="one that was taken away"),
        pytest.param([*EVENTS[:2], *EVENTS[3:]], id="a block less"),
        pytest.param([SMALL.replace("50000", "60000"), *EVENTS[1:]], id="one to elsewhere"),
    ],
)
def test_mappings_that_are_not_in_the_tables(tmp_path: Path, events: list[str]) -> None:
    assert compared(tmp_path, events=events).differences


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(HEAD % (1, 2) + SMALL, id="lost events"),
        pytest.param(SMALL, id="no count"),
        pytest.param(HEAD % (1, 1) + SMALL.replace(" map:", " remap:"), id="another event"),
        pytest.param(HEAD % (1, 1) + SMALL.replace("size=4096", "size=8192"), id="sizes that differ"),
        pytest.param(HEAD % (1, 1) + UNMAP % (0, 0x2000, 0x2000, 0x1000), id="taken away in part"),
        pytest.param(HEAD % (1, 1) + "CPU:1 [LOST 3 EVENTS]\n", id="a gap"),
    ],
)
def test_unknown_lines(tmp_path: Path, text: str) -> None:
    (tmp_path / "trace").write_text(text)
    with pytest.raises(UnknownLine):
        parse(tmp_path)
