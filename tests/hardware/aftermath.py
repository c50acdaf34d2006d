# SPDX-License-Identifier: Apache-2.0
"""Giving a machine back as it was: the devices first, then the kernel's objects."""

import os
from collections.abc import Mapping
from pathlib import Path

from iommuctl import Iommu
from iommuctl.iommufd.keeper_client import Keeper
from tests.hardware import machines


def give_back(folder: Path, drivers: Mapping[str, str]) -> None:
    """Undo what commands in a state folder left: devices get these drivers back, the keeper ends with all it holds."""
    try:
        bound = [rid for rid, driver in machines.drivers().items() if driver == "vfio-pci" != drivers.get(rid)]
        if bound and (folder / "state.db").exists():
            with Iommu(folder) as iommu:
                for rid in bound:
                    iommu.device_unbind(rid, force=True)
    finally:
        if keeper := Keeper.connect(folder):
            keeper.stop()


def holders() -> set[tuple[int, int]]:
    """The descriptors of /dev/iommu that processes have open, as (process id, descriptor)."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(path) == str(machines.IOMMU):
                found.add((int(path.parts[2]), int(path.name)))
        except OSError:
            # The process has ended, or is another user's.
            continue
    return found
