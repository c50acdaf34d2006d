# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells of an SMMU, once a device behind it is ours: registers, and whether page tables nest there.

Source: drivers/iommu/arm/arm-smmu-v3 of Linux 7.3; registers are those of IHI0070 G.b section 6.3.
"""

import errno
import mmap
from collections.abc import Iterable
from typing import Any, Final

from iommuctl.errors import DeviceNotBound, KernelRefused
from iommuctl.hookspecs import Rows
from iommuctl.iommufd.session import HwInfo
from iommuctl.iommufd.uapi import IOMMU_HWPT_ALLOC_NEST_PARENT
from iommuctl.kernel import objects, viommus
from iommuctl.kernel.machine import Machine
from iommuctl_smmuv3 import uapi
from iommuctl_smmuv3.features import Features

KIND: Final = "arm-smmu-v3"
"""What the driver calls itself, in `Unit.kind`."""
UNITS: Final = "smmuv3.unit"
"""Rows, by the names of units: `registers` by name, and `obstacle`, why nothing nests there."""


def registers(info: HwInfo) -> dict[str, int]:
    """IDR0 to IDR5, IIDR and AIDR; none where the kernel tells nothing. Any length is taken, as kernels differ."""
    if info.type != uapi.IOMMU_HW_INFO_TYPE_ARM_SMMUV3:
        return {}
    size = 4 * (2 + 6 + 2)
    found = uapi.iommu_hw_info_arm_smmuv3.from_buffer_copy(info.data[:size].ljust(size, b"\0"))
    return {**{f"IDR{number}": value for number, value in enumerate(found.idr)}, "IIDR": found.iidr, "AIDR": found.aidr}


def learn(machine: Machine, unit: str, dev_id: int, info: HwInfo) -> None:
    """Note a unit's registers, and find out whether the kernel nests there, by trying it."""
    known, before = registers(info), records(machine.context.rows).get(unit)
    obstacle = _obstacle(machine, dev_id, known)
    if before is not None and not before["obstacle"]:
        # It nests for some of its devices, with tables that may be bound; of this one the kernel tells at its binding.
        obstacle = ""
    machine.context.rows.put(UNITS, unit, {"registers": known, "obstacle": obstacle})


def _obstacle(machine: Machine, dev_id: int, known: dict[str, int]) -> str:
    """What stands in the way of nesting; "" where nothing does."""
    if not known:
        return (
            "the kernel does not tell what the SMMU is: it was built without CONFIG_ARM_SMMU_V3_IOMMUFD, or is older"
            " than that"
        )
    features = Features.of(known)
    if lacking := [f"stage {stage}" for stage, has in ((1, features.s1p), (2, features.s2p)) if not has]:
        return f"the SMMU has no {' and no '.join(lacking)}: IDR0.S1P and IDR0.S2P tell"
    iommufd, kind = machine.iommufd, uapi.IOMMU_VIOMMU_TYPE_ARM_SMMUV3
    ioas = parent = viommu = events = 0
    try:
        ioas = objects.make(machine, iommufd.ioas_alloc)
        parent = objects.make(machine, lambda: iommufd.hwpt_alloc(dev_id, ioas, IOMMU_HWPT_ALLOC_NEST_PARENT))
        viommu = objects.make(machine, lambda: iommufd.viommu_alloc(dev_id, parent, kind)[0])
        events = viommus.event_queue(machine, viommu, kind, "")
    except KernelRefused as refused:
        if refused.errno == errno.EOPNOTSUPP and parent and not viommu:
            fwb = "" if features.fwb else ", and IDR3.FWB is 0"
            return (
                "the kernel cannot keep a guest's memory types from making DMA incoherent: the firmware does not say"
                f" CANWBS of the devices (IORT, memory access flags){fwb}; or it lacks CONFIG_ARM_SMMU_V3_IOMMUFD"
            )
        return f"{refused.what}: {refused.because}" if refused.because else refused.what
    finally:
        objects.destroy_later(machine, *filter(None, (events, viommu, parent, ioas)))
    return ""


def records(rows: Rows) -> dict[str, dict[str, Any]]:
    """What is known of units, by name."""
    return dict(rows.scan(UNITS))


def features_of(record: dict[str, Any]) -> Features:
    """What a unit can do; one that nobody tells of has the kernel's own pages, and stage 1 alone."""
    found = Features.of(record["registers"])
    if record["registers"]:
        return found
    return found._replace(s1p=True, aarch64=True, granules=(mmap.PAGESIZE,), oas=48)


def all_features(rows: Rows) -> Features:
    """What every unit can that is known. Raises DeviceNotBound as long as there is none."""
    found = [features_of(record) for record in records(rows).values()]
    if not found:
        raise DeviceNotBound(
            "what the SMMU can do is not known yet",
            because="the kernel tells it of a device that is bound",
            hint="`iommuctl device bind RID` first; `iommuctl device list` names them",
        )
    return _weakest(found)


def obstacle(rows: Rows) -> str:
    """Why page tables nest behind none of the units that are known; "" where they do behind some."""
    found = records(rows)
    if any(not record["obstacle"] for record in found.values()):
        return ""
    return next((f"{name}: {record['obstacle']}" for name, record in found.items()), "")


def _weakest(found: Iterable[Features]) -> Features:
    first, *others = found
    for other in others:
        first = first._replace(
            **{name: min(getattr(first, name), getattr(other, name)) for name in ("oas", "ssid_bits", "vax")},
            **{name: getattr(first, name) and getattr(other, name) for name in ("s1p", "s2p", "asid16", "ril", "xnx")},
            granules=tuple(size for size in first.granules if size in other.granules),
        )
    return first
