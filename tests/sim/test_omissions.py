# SPDX-License-Identifier: Apache-2.0
"""The sanitizer against a list of seeded mistakes with VT-d: each is found, and nothing is when there is none."""

from pathlib import Path

import pytest

from iommuctl.formats.bits import Layout
from iommuctl_vtd.driver import Driver
from iommuctl_vtd.invalidation import (
    ContextCacheInvalidate,
    DeviceTlbInvalidate,
    IotlbInvalidate,
    PasidCacheInvalidate,
    PasidDeviceTlbInvalidate,
    PasidIotlbInvalidate,
)
from tests.sim import scenarios
from tests.sim.playing import play
from tests.sim.sabotage import Sabotage, devices_first, exchanged, late, nothing, with_fields, without
from tests.sim.scenarios import LEGACY, PAGE

CONTEXT, PASID, IOTLB = ContextCacheInvalidate, PasidCacheInvalidate, IotlbInvalidate
PASID_IOTLB, DEVICE, PASID_DEVICE = PasidIotlbInvalidate, DeviceTlbInvalidate, PasidDeviceTlbInvalidate
DEVICES_FIRST = devices_first(DEVICE, PASID_DEVICE)
SCENARIOS = {
    "unmap pages": scenarios.unmap_pages(),
    "unmap a table": scenarios.unmap_table(),
    "unmap, RID": scenarios.unmap_pages(None),
    "unmap, legacy": scenarios.unmap_pages(None, mode=LEGACY),
    "unmap a table, legacy": scenarios.unmap_table(None, mode=LEGACY),
    "unmap the parent": scenarios.unmap_parent(),
    "guest unmaps pages": scenarios.guest_pages(),
    "guest unmaps a table": scenarios.guest_table(),
    "guest moves a page": scenarios.guest_moves_a_page(),
    "detach": scenarios.detach(),
    "detach, RID": scenarios.detach(None),
    "detach, then its DID is used again": scenarios.detach(reuse=True),
    "replace": scenarios.replace(),
    "replace, then its DID is used again": scenarios.replace(reuse=True),
    "replace beside another": scenarios.replace_beside(),
    "remove a device": scenarios.remove_device(),
    "detach, legacy": scenarios.detach(None, mode=LEGACY),
    "detach, then its DID is used again, legacy": scenarios.detach(None, reuse=True, mode=LEGACY),
    "replace, legacy": scenarios.replace(None, mode=LEGACY),
    "replace, then its DID is used again, legacy": scenarios.replace(None, reuse=True, mode=LEGACY),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_correct_driver(tmp_path: Path, name: str) -> None:
    assert play(tmp_path, SCENARIOS[name], nothing) == ([], [])


def down(value: int) -> int:
    return value - 1


def up(value: int) -> int:
    return value + 1


# Where the unit still answers wrongly when a device is told, the device asks again and has the wrong answer at once:
# then both commands are missing. And where an entry above the tables is stale, translations are cached through it.
BOTH, BOTH_OF_RID, BOTH_OF_GUEST = (IOTLB, PASID_DEVICE), (IOTLB, DEVICE), (PASID_IOTLB, PASID_DEVICE)
REUSED, REUSED_LEGACY = "detach, then its DID is used again", "detach, then its DID is used again, legacy"
SEEDED: dict[str, tuple[str, Sabotage, tuple[type[Layout], ...]]] = {
    # Pages of a second stage.
    "no IOTLB": ("unmap pages", without(IOTLB), BOTH),
    "no device TLB": ("unmap pages", without(PASID_DEVICE), (PASID_DEVICE,)),
    "neither": ("unmap pages", without(IOTLB, PASID_DEVICE), BOTH),
    "wrong DID": ("unmap pages", with_fields(IOTLB, DID=up), BOTH),
    "too small a range": ("unmap pages", with_fields(IOTLB, AM=down), BOTH),
    "wrong address": ("unmap pages", with_fields(IOTLB, ADDR=lambda value: value + 4 * PAGE), BOTH),
    "device TLB, too small a range": (
        "unmap pages", with_fields(PASID_DEVICE, S=lambda _: 0, ADDR=lambda value: value & ~PAGE), (PASID_DEVICE,),
    ),
    "device TLB, wrong PASID": ("unmap pages", with_fields(PASID_DEVICE, PASID=up), (PASID_DEVICE,)),
    "device TLB, wrong device": ("unmap pages", with_fields(PASID_DEVICE, SID=lambda _: 0x10), (PASID_DEVICE,)),
    "device TLB without the PASID": (
        "unmap pages",
        exchanged(PASID_DEVICE, lambda was: DEVICE.encode(SID=was["SID"], S=was["S"], ADDR=was["ADDR"])),
        (PASID_DEVICE,),
    ),
    "device TLB before IOTLB": ("unmap pages", DEVICES_FIRST, (PASID_DEVICE,)),
    "RID, no device TLB": ("unmap, RID", without(DEVICE), (DEVICE,)),
    "RID, device TLB before IOTLB": ("unmap, RID", DEVICES_FIRST, (DEVICE,)),
    "legacy, no IOTLB": ("unmap, legacy", without(IOTLB), BOTH_OF_RID),
    "legacy, no device TLB": ("unmap, legacy", without(DEVICE), (DEVICE,)),
    # A table that is freed.
    "IH says that tables stayed": ("unmap a table", with_fields(IOTLB, IH=lambda _: 1), BOTH),
    "legacy, IH says so": ("unmap a table, legacy", with_fields(IOTLB, IH=lambda _: 1), BOTH_OF_RID),
    "freed before it is told": ("unmap a table", late(Driver), ()),
    # Under page tables.
    "nested, no IOTLB": ("unmap the parent", without(IOTLB), BOTH),
    "nested, the parent's DID": ("unmap the parent", with_fields(IOTLB, DID=down), BOTH),
    "nested, no device TLB": ("unmap the parent", without(PASID_DEVICE), (PASID_DEVICE,)),
    "nested, device TLB by guest address": (
        "unmap the parent", with_fields(PASID_DEVICE, S=lambda _: 1, ADDR=lambda _: 16 << 20), (PASID_DEVICE,),
    ),
    "nested, device TLB before IOTLB": ("unmap the parent", DEVICES_FIRST, (PASID_DEVICE,)),
    # By the guest.
    "guest, no IOTLB": ("guest unmaps pages", without(PASID_IOTLB), BOTH_OF_GUEST),
    "guest, wrong DID": ("guest unmaps pages", with_fields(PASID_IOTLB, DID=up), BOTH_OF_GUEST),
    "guest, wrong PASID": ("guest unmaps pages", with_fields(PASID_IOTLB, PASID=up), BOTH_OF_GUEST),
    "guest, too small a range": ("guest unmaps pages", with_fields(PASID_IOTLB, AM=down), BOTH_OF_GUEST),
    "guest, no device TLB": ("guest unmaps pages", without(PASID_DEVICE), (PASID_DEVICE,)),
    "guest, device TLB before IOTLB": ("guest unmaps pages", DEVICES_FIRST, (PASID_DEVICE,)),
    "guest, IH says that tables stayed": (
        "guest unmaps a table", with_fields(PASID_IOTLB, IH=lambda _: 1), BOTH_OF_GUEST,
    ),
    "guest moves a page, no IOTLB": ("guest moves a page", without(PASID_IOTLB), BOTH_OF_GUEST),
    "guest moves a page, no device TLB": ("guest moves a page", without(PASID_DEVICE), (PASID_DEVICE,)),
    # Slots.
    "detach, no PASID cache": ("detach", without(PASID), (PASID, IOTLB, PASID_DEVICE)),
    "detach, neither PASID cache nor IOTLB": ("detach", without(PASID, IOTLB), (PASID, IOTLB, PASID_DEVICE)),
    "detach, wrong PASID": ("detach", with_fields(PASID, PASID=up), (PASID, IOTLB, PASID_DEVICE)),
    "detach, wrong DID": ("detach", with_fields(PASID, DID=up), (PASID, IOTLB, PASID_DEVICE)),
    "detach, no device TLB": ("detach", without(PASID_DEVICE), (PASID_DEVICE,)),
    "detach, no IOTLB": (REUSED, without(IOTLB), (IOTLB,)),
    "detach, RID, no PASID cache": ("detach, RID", without(PASID), (PASID, IOTLB, DEVICE)),
    "detach, RID, no device TLB": ("detach, RID", without(DEVICE), (DEVICE,)),
    "replace, no PASID cache": ("replace", without(PASID), (PASID, IOTLB, PASID_DEVICE)),
    "replace, no device TLB": ("replace", without(PASID_DEVICE), (PASID_DEVICE,)),
    "replace, no IOTLB": ("replace, then its DID is used again", without(IOTLB), (IOTLB,)),
    "replace, only the PASID's entry": (
        "replace beside another", exchanged(PASID, lambda _: PASID.encode(G=1, DID=1, PASID=3)), (PASID,),
    ),
    "device removed, no context cache": ("remove a device", without(CONTEXT), (CONTEXT,)),
    "device removed, wrong device": ("remove a device", with_fields(CONTEXT, SID=up), (CONTEXT,)),
    "legacy, detach, no context cache": ("detach, legacy", without(CONTEXT), (CONTEXT, IOTLB, DEVICE)),
    "legacy, detach, wrong DID": ("detach, legacy", with_fields(CONTEXT, DID=up), (CONTEXT, IOTLB, DEVICE)),
    "legacy, detach, no device TLB": (REUSED_LEGACY, without(DEVICE), (DEVICE,)),
    "legacy, detach, no IOTLB": (REUSED_LEGACY, without(IOTLB), (IOTLB,)),
    "legacy, replace, no context cache": ("replace, legacy", without(CONTEXT), (CONTEXT, IOTLB, DEVICE)),
    "legacy, replace, no device TLB": ("replace, legacy", without(DEVICE), (DEVICE,)),
    "legacy, replace, only the device's entry": (
        "replace, legacy", exchanged(CONTEXT, lambda _: CONTEXT.encode(G=3, SID=8, DID=1)), (CONTEXT, IOTLB, DEVICE),
    ),
    "legacy, replace, no IOTLB": ("replace, then its DID is used again, legacy", without(IOTLB), (IOTLB,)),
}  # fmt: skip
WARNED = {
    "IH says that tables stayed", "legacy, IH says so", "freed before it is told", "nested, no IOTLB",
    "nested, the parent's DID", "detach, no IOTLB", "legacy, detach, no IOTLB", "replace, no PASID cache",
    "replace, only the PASID's entry", "replace, no IOTLB", "device removed, no context cache",
    "device removed, wrong device", "legacy, replace, no context cache", "legacy, replace, only the device's entry",
    "legacy, replace, no IOTLB",
}  # fmt: skip
"""Those in which a table is freed that caches still lead to."""


@pytest.mark.parametrize("name", SEEDED)
def test_seeded_mistakes_are_found(tmp_path: Path, name: str) -> None:
    scenario, sabotage, missing = SEEDED[name]
    play(tmp_path, SCENARIOS[scenario], sabotage).check(missing, freed=name in WARNED)
