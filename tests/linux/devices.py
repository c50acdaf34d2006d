# SPDX-License-Identifier: Apache-2.0
"""The devices of the VMs, the same below every unit, and what becomes of each."""

NEEDED = (
    "edu",
    "nvme",
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
    "identity": ["0000:00:13.0"],
    "blocked": ["0000:00:14.0"],
}
"""See Mode. Of the others, 0000:00:17.0 and 0000:02:00.0 are in use by their drivers, the latter with ATS."""
PASIDS = {"pasids": ["0000:03:00.0", "0000:04:00.0"]}
"""Where the kernel takes NVMe controllers for devices that have PASIDs."""

ENDPOINTS = (
    "-device", "pcie-pci-bridge,id=bridge0,addr=0x15",
    "-device", "pcie-root-port,id=port0,chassis=1,addr=0x16",
    *(word for slot in range(0x10, 0x15) for word in ("-device", f"edu,addr={slot:#x}")),
    "-device", "edu,addr=0x1e", "-device", "edu,bus=bridge0,addr=1", "-device", "edu,bus=bridge0,addr=2",
    "-device", "virtio-rng-pci,bus=port0,ats=on,iommu_platform=on,disable-legacy=on",
    "-device", "virtio-serial-pci,addr=0x17,iommu_platform=on,disable-legacy=on",
    "-chardev", "null,id=nothing", "-device", "virtserialport,chardev=nothing,name=quiet",
)  # fmt: skip
"""Arguments of QEMU for all but those with PASIDs."""
WITH_PASIDS = tuple(
    word
    for bus in (3, 4)
    for word in (
        "-device", f"pcie-root-port,id=port{bus},chassis={bus},addr={0x16 + bus:#x}",
        "-device", f"nvme,serial=1,bus=port{bus}",
    )
)  # fmt: skip
"""Arguments of QEMU for these."""
