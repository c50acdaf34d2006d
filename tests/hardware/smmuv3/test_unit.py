# SPDX-License-Identifier: Apache-2.0
"""What Linux tells of an SMMUv3, its devices and its address spaces."""

from collections.abc import Callable

import pytest

from iommuctl.errors import KernelRefused
from iommuctl.iommufd import uapi
from iommuctl.iommufd.session import Iommufd
from iommuctl.iommufd.sysfs import Sysfs
from iommuctl.iommufd.vfio import Cdev
from iommuctl.model import Rid
from iommuctl_smmuv3.features import TERMINATE_ONLY, Features
from iommuctl_smmuv3.id_registers import AIDR
from tests.hardware.smmuv3.guest import registers

VIRTIO, BEHIND_A_BRIDGE, ALIAS = Rid(0, 4, 0, 0), Rid(0, 3, 1, 0), Rid(0, 3, 2, 0)
MSI = 0x800_0000, 0x80F_FFFF
"""Where Linux puts doorbells of interrupts, in every address space of a device."""
NOTHING_ATTACHED = [(0, 2**64 - 1)]


def without_msi(bits: int) -> list[tuple[int, int]]:
    return [(0, MSI[0] - 1), (MSI[1] + 1, (1 << bits) - 1)]


def test_the_unit_and_its_devices() -> None:
    """Two devices behind a conventional bridge have one StreamID, and Linux takes the first alone."""
    sysfs = Sysfs()
    (unit,) = [unit for unit in sysfs.units() if unit.kind == "arm-smmu-v3"]
    assert unit.name.startswith("smmu3.0x")
    everybody = {device.rid for device in sysfs.devices()}
    assert set(unit.devices) == everybody - {ALIAS}
    assert (sysfs.device(ALIAS).group, sysfs.device(ALIAS).unit) == (None, None)
    group = sysfs.group(sysfs.device(BEHIND_A_BRIDGE).group or 0)
    assert [(member.rid, member.bridge) for member in group.members] == [
        (Rid(0, 0, 0x15, 0), True),
        (BEHIND_A_BRIDGE, False),
    ]
    assert group.reserved == ((*MSI, "msi"),)


def test_the_registers(session: Iommufd, device: Cdev) -> None:
    """QEMU's unit, by the layouts of IDR0 to IDR5 and AIDR: 44 bits, all granules, no substreams, no ATS."""
    values = registers(session, device.bind(session.fd))
    features = Features.of(values)
    assert (features.s1p, features.s2p, features.aarch64, features.aarch32) == (True, True, True, False)
    assert (features.oas, features.vax, features.granules) == (44, 48, (1 << 12, 1 << 14, 1 << 16))
    assert (features.sid_bits, features.ssid_bits, features.asid16, features.vmid16) == (16, 0, True, True)
    assert (features.ats, features.pri, features.fwb, features.httu) == (False, False, False, 0)
    assert (features.ril, features.bbml, features.stall_model) == (True, 2, TERMINATE_ONLY)
    assert AIDR.ArchMinorRev.get(values["AIDR"]) == 1


@pytest.mark.parametrize("rid", [Rid(0, 0, 0x10, 0), VIRTIO, BEHIND_A_BRIDGE], ids=str)
def test_a_device_has_neither_pasids_nor_ats(session: Iommufd, cdev: Callable[[Rid], Cdev], rid: Rid) -> None:
    """Also the one with the capability: the unit has no ATS."""
    info = session.get_hw_info(cdev(rid).bind(session.fd))
    assert (info.capabilities, info.max_pasid_log2) == (uapi.IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED, 0)


@pytest.mark.parametrize(
    ("flags", "bits"), [(0, 48), (uapi.IOMMU_HWPT_ALLOC_PASID, 48), (uapi.IOMMU_HWPT_ALLOC_NEST_PARENT, 44)]
)
def test_what_an_address_space_can_hold(session: Iommufd, device: Cdev, flags: int, bits: int) -> None:
    """A page table narrows it, to stage 1 or to stage 2; a device reserves the doorbells while it is attached."""
    dev_id, ioas = device.bind(session.fd), session.ioas_alloc()
    assert session.ioas_iova_ranges(ioas) == (NOTHING_ATTACHED, 1)
    hwpt = session.hwpt_alloc(dev_id, ioas, flags)
    assert session.ioas_iova_ranges(ioas) == ([(0, (1 << bits) - 1)], 4096)
    device.attach(hwpt)
    assert session.ioas_iova_ranges(ioas) == (without_msi(bits), 4096)
    device.detach()
    assert session.ioas_iova_ranges(ioas) == ([(0, (1 << bits) - 1)], 4096)
    session.destroy(hwpt)
    assert session.ioas_iova_ranges(ioas) == (NOTHING_ATTACHED, 1)


@pytest.mark.parametrize(
    "flags",
    [
        uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
        uapi.IOMMU_HWPT_ALLOC_NEST_PARENT | uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
        uapi.IOMMU_HWPT_ALLOC_NEST_PARENT | uapi.IOMMU_HWPT_ALLOC_PASID,
        uapi.IOMMU_HWPT_ALLOC_NEST_PARENT | uapi.IOMMU_HWPT_FAULT_ID_VALID,
    ],
)
def test_tables_that_cannot_be(session: Iommufd, device: Cdev, flags: int) -> None:
    """No dirty state without HTTU; and a nest parent takes no other flag."""
    fault_id = session.fault_queue_alloc()[0] if flags & uapi.IOMMU_HWPT_FAULT_ID_VALID else 0
    with pytest.raises(KernelRefused, match="EOPNOTSUPP"):
        session.hwpt_alloc(device.bind(session.fd), session.ioas_alloc(), flags, fault_id=fault_id)


def test_a_new_table_replaces_the_one_that_is_attached(session: Iommufd, device: Cdev) -> None:
    """Between stage 1 and stage 2 as well."""
    dev_id = device.bind(session.fd)
    first, second, parent = (
        session.hwpt_alloc(dev_id, session.ioas_alloc(), flags)
        for flags in (0, uapi.IOMMU_HWPT_ALLOC_PASID, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT)
    )
    for hwpt in (first, parent, second, parent, first):
        assert device.attach(hwpt) == hwpt
    device.detach()
    for hwpt in (first, second, parent):
        session.destroy(hwpt)
