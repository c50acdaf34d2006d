# SPDX-License-Identifier: Apache-2.0
"""Whether an IOMMU group can be given to VFIO: none of its devices may be in the host's hands.

Source: `iommu_device_claim_dma_owner` of drivers/iommu/iommu.c, and the drivers with `driver_managed_dma`.
"""

from typing import Final

from iommuctl.errors import GroupNotViable
from iommuctl.iommufd.sysfs import Member, PciDevice, Sysfs

VFIO_PCI: Final = "vfio-pci"
WITHOUT_DMA: Final = (VFIO_PCI, "pci-stub")
"""Drivers under which a device keeps still; other VFIO drivers show as such."""


def in_the_way(sysfs: Sysfs, device: PciDevice) -> list[Member]:
    """The other devices of the group whose drivers do DMA for the host. Bridges forward, they do none of their own."""
    if device.group is None:
        return []
    return [
        member
        for member in sysfs.group(device.group).members
        if member.rid != device.rid
        and member.driver is not None
        and not (member.bridge or member.vfio or member.driver in WITHOUT_DMA)
    ]


def check_viable(sysfs: Sysfs, device: PciDevice) -> None:
    """Raise GroupNotViable with every device that is in the way, and its driver."""
    if others := in_the_way(sysfs, device):
        raise GroupNotViable(
            f"IOMMU group {device.group} of {device.rid} is not viable",
            because="the IOMMU cannot tell its devices apart, and the host uses "
            + ", ".join(f"{member.name} (driver {member.driver})" for member in others),
            hint="take from their drivers what the host can do without: "
            + "; ".join(
                f"echo {member.name} > {sysfs.path('bus/pci/drivers', str(member.driver), 'unbind')}"
                if member.rid
                else f"{member.name} is no PCI device"
                for member in others
            ),
        )
