# SPDX-License-Identifier: Apache-2.0
"""DMA goes through a guest's own stage 1, as its STE, its CD and its tables say, and through the kernel's stage 2."""

import pytest

from iommuctl.iommufd.vfio import Cdev
from iommuctl_smmuv3.ste import ABORT, BYPASS, Ste
from tests.hardware.edu import Edu
from tests.hardware.smmuv3.guest import SIZE, VSID, Guest, payload
from tests.hardware.smmuv3.nested import HOLE, IOVA, NOTHING, ONE, OTHER, RESULT, Nested

AS_BEFORE = b"as ever."


@pytest.mark.parametrize("granule", [1 << 12, 1 << 14, 1 << 16], ids=["4K", "16K", "64K"])
def test_both_stages(guest: Guest, device: Cdev, edu: Edu, granule: int) -> None:
    guest.session.vdevice_alloc(guest.viommu, guest.device, VSID)
    nested = Nested(guest, device, edu, granule)
    assert nested.seen() == nested.words[ONE]
    assert nested.seen(HOLE) == NOTHING
    assert nested.seen(ONE) == NOTHING
    nested.write(IOVA + 0x1008)
    assert guest.memory.read(ONE + 0x1008, 8) == NOTHING
    edu.load(IOVA, 8)
    nested.write(IOVA + 0x1008)
    assert guest.memory.read(ONE + 0x1008, 8) == nested.words[ONE]


def test_a_page_that_is_not_writable(nested: Nested) -> None:
    nested.stage_1.map(HOLE, OTHER, prot="r")
    assert nested.seen(HOLE) == nested.words[OTHER]
    nested.write(HOLE + 8)
    assert nested.guest.memory.read(OTHER + 8, 8) == NOTHING


def test_what_stage_2_does_not_map(nested: Nested) -> None:
    """Memory of the guest that the parent loses while the device uses it."""
    guest = nested.guest
    nested.stage_1.map(HOLE, SIZE)
    assert nested.seen(HOLE) == NOTHING
    assert nested.seen() == nested.words[ONE]
    guest.session.ioas_unmap(guest.ioas)
    guest.memory.write(RESULT, AS_BEFORE)
    nested.write(RESULT)
    assert guest.memory.read(RESULT, 8) == AS_BEFORE


def test_another_stage_1_is_another_page_table(nested: Nested) -> None:
    """The kernel copies an STE when it makes the table: one that changes is a new table, and a new attach."""
    other = nested.attach(nested.guest.translating(nested.another(asid=2)))
    assert nested.seen() == nested.words[OTHER]
    nested.guest.session.destroy(nested.hwpt)
    assert other != nested.hwpt


def test_an_ste_without_stage_1(nested: Nested) -> None:
    """Bypass leaves stage 2 alone; abort, and an STE that is not valid, leave nothing."""
    nested.attach(payload(Ste.encode(V=1, Config=BYPASS)))
    assert nested.seen(ONE) == nested.words[ONE]
    for ste in (Ste.encode(V=1, Config=ABORT), Ste.encode(), Ste.encode(Config=BYPASS, S1STALLD=1)):
        nested.attach(payload(ste))
        assert nested.seen(ONE) == NOTHING


def test_an_attach_of_the_parent_ends_it(nested: Nested, device: Cdev) -> None:
    device.attach(nested.guest.parent)
    assert nested.seen(ONE) == nested.words[ONE]
    nested.guest.session.destroy(nested.hwpt)


def test_what_is_detached_reaches_nothing(nested: Nested, device: Cdev) -> None:
    guest = nested.guest
    assert nested.seen() == nested.words[ONE]
    device.detach()
    guest.memory.write(RESULT, AS_BEFORE)
    nested.write(RESULT)
    assert guest.memory.read(RESULT, 8) == AS_BEFORE
