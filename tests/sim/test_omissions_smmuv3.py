# SPDX-License-Identifier: Apache-2.0
"""The sanitizer against a list of seeded mistakes with SMMUv3: each is found, and nothing is when there is none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from iommuctl.formats.bits import Layout
from iommuctl_smmuv3.commands import AtcInv
from iommuctl_smmuv3.configuration_commands import CfgiCd, CfgiCdAll, CfgiSte, CfgiSteRange
from iommuctl_smmuv3.driver import Driver
from iommuctl_smmuv3.tlb_commands import TlbiNhAll, TlbiNhAsid, TlbiNhVa, TlbiS2Ipa, TlbiS12Vmall
from tests.sim import scenarios, scenarios_smmuv3
from tests.sim.playing import play
from tests.sim.sabotage import Sabotage, devices_first, exchanged, late, nothing, with_fields, without
from tests.sim.scenarios import PAGE, SMMUV3

STE, STES, CD, CDS, ATC = CfgiSte, CfgiSteRange, CfgiCd, CfgiCdAll, AtcInv
VA, ASID, ALL_STAGE_1, IPA, VMID = TlbiNhVa, TlbiNhAsid, TlbiNhAll, TlbiS2Ipa, TlbiS12Vmall
DEVICES_FIRST = devices_first(ATC)
SCENARIOS = {
    "unmap pages": scenarios.unmap_pages(mode=SMMUV3),
    "unmap a table": scenarios.unmap_table(mode=SMMUV3),
    "unmap, RID": scenarios.unmap_pages(None, mode=SMMUV3),
    "unmap pages of stage 2": scenarios_smmuv3.unmap_pages(),
    "unmap a table of stage 2": scenarios_smmuv3.unmap_table(),
    "unmap the parent": scenarios.unmap_parent(SMMUV3),
    "unmap the parent of a RID": scenarios_smmuv3.unmap_parent(),
    "guest unmaps pages": scenarios.guest_pages(SMMUV3),
    "guest unmaps a table": scenarios.guest_table(SMMUV3),
    "guest moves a page": scenarios.guest_moves_a_page(SMMUV3),
    "detach": scenarios.detach(mode=SMMUV3),
    "detach, RID": scenarios.detach(None, mode=SMMUV3),
    "detach, then its ASID is used again": scenarios.detach(reuse=True, mode=SMMUV3),
    "detach, stage 2": scenarios_smmuv3.leave(),
    "detach, then its VMID is used again": scenarios_smmuv3.leave(reuse=True),
    "replace": scenarios.replace(mode=SMMUV3),
    "replace, RID": scenarios.replace(None, mode=SMMUV3),
    "replace, then its ASID is used again": scenarios.replace(reuse=True, mode=SMMUV3),
    "unbind, then its ASID is used again": scenarios_smmuv3.unbind(),
    "bind, RID": scenarios_smmuv3.cover(),
    "add a leaf of CDs": scenarios_smmuv3.add_leaf(),
    "remove a leaf of CDs": scenarios_smmuv3.remove_leaf(),
    "remove a device": scenarios_smmuv3.remove_device(),
    "remove a bus": scenarios_smmuv3.remove_bus(),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_correct_driver(tmp_path: Path, name: str) -> None:
    assert play(tmp_path, SCENARIOS[name], nothing) == ([], [])


def down(value: int) -> int:
    return value - 1


def up(value: int) -> int:
    return value + 1


def zero(_: int) -> int:
    return 0


def one(_: int) -> int:
    return 1


def with_vmid(layout: type[Layout]) -> Callable[[dict[str, int]], int]:
    """A command of that kind for the same VMID, and for the same addresses where it has any."""
    return lambda was: layout.encode(**{
        name: value for name, value in was.items() if name in layout.values(0) and name != "Opcode"
    })  # fmt: skip


# Where the unit still answers wrongly when a device is told, the device asks again and has the wrong answer at once:
# then both commands are missing. The TLB knows no StreamID, so that what it has is true when an STE or a CD is not.
BOTH = (VA, ATC)
REUSED, REUSED_VMID = "detach, then its ASID is used again", "detach, then its VMID is used again"
UNBOUND = "unbind, then its ASID is used again"
SEEDED: dict[str, tuple[str, Sabotage, tuple[type[Layout], ...]]] = {
    # Pages of a stage 1.
    "no TLB": ("unmap pages", without(VA), BOTH),
    "no device TLB": ("unmap pages", without(ATC), (ATC,)),
    "neither": ("unmap pages", without(VA, ATC), BOTH),
    "wrong ASID": ("unmap pages", with_fields(VA, ASID=up), BOTH),
    "wrong VMID": ("unmap pages", with_fields(VA, VMID=up), BOTH),
    "too small a range": ("unmap pages", with_fields(VA, NUM=down), BOTH),
    "wrong granule": ("unmap pages", with_fields(VA, TG=up), BOTH),
    "wrong level": ("unmap pages", with_fields(VA, TTL=down), BOTH),
    "wrong address": ("unmap pages", with_fields(VA, Addr=lambda value: value + 4 * PAGE), BOTH),
    "of stage 2": ("unmap pages", exchanged(VA, with_vmid(IPA)), BOTH),
    "device TLB, too small a range": ("unmap pages", with_fields(ATC, Size=down), (ATC,)),
    "device TLB, wrong PASID": ("unmap pages", with_fields(ATC, SubstreamID=up), (ATC,)),
    "device TLB, wrong device": ("unmap pages", with_fields(ATC, StreamID=lambda _: 0x10), (ATC,)),
    "device TLB before TLB": ("unmap pages", DEVICES_FIRST, (ATC,)),
    "RID, no TLB": ("unmap, RID", without(VA), BOTH),
    "RID, no device TLB": ("unmap, RID", without(ATC), (ATC,)),
    "RID, device TLB before TLB": ("unmap, RID", DEVICES_FIRST, (ATC,)),
    # A table that is freed.
    "Leaf says that tables stayed": ("unmap a table", with_fields(VA, Leaf=one), BOTH),
    "freed before it is told": ("unmap a table", late(Driver), ()),
    # Pages of a stage 2 alone.
    "stage 2, no TLB": ("unmap pages of stage 2", without(IPA), (IPA, ATC)),
    "stage 2, wrong VMID": ("unmap pages of stage 2", with_fields(IPA, VMID=up), (IPA, ATC)),
    "stage 2, too small a range": ("unmap pages of stage 2", with_fields(IPA, NUM=down), (IPA, ATC)),
    "stage 2, of stage 1": ("unmap pages of stage 2", exchanged(IPA, with_vmid(ALL_STAGE_1)), (IPA, ATC)),
    "stage 2, no device TLB": ("unmap pages of stage 2", without(ATC), (ATC,)),
    "stage 2, device TLB before TLB": ("unmap pages of stage 2", DEVICES_FIRST, (ATC,)),
    "stage 2, Leaf says that tables stayed": ("unmap a table of stage 2", with_fields(IPA, Leaf=one), (IPA, ATC)),
    "stage 2, freed before it is told": ("unmap a table of stage 2", late(Driver), ()),
    # Under page tables. The IPA behind an address is not known any more.
    "nested, neither stage": ("unmap the parent", without(IPA, ALL_STAGE_1), (VMID, ATC)),
    "nested, no stage 1": ("unmap the parent", without(ALL_STAGE_1), (VMID, ATC)),
    "nested, no stage 2": ("unmap the parent of a RID", without(IPA), (VMID, ATC)),
    "nested, wrong VMID": ("unmap the parent", with_fields(ALL_STAGE_1, VMID=up), (VMID, ATC)),
    "nested, the VMID of no stage 2": ("unmap the parent", with_fields(ALL_STAGE_1, VMID=zero), (VMID, ATC)),
    "nested, no device TLB": ("unmap the parent", without(ATC), (ATC,)),
    "nested, device TLB by guest address": (
        "unmap the parent", with_fields(ATC, Size=one, Addr=lambda _: 16 << 20), (ATC,),
    ),
    "nested, device TLB before TLB": ("unmap the parent", DEVICES_FIRST, (ATC,)),
    # By the guest.
    "guest, no TLB": ("guest unmaps pages", without(VA), BOTH),
    "guest, wrong VMID": ("guest unmaps pages", with_fields(VA, VMID=up), BOTH),
    "guest, its own VMID": ("guest unmaps pages", with_fields(VA, VMID=zero), BOTH),
    "guest, wrong ASID": ("guest unmaps pages", with_fields(VA, ASID=up), BOTH),
    "guest, too small a range": ("guest unmaps pages", with_fields(VA, NUM=down), BOTH),
    "guest, no device TLB": ("guest unmaps pages", without(ATC), (ATC,)),
    "guest, device TLB before TLB": ("guest unmaps pages", DEVICES_FIRST, (ATC,)),
    "guest, Leaf says that tables stayed": ("guest unmaps a table", with_fields(VA, Leaf=one), BOTH),
    "guest moves a page, no TLB": ("guest moves a page", without(VA), BOTH),
    "guest moves a page, no device TLB": ("guest moves a page", without(ATC), (ATC,)),
    # Slots.
    "detach, no CD": ("detach", without(CD), (CD, ATC)),
    "detach, neither CD nor TLB": ("detach", without(CD, ASID), (CD, ATC)),
    "detach, wrong PASID": ("detach", with_fields(CD, SubstreamID=up), (CD, ATC)),
    "detach, wrong device": ("detach", with_fields(CD, StreamID=up), (CD, ATC)),
    "detach, no device TLB": ("detach", without(ATC), (ATC,)),
    "detach, no TLB": (REUSED, without(ASID), (VA,)),
    "detach, wrong ASID": (REUSED, with_fields(ASID, ASID=up), (VA,)),
    "detach, RID, no STE": ("detach, RID", without(STE), (STE,)),
    "detach, RID, no device TLB": ("detach, RID", without(ATC), (ATC,)),
    "detach, stage 2, no STE": ("detach, stage 2", without(STE), (STE, ATC)),
    "detach, stage 2, wrong device": ("detach, stage 2", with_fields(STE, StreamID=up), (STE, ATC)),
    "detach, stage 2, no TLB": (REUSED_VMID, without(VMID), (IPA,)),
    "detach, stage 2, wrong VMID": (REUSED_VMID, with_fields(VMID, VMID=up), (IPA,)),
    "detach, stage 2, of stage 1": (REUSED_VMID, exchanged(VMID, with_vmid(ALL_STAGE_1)), (IPA,)),
    "detach, stage 2, no device TLB": (REUSED_VMID, without(ATC), (ATC,)),
    "replace, no CD": ("replace", without(CD), (CD, ATC)),
    "replace, no device TLB": ("replace", without(ATC), (ATC,)),
    "replace, RID, no CD": ("replace, RID", without(CD), (CD, ATC)),
    "replace, no TLB": ("replace, then its ASID is used again", without(ASID), (VA,)),
    "unbind, no TLB": (UNBOUND, without(ALL_STAGE_1), (VA,)),
    "unbind, wrong VMID": (UNBOUND, with_fields(ALL_STAGE_1, VMID=up), (VA,)),
    "unbind, no device TLB": (UNBOUND, without(ATC), (ATC,)),
    "bind, RID, no STE": ("bind, RID", without(STE), (STE, ATC)),
    "bind, RID, no device TLB": ("bind, RID", without(ATC), (ATC,)),
    # Tables of structures, which the unit knows as missing, too; and what it has found in a freed one.
    "a leaf is added, not told": ("add a leaf of CDs", without(CD), (CD,)),
    "a leaf is added, Leaf says that it was there": ("add a leaf of CDs", with_fields(CD, Leaf=one), (CD,)),
    "a leaf goes, not told": ("remove a leaf of CDs", without(CDS), (ATC,)),
    "a leaf goes, wrong device": ("remove a leaf of CDs", with_fields(CDS, StreamID=up), (ATC,)),
    "device removed, no STE": ("remove a device", without(STE), (STE,)),
    "device removed, wrong device": ("remove a device", with_fields(STE, StreamID=up), (STE,)),
    "bus removed, not told": ("remove a bus", without(STES), (STES, STE)),
    "bus removed, wrong bus": ("remove a bus", with_fields(STES, StreamID=lambda value: value + 0x100), (STES, STE)),
    "bus removed, only its device": (
        "remove a bus", exchanged(STES, lambda was: STE.encode(StreamID=was["StreamID"], Leaf=1)), (STES, STE),
    ),
}  # fmt: skip
WARNED = {
    "Leaf says that tables stayed", "freed before it is told", "stage 2, Leaf says that tables stayed",
    "stage 2, freed before it is told", "nested, neither stage", "nested, no stage 2", "detach, no TLB",
    "detach, wrong ASID", "detach, stage 2, no TLB", "detach, stage 2, wrong VMID", "detach, stage 2, of stage 1",
    "replace, no TLB", "a leaf goes, not told", "a leaf goes, wrong device", "bus removed, not told",
    "bus removed, wrong bus", "bus removed, only its device",
}  # fmt: skip
"""Those in which a table is freed that caches still lead to."""


@pytest.mark.parametrize("name", SEEDED)
def test_seeded_mistakes_are_found(tmp_path: Path, name: str) -> None:
    scenario, sabotage, missing = SEEDED[name]
    play(tmp_path, SCENARIOS[scenario], sabotage).check(missing, freed=name in WARNED)
