# SPDX-License-Identifier: Apache-2.0
"""What a machine has to have for a test to run on it, looked up without changing anything."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from iommuctl.iommufd.session import Iommufd
from tests.hardware.mock.driver import present

IOMMU = Path("/dev/iommu")
PCI = Path("/sys/bus/pci/devices")
UNITS = Path("/sys/class/iommu")
_NEST, _PASID = 1 << 26, 1 << 40
"""VT-d specification, section 11.4.3: Extended Capability Register."""


def without_iommufd() -> str:
    """Why nothing of iommufd can be tested here; "" where it can."""
    if not IOMMU.exists():
        return f"there is no {IOMMU}"
    if not os.access(IOMMU, os.R_OK | os.W_OK):
        return f"{IOMMU} cannot be opened by this user"
    return ""


def without_mock() -> str:
    """Why there is no mock driver of iommufd to be used: the kernel needs CONFIG_IOMMUFD_TEST."""
    with contextlib.closing(Iommufd.open()) as iommufd:
        return "" if present(iommufd.fd) else "the kernel has no mock driver of iommufd (CONFIG_IOMMUFD_TEST)"


def without_vtd() -> str:
    """Why VT-d cannot be tested: Linux drives no such unit here."""
    return "" if list(_units()) else "Linux drives no VT-d unit here"


def without_nesting() -> str:
    """Why nesting and PASIDs of VT-d cannot be tested: no unit that has both."""
    if why := without_vtd():
        return why
    have = any(ecap & _NEST and ecap & _PASID for ecap in _units())
    return "" if have else "no VT-d unit here has nesting and PASIDs"


def without_smmuv3() -> str:
    """Why SMMUv3 cannot be tested: Linux drives no such unit here."""
    return "" if list(UNITS.glob("smmu3.*")) else "Linux drives no SMMUv3 here"


def without_smmuv3_plain() -> str:
    """Why it cannot be tested what an SMMUv3 without nesting refuses: the one here nests, or there is none."""
    if why := without_smmuv3():
        return why
    return "the SMMUv3 here nests" if "iommulab_canwbs=1" in Path("/proc/cmdline").read_text("ascii").split() else ""


def without_group() -> str:
    """Why a group that is not viable cannot be tested: in none is a device with its own driver beside one without."""
    if why := without_vtd():
        return why
    for group in Path("/sys/kernel/iommu_groups").glob("*/devices"):
        drivers = {(device / "driver").exists() for device in group.iterdir() if _is_endpoint(device)}
        if drivers == {True, False}:
            return ""
    return "no IOMMU group here has a device with a driver beside one without"


NEEDS: dict[str, Callable[[], str]] = {
    "mock": without_mock,
    "vtd": without_vtd,
    "nesting": without_nesting,
    "group": without_group,
    "smmuv3": without_smmuv3,
    "smmuv3_plain": without_smmuv3_plain,
}
"""What a test is marked with, by the test or by its folder. Each says why it cannot be had, "" where it can."""


def without(name: str) -> str:
    """Why tests with that mark cannot run here; "" where they can."""
    return without_iommufd() or NEEDS[name]()


def drivers() -> dict[str, str]:
    """The driver of each PCI device, "" for none, to compare with later."""
    return {device.name: _driver(device) for device in (PCI.iterdir() if PCI.exists() else ())}


def _driver(device: Path) -> str:
    link = device / "driver"
    return link.readlink().name if link.is_symlink() else ""


def _is_endpoint(device: Path) -> bool:
    # 0x06: bridges, which are in the groups of what is behind them.
    return not (device / "class").read_text("ascii").startswith("0x06")


def _units() -> Iterator[int]:
    """The extended capabilities of each VT-d unit."""
    for unit in UNITS.glob("dmar*"):
        yield int((unit / "intel-iommu" / "ecap").read_text("ascii"), 16)
