# SPDX-License-Identifier: Apache-2.0
"""What is read from /sys, of hosts of several kinds and with contents that nobody should trust."""

import shutil

import pytest

from iommuctl.errors import NoSuchDevice
from iommuctl.iommufd.attributes import Reserved
from iommuctl.iommufd.sysfs import Member
from iommuctl.model import Rid
from tests.iommufd.host import NODE, Host
from tests.iommufd.test_pci_config import config

NIC = Rid(0, 0, 3, 0)


def unit(host: Host, name: str, folder: str | None = None, **attributes: str) -> None:
    path = host.sys / "class/iommu" / name
    (path / "devices").mkdir(parents=True)
    for key, text in attributes.items():
        (path / str(folder)).mkdir(exist_ok=True)
        (path / str(folder) / key).write_text(text + "\n")


def test_a_unit_with_attributes(host: Host) -> None:
    """As in a VM with an emulated VT-d."""
    unit(host, "dmar0", "intel-iommu", address="fed90000", cap="81d2008c222f0606", ecap="8d9a20f00f4e", version="1:0")
    host.device("0000:00:03.0", unit="dmar0")
    host.device("0000:00:02.0", unit="dmar0")
    (found,) = host.sysfs.units()
    assert (found.name, found.kind) == ("dmar0", "intel-iommu")
    assert found.attributes["cap"] == "81d2008c222f0606"
    assert found.attributes["version"] == "1:0"
    assert found.devices == (Rid(0, 0, 2, 0), NIC)
    assert host.sysfs.device(NIC).unit == "dmar0"


def test_a_unit_is_called_by_its_platform_driver_if_it_has_no_attributes(host: Host) -> None:
    """As SMMUv3. `power` is there with CONFIG_PM, whatever the driver."""
    unit(host, "smmu3.0x0000000009050000")
    (host.sys / "class/iommu/smmu3.0x0000000009050000/power").mkdir()
    unit(host, "ivhd0")
    platform = host.sys / "devices/platform/arm-smmu-v3.0.auto"
    platform.mkdir(parents=True)
    (platform / "driver").symlink_to("../../../bus/platform/drivers/arm-smmu-v3")
    (host.sys / "class/iommu/smmu3.0x0000000009050000/device").symlink_to(platform)
    assert [(found.name, found.kind, found.attributes) for found in host.sysfs.units()] == [
        ("ivhd0", "ivhd0", {}),
        ("smmu3.0x0000000009050000", "arm-smmu-v3", {}),
    ]


def test_a_host_without_iommu_has_no_units(host: Host) -> None:
    host.device("0000:00:03.0", group=None)
    assert host.sysfs.units() == []
    assert host.sysfs.devices() == []
    assert host.sysfs.device(NIC).group is None


def test_a_device_with_its_driver_and_capabilities(host: Host) -> None:
    host.driver("e1000e")
    space = config((0x100, 0x1B, 0x150), (0x150, 0x0F, 0), words={0x104: 0x1400})
    host.device("0000:00:03.0", group=7, driver="e1000e", config=space)
    found = host.sysfs.device(NIC)
    assert (found.vendor, found.device, found.class_code) == (0x8086, 0x10D3, 0x020000)
    assert (found.driver, found.driver_override, found.group) == ("e1000e", None, 7)
    assert (found.ats, found.pri, found.pasid_bits) == (True, False, 20)
    assert (found.vfio, found.cdev) == (None, None)


@pytest.mark.parametrize("empty", ["(null)", ""])
def test_no_override_by_any_kernel(host: Host, empty: str) -> None:
    host.empty_override = empty
    host.device("0000:00:03.0")
    host.device("0000:00:04.0", override="vfio-pci")
    assert host.sysfs.device(NIC).driver_override is None
    assert host.sysfs.device(Rid(0, 0, 4, 0)).driver_override == "vfio-pci"


def test_without_root_64_bytes_tell_nothing_of_capabilities(host: Host) -> None:
    host.device("0000:00:03.0", config=config()[:64])
    found = host.sysfs.device(NIC)
    assert (found.ats, found.pri, found.pasid_bits) == (None, None, None)


