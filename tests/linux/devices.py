# SPDX-License-Identifier: Apache-2.0
"""The VMs whose tables are compared: the modes of QEMU's VT-d unit, the devices, and what becomes of each."""

from typing import NamedTuple

RAM = 1 << 30
"""All of it is below the addresses of devices, so that it begins at address 0 of the file."""
LARGE_PAGES = 16
NEEDED = (
    "intel-iommu",
    "edu",
    "virtio-rng-pci",
    "virtio-serial-pci",
    "virtio-9p-pci",
    "pcie-root-port",
    "pcie-pci-bridge",
)
"""The devices that QEMU must have."""

ROLES: dict[str, list[str]] = {
    "alone": ["0000:00:10.0"],
    "shared": ["0000:00:11.0", "0000:00:1e.0"],
    "pasid-able": ["0000:00:12.0"],
    "bridged": ["0000:01:01.0", "0000:01:02.0"],
    "pasids": ["0000:03:00.0", "0000:04:00.0"],
    "identity": ["0000:00:13.0"],
    "blocked": ["0000:00:14.0"],
}
"""What guest.py does with whom.

`alone` has an IOAS of its own; `shared` have one HWPT together, and `pasid-able` another HWPT of the same IOAS, with
the flag that allows PASIDs; `bridged` have an IOAS together, as they must; `identity` translates nothing; `blocked`
are given to user space, which attaches nothing. All others are left as Linux has them, with 0000:02:00.0 in use by its
driver and with a device TLB.
"""

MACHINE = (
    "-machine", "q35,memory-backend=ram",
    "-device", "pcie-pci-bridge,id=bridge0,addr=0x15",
    "-device", "pcie-root-port,id=port0,chassis=1,addr=0x16",
    *(word for slot in range(0x10, 0x15) for word in ("-device", f"edu,addr={slot:#x}")),
    "-device", "edu,addr=0x1e", "-device", "edu,bus=bridge0,addr=1", "-device", "edu,bus=bridge0,addr=2",
    "-device", "virtio-rng-pci,bus=port0,ats=on,iommu_platform=on,disable-legacy=on",
    *(word for bus in (3, 4) for word in (
        "-device", f"pcie-root-port,id=port{bus},chassis={bus},addr={0x16 + bus:#x}",
        "-device", f"nvme,serial=1,bus=port{bus}",
    )),
    "-device", "virtio-serial-pci,addr=0x17,iommu_platform=on,disable-legacy=on",
    "-chardev", "null,id=nothing", "-device", "virtserialport,chardev=nothing,name=quiet",
)  # fmt: skip


class Mode(NamedTuple):
    """A sort of unit: properties of QEMU's device, and what tells it apart."""

    unit: str
    scalable: bool = True

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments of QEMU. Without remapped interrupts Linux gives no device to user space."""
        return "-device", f"intel-iommu,intremap=on,device-iotlb=on,{self.unit}", *MACHINE

    @property
    def parameters(self) -> str:
        """Parameters of the kernel."""
        return f"quiet hugepages={LARGE_PAGES} intel_iommu=on,{'sm_on' if self.scalable else 'sm_off'}"


MODES = {
    "scalable, first stage": Mode("aw-bits=48,scalable-mode=on,fsts=on,pasid-bits=20,snoop-control=on"),
    "scalable, second stage": Mode("aw-bits=48,scalable-mode=on,pasid-bits=20,snoop-control=on"),
    "scalable, second stage, 39 bits": Mode("aw-bits=39,scalable-mode=on"),
    "legacy": Mode("aw-bits=48,scalable-mode=off,snoop-control=on", scalable=False),
    "legacy, 39 bits": Mode("aw-bits=39,scalable-mode=off", scalable=False),
}
