# SPDX-License-Identifier: Apache-2.0
"""In which order what a guest has can be made and can go."""

from collections.abc import Callable

import pytest

from iommuctl.errors import KernelRefused
from iommuctl.iommufd.session import Iommufd
from iommuctl.iommufd.vfio import Cdev
from iommuctl.model import Rid
from iommuctl_smmuv3.configuration_commands import CfgiCd
from iommuctl_smmuv3.tlb_commands import TlbiNhAsid
from tests.hardware.edu import Edu
from tests.hardware.smmuv3.guest import VSID, Guest, GuestMemory
from tests.hardware.smmuv3.nested import IOVA, ONE, OTHER, Nested

OTHER_EDU = Rid(0, 0, 0x11, 0)
MSI = 0x800_0000, 0x80F_FFFF


def test_a_device_that_was_never_on_the_parent(session: Iommufd, device: Cdev, memory: GuestMemory) -> None:
    """The parent's IOVAs lose the doorbells as if the device were attached to it."""
    guest = Guest(session, device.bind(session.fd), memory)
    before = session.ioas_iova_ranges(guest.ioas)[0]
    session.vdevice_alloc(guest.viommu, guest.device, VSID)
    nested = Nested(guest, device, Edu(device.fd))
    assert nested.seen() == nested.words[ONE]
    (whole,) = before
    assert session.ioas_iova_ranges(guest.ioas)[0] == [(0, MSI[0] - 1), (MSI[1] + 1, whole[1])]
    device.detach()
    assert session.ioas_iova_ranges(guest.ioas)[0] == before


def test_two_devices(nested: Nested, cdev: Callable[[Rid], Cdev]) -> None:
    """Each with an STE and a number; one invalidation of an ASID that both use reaches both."""
    guest, other = nested.guest, cdev(OTHER_EDU)
    second = guest.beside(other.bind(guest.session.fd))
    guest.session.vdevice_alloc(guest.viommu, second.device, VSID + 8)
    both = [nested, Nested(second, other, Edu(other.fd))]
    assert [each.seen() for each in both] == [each.words[ONE] for each in both]
    for each in both:
        each.stage_1.unmap(IOVA)
        each.stage_1.map(IOVA, OTHER)
    guest.invalidate(TlbiNhAsid.encode(ASID=1))
    assert [each.seen() for each in both] == [each.words[OTHER] for each in both]


def test_a_vdevice_that_goes_while_its_stage_1_is_attached(nested: Nested) -> None:
    """DMA goes on; commands that name the device are refused."""
    guest = nested.guest
    guest.session.destroy(guest.vdevice)
    assert nested.seen() == nested.words[ONE]
    with pytest.raises(KernelRefused, match="EIO"):
        guest.invalidate(CfgiCd.encode(StreamID=VSID))
    guest.session.vdevice_alloc(guest.viommu, guest.device, VSID)
    guest.invalidate(CfgiCd.encode(StreamID=VSID))


def test_a_nested_table_in_use(nested: Nested, device: Cdev) -> None:
    """It, its vIOMMU and the parent go in that order, once the device is detached."""
    guest = nested.guest
    session = guest.session
    for number in (nested.hwpt, guest.viommu, guest.parent):
        with pytest.raises(KernelRefused, match="EBUSY"):
            session.destroy(number)
    device.detach()
    for number in (nested.hwpt, guest.vdevice, guest.viommu, guest.parent, guest.ioas):
        session.destroy(number)


def test_a_device_that_is_closed_with_its_vdevice(nested: Nested, device: Cdev) -> None:
    """The vDEVICE goes as well, and no object has its id again. It keeps nothing else."""
    guest = nested.guest
    session = guest.session
    device.close()
    with pytest.raises(KernelRefused, match="ENOENT"):
        session.destroy(guest.vdevice)
    for number in (nested.hwpt, guest.viommu, guest.parent, guest.ioas):
        session.destroy(number)
    ids = [session.ioas_alloc() for _ in range(guest.vdevice + 2)]
    assert guest.vdevice not in ids
    assert {nested.hwpt, guest.viommu, guest.parent, guest.ioas} <= set(ids)
