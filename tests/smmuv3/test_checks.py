# SPDX-License-Identifier: Apache-2.0
"""What SMMUv3 demands of commands, registers and small tables: each demand met by one structure and broken by another.

Those of an STE and of a CD are in their own tests.
"""

import pytest

from iommuctl.formats.bits import Layout
from iommuctl.formats.checks import problems
from iommuctl_smmuv3.cd import L1Cd
from iommuctl_smmuv3.commands import AtcInv, PriResp, Sync
from iommuctl_smmuv3.configuration_commands import CfgiSte, PrefetchAddr, PrefetchConfig
from iommuctl_smmuv3.id_registers import IDR0, IDR3, IDR5
from iommuctl_smmuv3.registers import CR1, StrtabBaseCfg
from iommuctl_smmuv3.stream_table import L1Std, array_size
from iommuctl_smmuv3.structures import STRUCTURES
from iommuctl_smmuv3.tlb_commands import TlbiEl2Va, TlbiEl2Vaa, TlbiNhVa, TlbiNhVaa, TlbiS2Ipa

Fields = dict[str, int]

WITH_RANGE: tuple[type[Layout], ...] = (TlbiNhVa, TlbiNhVaa, TlbiEl2Va, TlbiEl2Vaa, TlbiS2Ipa)

NOT_3 = "is 0x3 but must be 0x0, 0x1 or 0x2"
WITH_SSID = {"SSV": 1, "SubstreamID": 9}

# The structure, a good one, a bad one, and what is said of it.
CASES: list[tuple[type[Layout], Fields, Fields, str]] = [
    (L1Std, {"Span": 11}, {"Span": 12}, "Span is 0xc but must be at most 11"),
    (
        L1Std,
        {"Span": 9, "L2Ptr": 0x4000},
        {"Span": 10, "L2Ptr": 0x4000},
        "L2Ptr is 0x4000 but should be a multiple of the array's 64 * 2**(Span - 1) bytes",
    ),
    *(
        (layout, WITH_SSID, {"SubstreamID": 9}, "SubstreamID is 0x9 but counts only where SSV is 0x1")
        for layout in (PrefetchConfig, PrefetchAddr, AtcInv, PriResp)
    ),
    (AtcInv, {"SSV": 1, "Global": 1}, {"Global": 1}, "Global is 0x1 but counts only where SSV is 0x1"),
    (AtcInv, {"Size": 52}, {"Size": 53}, "Size is 0x35 but must be at most 52"),
    (
        AtcInv,
        {"Size": 1, "Addr": 0x2000},
        {"Size": 2, "Addr": 0x2000},
        "Addr is 0x2000 but should be a multiple of the 2**Size pages",
    ),
    (PriResp, {"Resp": 2}, {"Resp": 3}, "Resp is 0x3 but must be 0x0, 0x1 or 0x2"),
    (Sync, {"CS": 2}, {"CS": 3}, "CS is 0x3 but must be 0x0, 0x1 or 0x2"),
    *(
        (layout, good, bad, said)
        for layout in WITH_RANGE
        for good, bad, said in (
            ({"TG": 1, "TTL": 3}, {"TG": 1}, "TG is 0x1 but must come with NUM, SCALE or TTL"),
            ({"TG": 2, "NUM": 1}, {"TG": 2}, "TG is 0x2 but must come with NUM, SCALE or TTL"),
            ({"TG": 3, "SCALE": 1}, {"TG": 3}, "TG is 0x3 but must come with NUM, SCALE or TTL"),
            ({"TG": 1, "NUM": 1}, {"NUM": 1}, "NUM is 0x1 but counts only where TG is 0x1, 0x2 or 0x3"),
            ({"TG": 2, "SCALE": 1}, {"SCALE": 1}, "SCALE is 0x1 but counts only where TG is 0x1, 0x2 or 0x3"),
            ({"TG": 3, "TTL": 1}, {"TTL": 1}, "TTL is 0x1 but counts only where TG is 0x1, 0x2 or 0x3"),
        )
    ),
    (IDR0, {"TTF": 2}, {"TTF": 0}, "TTF is 0x0 but must be 0x1, 0x2 or 0x3"),
    (IDR0, {"TTF": 2, "TTENDIAN": 2}, {"TTF": 2, "TTENDIAN": 1}, "TTENDIAN is 0x1 but must be 0x0, 0x2 or 0x3"),
    (IDR0, {"TTF": 1, "STALL_MODEL": 2}, {"TTF": 1, "STALL_MODEL": 3}, f"STALL_MODEL {NOT_3}"),
    (IDR0, {"TTF": 3, "ST_LEVEL": 1}, {"TTF": 3, "ST_LEVEL": 2}, "ST_LEVEL is 0x2 but must be 0x0 or 0x1"),
    (IDR3, {"BBML": 2}, {"BBML": 3}, "BBML is 0x3 but must be 0x0, 0x1 or 0x2"),
    (IDR5, {"VAX": 2}, {"VAX": 3}, "VAX is 0x3 but must be 0x0, 0x1 or 0x2"),
    *((CR1, {name: 2}, {name: 3}, f"{name} is 0x3 but must be 0x0, 0x1 or 0x2")
      for name in ("QUEUE_IC", "QUEUE_OC", "TABLE_IC", "TABLE_OC")),
    *((CR1, {name: 3}, {name: 1}, f"{name} is 0x1 but must be 0x0, 0x2 or 0x3") for name in ("QUEUE_SH", "TABLE_SH")),
    *(
        (
            StrtabBaseCfg,
            {"FMT": 1, "SPLIT": split},
            {"FMT": 1, "SPLIT": split + 1},
            f"SPLIT is {split + 1:#x} but must be 0x6, 0x8 or 0xa where FMT is 0x1",
        )
        for split in (6, 8, 10)
    ),
    (StrtabBaseCfg, {"FMT": 0, "SPLIT": 7}, {"FMT": 2, "SPLIT": 7}, "FMT is 0x2 but must be 0x0 or 0x1"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "good", "bad", "said"), CASES)
def test_checks(layout: type[Layout], good: Fields, bad: Fields, said: str) -> None:
    assert problems(layout, layout.encode(**good)) == []
    (found,) = problems(layout, layout.encode(**bad))
    assert found.startswith(f"{said}: IHI0070 G.b section ")


@pytest.mark.parametrize("layout", [PrefetchConfig, PrefetchAddr, CfgiSte])
def test_a_command_of_the_secure_queue(layout: type[Layout]) -> None:
    (found,) = problems(layout, layout.encode() | 1 << 10)
    assert found.startswith("SSec is 0x1 but always 0x0 in this structure: ")


def test_entries_that_are_not_there() -> None:
    assert problems(L1Std, ((1 << 64) - 1) & ~0x1F) == problems(L1Cd, ((1 << 64) - 1) & ~1) == []
    assert [array_size(span) for span in (1, 9, 11)] == [64, 16384, 65536]


def test_every_check_of_a_small_structure_is_here() -> None:
    tried = {(layout, said.partition(" is ")[0]) for layout, _, _, said in CASES}
    own = {"smmuv3.ste", "smmuv3.cd"}
    declared = {(layout, check.field.name) for layout in STRUCTURES.values() for check in layout.checks}
    assert tried == {(layout, name) for layout, name in declared if layout.name not in own}
