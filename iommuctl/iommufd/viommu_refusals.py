# SPDX-License-Identifier: Apache-2.0
"""What an error number means of the calls by which guests use an IOMMU: nested page tables, vIOMMUs, invalidations.

Source: drivers/iommu/iommufd/{viommu,eventq,hw_pagetable}.c of Linux 7.3, and what its drivers do with these calls.
"""

from collections.abc import Callable
from ctypes import Structure
from typing import Final

from iommuctl.iommufd import evidence, uapi

Words = tuple[str, str]
"""Why, and what to do."""
Explain = Callable[[int, Structure], Words]

_NO_TYPE: Final = 0
"""IOMMU_HW_INFO_TYPE_NONE."""
_SHOW = "`iommuctl device show` tells what it can do"


def no_such_table(_fd: int, argument: Structure) -> Words:
    """EOPNOTSUPP of IOMMU_HWPT_ALLOC."""
    if argument.data_type:
        return (
            "the IOMMU of device {dev_id} nests no table of type {data_type:#x} with flags {flags:#x} on {pt_id} "
            "(fields data_type, flags, pt_id): some nest on the parent's page table, others on a vIOMMU that was made "
            "on it, which may take no flags",
            _SHOW,
        )
    if argument.flags & uapi.IOMMU_HWPT_ALLOC_NEST_PARENT:
        return "the IOMMU of device {dev_id} has no nest parents, or none with flags {flags:#x} (field flags)", _SHOW
    return "the IOMMU of device {dev_id} has no tables with flags {flags:#x} (field flags)", _SHOW


def _no_viommu(fd: int, argument: Structure) -> Words:
    if evidence.hw_type(fd, argument.dev_id) == _NO_TYPE:
        return (
            "the IOMMU of device {dev_id} does not tell what it is (field dev_id): the kernel was built without that "
            "part of its driver which is for guests (CONFIG_…_IOMMUFD)",
            "",
        )
    return (
        "the IOMMU of device {dev_id} has no vIOMMU of type {type:#x} (fields dev_id, type): its driver has none, or "
        "the unit cannot nest, or a guest's tables could have DMA bypass caches, as neither the firmware calls the "
        "device's path coherent (CANWBS), nor the unit can force write-back (S2FWB)",
        "page tables cannot be bound here; domains can be attached",
    )


def _not_invalidated(fd: int, argument: Structure) -> Words:
    if evidence.invalidates(fd, argument.hwpt_id, argument.data_type):
        return "request {entry_num} is wrong, or {entry_len} bytes is not its length (fields data_uptr, entry_len)", ""
    if not argument.entry_len:
        return (
            "{hwpt_id} takes no requests of type {data_type:#x} (fields hwpt_id, data_type), or cannot be asked "
            "whether it does: no request is given",
            "",
        )
    return (
        "{hwpt_id} is neither a nested page table nor a vIOMMU, or it takes no requests of type {data_type:#x}, or "
        "none of {entry_len} bytes (fields hwpt_id, data_type, entry_len)",
        "",
    )


def _unknown_request(fd: int, argument: Structure) -> Words:
    if evidence.takes_no_requests(fd, argument.hwpt_id):
        return (
            "the IOMMU takes no requests by page table {hwpt_id} (field hwpt_id)",
            "pass them to the vIOMMU that the table was made on",
        )
    return "request {entry_num} has flags that are not known (field data_uptr)", ""


CALLS: dict[str, dict[str, Words | Explain]] = {
    "IOMMU_HWPT_INVALIDATE": {
        "EINVAL": _not_invalidated,
        "EOPNOTSUPP": _unknown_request,
        "EIO": (
            "request {entry_num} is no command that the IOMMU takes from a guest, or a field of it is reserved, or no "
            "vDEVICE has the number in it (field data_uptr)",
            "",
        ),
    },
    "IOMMU_VIOMMU_ALLOC": {
        "EOPNOTSUPP": _no_viommu,
        "EINVAL": (
            "page table {hwpt_id} is not a nest parent that was made for the IOMMU of device {dev_id} (fields hwpt_id, "
            "dev_id)",
            "make one for this device with IOMMU_HWPT_ALLOC_NEST_PARENT",
        ),
    },
    "IOMMU_VDEVICE_ALLOC": {
        "EEXIST": (
            "device {dev_id} is a vDEVICE already, or another one has the number {virt_id:#x} (fields dev_id, virt_id)",
            "destroy that vDEVICE first, or take another number",
        ),
        "EINVAL": (
            "device {dev_id} is not behind the IOMMU of vIOMMU {viommu_id} (field dev_id)",
            "make a vIOMMU for its own IOMMU",
        ),
        "EOPNOTSUPP": (
            "device {dev_id} has not exactly one number on its IOMMU (field dev_id): one behind a conventional bridge "
            "has the bridge's as well as its own",
            "page tables cannot be bound for it; domains can be attached",
        ),
    },
    "IOMMU_VEVENTQ_ALLOC": {
        "EOPNOTSUPP": ("there are no events of type {type:#x} (field type)", ""),
        "EINVAL": ("a queue has not room for {veventq_depth} events: 1 to 2^19 (field veventq_depth)", ""),
        "EEXIST": (
            "vIOMMU {viommu_id} has a queue for events of type {type:#x} already (fields viommu_id, type)",
            "read that one, or close its file and destroy it",
        ),
        "EMFILE": ("too many files are open", "raise `ulimit -n`"),
    },
}