def test_a_virtual_function_has_the_pri_and_pasids_of_its_physical_one(host: Host) -> None:
    host.device("0000:00:02.0", config=config((0x100, 0x1B, 0x140), (0x140, 0x13, 0), words={0x104: 0x0A00}))
    host.device("0000:00:03.0", config=config((0x100, 0x0F, 0)))
    (host.sys / "bus/pci/devices/0000:00:03.0/physfn").symlink_to("../0000:00:02.0")
    found = host.sysfs.device(NIC)
    assert (found.ats, found.pri, found.pasid_bits) == (True, True, 10)
    shutil.rmtree(host.sys / "devices/pci0000:00/0000:00:02.0")
    assert host.sysfs.device(NIC).pasid_bits == 0


def test_the_node_of_a_cdev_has_to_be_there(host: Host) -> None:
    host.driver("vfio-pci")
    host.device("0000:00:03.0", driver="vfio-pci")
    assert (host.sysfs.device(NIC).vfio, host.sysfs.device(NIC).cdev) == ("vfio0", "vfio0")
    assert host.sysfs.rid_of("vfio0") == NIC
    node = host.dev / "vfio/devices/vfio0"
    node.unlink()
    assert (host.sysfs.device(NIC).vfio, host.sysfs.device(NIC).cdev) == ("vfio0", None)
    node.symlink_to("/dev/zero")  # the node of another device
    assert host.sysfs.device(NIC).cdev is None
    node.unlink()
    node.write_text("no device at all")
    assert host.sysfs.device(NIC).cdev is None


def test_a_kernel_without_cdevs_has_the_folder_alone(host: Host) -> None:
    host.cdev = False
    host.driver("vfio-pci")
    host.device("0000:00:03.0", driver="vfio-pci")
    (host.dev / "vfio/devices/vfio0").symlink_to(NODE)
    assert (host.sysfs.device(NIC).vfio, host.sysfs.device(NIC).cdev) == ("vfio0", None)


def test_a_group(host: Host) -> None:
    """A bridge, a device with a driver, one without, and one that is not PCI."""
    host.driver("e1000e")
    host.driver("vfio-pci")
    host.device("0000:00:15.0", class_code=0x060400)
    host.device("0000:00:03.0", driver="e1000e")
    host.device("0000:00:04.0", driver="vfio-pci")
    platform = host.sys / "devices/platform/a0.dma"
    platform.mkdir(parents=True)
    host.member(1, "a0.dma", platform)
    (host.sys / "kernel/iommu_groups/1/reserved_regions").write_text(
        "0x0000000008000000 0x00000000080fffff msi\nnonsense\n0x1 zz direct\n0x0 0xfff direct-relaxable\n"
    )
    found = host.sysfs.group(1)
    assert (found.number, found.type) == (1, "DMA-FQ")
    assert found.members == (
        Member("0000:00:03.0", NIC, "e1000e", bridge=False, vfio=False),
        Member("0000:00:04.0", Rid(0, 0, 4, 0), "vfio-pci", bridge=False, vfio=True),
        Member("0000:00:15.0", Rid(0, 0, 0x15, 0), None, bridge=True, vfio=False),
        Member("a0.dma", None, None, bridge=False, vfio=False),
    )
    assert found.reserved == (Reserved(0x8000000, 0x80FFFFF, "msi"), Reserved(0, 0xFFF, "direct-relaxable"))


def test_what_is_gone_is_told_in_a_sentence(host: Host) -> None:
    host.device("0000:00:03.0")
    shutil.rmtree(host.sys / "devices/pci0000:00/0000:00:03.0")
    with pytest.raises(NoSuchDevice, match=r"there is no device 0000:00:03\.0"):
        host.sysfs.device(NIC)
    with pytest.raises(NoSuchDevice, match="IOMMU group 99"):
        host.sysfs.group(99)
    assert host.sysfs.devices() == []
    assert [member.driver for member in host.sysfs.group(1).members] == [None]


def test_contents_that_make_no_sense_are_bounded(host: Host) -> None:
    host.device("0000:00:03.0")
    folder = host.sys / "devices/pci0000:00/0000:00:03.0"
    (folder / "vendor").write_bytes(b"\xff\xfe nonsense")
    (folder / "device").write_text("0x" + "f" * 1_000_000)
    (folder / "driver_override").write_text("x" * 1_000_000)
    (folder / "iommu_group").unlink()
    (folder / "iommu_group").symlink_to("9" * 200)
    (host.sys / "bus/pci/devices/not-a-rid").mkdir()
    found = host.sysfs.device(NIC)
    assert (found.vendor, found.device, found.group) == (0, (1 << 64) - 1, None)
    assert len(found.driver_override or "") == 1 << 16
    assert host.sysfs.devices() == []
