# SPDX-License-Identifier: Apache-2.0
"""Which commands a vIOMMU is given, and in which calls: IHI0070 G.b chapter 4, in the kernel's terms."""

import pytest

from iommuctl_smmuv3.commands import AtcInv
from iommuctl_smmuv3.configuration_commands import CfgiCd, CfgiCdAll
from iommuctl_smmuv3.tlb_commands import TlbiNhAsid, TlbiNhVa
from iommuctl_smmuv3.viommu_commands import everything, phases

CD = CfgiCd.encode(StreamID=0x80, SubstreamID=5, Leaf=1)
ALL_CDS = CfgiCdAll.encode(StreamID=0x80)
ASID = TlbiNhAsid.encode(ASID=3)
PAGE = TlbiNhVa.encode(ASID=3, Addr=0x1000)
DEVICE = AtcInv.encode(StreamID=0x80, Size=52)


@pytest.mark.parametrize(
    ("given", "calls"),
    [
        ([], []),
        ([ASID], [[ASID]]),
        # Each kind is complete before the next, whatever was asked for first.
        ([DEVICE, PAGE, CD, ASID, ALL_CDS], [[CD, ALL_CDS], [PAGE, ASID], [DEVICE]]),
        ([PAGE, PAGE], [[PAGE]]),
        # Whichever VMID we have in mind, the kernel's is put in.
        ([PAGE | TlbiNhVa.VMID.put(1), PAGE], [[PAGE]]),
    ],
)
def test_calls(given: list[int], calls: list[list[int]]) -> None:
    assert list(phases(given)) == calls


@pytest.mark.parametrize(
    ("ats", "substreams", "words"),
    [
        (False, False, "06 10"),
        (False, True, "06 10"),
        (True, False, "06 10 40"),
        # The device's translations of no PASID, and of all PASIDs (SSV and Global).
        (True, True, "06 10 40 40"),
    ],
)
def test_everything_of_a_device(ats: bool, substreams: bool, words: str) -> None:
    found = everything(0x80, ats=ats, substreams=substreams)
    assert bytes(raw & 0xFF for raw in found) == bytes.fromhex(words)
    assert [raw >> 32 & 0xFFFF_FFFF for raw in found if raw & 0xFF != 0x10] == [0x80] * (len(found) - 1)
    for raw in found[2:]:
        assert AtcInv.Size.get(raw) == 52
    assert [AtcInv.SSV.get(raw) & AtcInv.Global.get(raw) for raw in found[2:]] == [0, 1][: len(found) - 2]
