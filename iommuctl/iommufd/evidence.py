# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells, by calls that change nothing, about why it refused another one."""

import errno
import os
from ctypes import Structure, addressof, sizeof
from fcntl import ioctl
from typing import Any

from iommuctl.iommufd import uapi

_CAP_IPC_LOCK = 14
_STATUS = "/proc/self/status"
_ADDRESS_SPACES = ("ioas_id", "dst_ioas_id", "src_ioas_id")
_OF_DEVICES = ("dev_id",)
_OTHERS = ("pt_id", "hwpt_id", "viommu_id", "object_id", "fault_id")


def _error(fd: int, request: int, argument: Structure) -> int:
    """The error number of a call, 0 for none."""
    try:
        ioctl(fd, request, argument)
    except OSError as error:
        return error.errno or 0
    return 0


def exists(fd: int, object_id: int) -> bool:
    """Whether an object of any kind has the id: an invalidation of nothing looks it up, and does no more."""
    return _invalidation_of_nothing(fd, object_id, 0) != errno.ENOENT


def invalidates(fd: int, object_id: int, data_type: int) -> bool:
    """Whether an object takes requests of a type."""
    return not _invalidation_of_nothing(fd, object_id, data_type)


def takes_no_requests(fd: int, object_id: int) -> bool:
    """Whether an object is a page table whose invalidations are not its own."""
    return _invalidation_of_nothing(fd, object_id, 0) == errno.EOPNOTSUPP


def _invalidation_of_nothing(fd: int, object_id: int, data_type: int) -> int:
    size = sizeof(uapi.iommu_hwpt_invalidate)
    probe = uapi.iommu_hwpt_invalidate(size=size, hwpt_id=object_id, data_type=data_type)
    return _error(fd, uapi.IOMMU_HWPT_INVALIDATE, probe)


def ranges(fd: int, ioas_id: int) -> tuple[list[tuple[int, int]], int] | None:
    """The ranges of an address space and the alignment, or None if there is no such address space."""
    argument = uapi.iommu_ioas_iova_ranges(size=sizeof(uapi.iommu_ioas_iova_ranges), ioas_id=ioas_id)
    _error(fd, uapi.IOMMU_IOAS_IOVA_RANGES, argument)
    array = (uapi.iommu_iova_range * argument.num_iovas)()
    argument.allowed_iovas = addressof(array)
    if _error(fd, uapi.IOMMU_IOAS_IOVA_RANGES, argument):
        return None
    return [(one.start, one.last) for one in array], argument.out_iova_alignment


def hw_type(fd: int, dev_id: int) -> int | None:
    """What the IOMMU of a device is, IOMMU_HW_INFO_TYPE_*; 0 where it does not tell. None for what is no device."""
    argument = uapi.iommu_hw_info(size=sizeof(uapi.iommu_hw_info), dev_id=dev_id)
    if _error(fd, uapi.IOMMU_GET_HW_INFO, argument):
        return None
    kind: int = argument.out_data_type
    return kind


def _is_device(fd: int, dev_id: int) -> bool:
    argument = uapi.iommu_hw_info(size=sizeof(uapi.iommu_hw_info), dev_id=dev_id)
    return _error(fd, uapi.IOMMU_GET_HW_INFO, argument) != errno.ENOENT


def missing(fd: int, argument: Structure) -> str:
    """Which id of a call names nothing, or no object of the right kind; empty if that cannot be told."""
    for name, *_ in argument._fields_:
        value = getattr(argument, name)
        if name in _ADDRESS_SPACES and ranges(fd, value) is None:
            return _no("address space", fd, name, value)
        if name in _OF_DEVICES and not _is_device(fd, value):
            return _no("device", fd, name, value)
        if name in _OTHERS and not exists(fd, value) and (value or name not in ("object_id", "fault_id")):
            return f"no object has the id {value} (field {name})"
    return ""


def _no(kind: str, fd: int, name: str, value: int) -> str:
    if exists(fd, value):
        return f"object {value} is no {kind} (field {name})"
    return f"no object has the id {value} (field {name})"


def range_refused(fd: int, argument: Any) -> str:
    """Which field of a mapping is wrong; empty if none is by what can be known."""
    names = [name for name, *_ in argument._fields_]
    at, into = ("dst_iova", "dst_ioas_id") if "dst_iova" in names else ("iova", "ioas_id")
    iova, length, flags = getattr(argument, at), argument.length, argument.flags
    if not flags & (uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE):
        return "neither reading nor writing is allowed (field flags)"
    if not length:
        return "the length is 0 (field length)"
    found = ranges(fd, getattr(argument, into))
    if not found:
        return ""
    allowed, alignment = found
    for name in (at, "length", "user_va", "start"):
        if name in names and getattr(argument, name) % alignment:
            return f"{getattr(argument, name):#x} is not a multiple of {alignment:#x}, the alignment (field {name})"
    if not any(first <= iova and iova + length - 1 <= last for first, last in allowed):
        listed = ", ".join(f"{first:#x}..{last:#x}" for first, last in allowed[:8])
        return (
            f"{iova:#x}..{iova + length - 1:#x} is not all within the ranges that are allowed: {listed} (field {at}); "
            "others are reserved, or out of a device's reach"
        )
    return _file_refused(argument) if "fd" in names else ""


def _file_refused(argument: Any) -> str:
    size = os.fstat(argument.fd).st_size
    if argument.start + argument.length > size:
        return f"the file ends at {size:#x}, before start {argument.start:#x} and length {argument.length:#x} do"
    return f"{argument.fd} is not a memfd, a file of a tmpfs or of hugetlbfs (field fd)"


def locked_memory(length: int) -> tuple[str, str]:
    """Why memory could not be pinned, and what to do: the limit of locked memory, unless this process has none."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    with open(_STATUS, encoding="ascii") as file:
        capabilities = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff"))
    if limit == resource.RLIM_INFINITY or capabilities >> _CAP_IPC_LOCK & 1:
        return "the kernel has no memory for it; no limit of locked memory is in the way", ""
    asked = f", and {length >> 10} KiB more are to be" if length else ""
    return (
        f"RLIMIT_MEMLOCK lets this user lock {limit >> 10} KiB, other pinned memory of the user included{asked}",
        "raise it: `ulimit -l unlimited`, LimitMEMLOCK=infinity in a systemd unit, or give CAP_IPC_LOCK",
    )
