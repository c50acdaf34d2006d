# SPDX-License-Identifier: Apache-2.0
"""What an error number of an iommufd call means: which field is to blame, why, and what to do.

Source: drivers/iommu/iommufd/{main,ioas,io_pagetable,pages,hw_pagetable,device}.c of Linux 7.3. One number has several
causes; the kernel is asked, by calls that change nothing, for the facts that tell them apart.
"""

import errno
import os
import stat
from ctypes import Structure

from iommuctl.errors import BackendUnavailable, KernelRefused, PermissionRefused
from iommuctl.iommufd import evidence, viommu_refusals
from iommuctl.iommufd.viommu_refusals import Explain, Words

_NOT_COUNTED = ("ENOTTY", "E2BIG", "EFAULT", "EBADF", "ENOMEM")
"""Errors on which the kernel leaves the number of requests as it was: none has been carried out."""
_NO_ID = "an id is not that of such an object"


class InvalidationRefused(KernelRefused):
    """An invalidation failed on the way, at the request of index `done`.

    Those before it have been carried out, where the driver carries out one at a time; one that passes batches on to the
    hardware has not sent the last batch.
    """

    def __init__(self, what: str, *, errno: int, done: int, because: str = "", hint: str = "") -> None:
        super().__init__(what, errno=errno, because=because, hint=hint)
        self.done = done


def not_opened(path: str, error: OSError) -> BackendUnavailable | PermissionRefused:
    """The error for a device file of iommufd that cannot be opened."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionRefused(
            f"{path} cannot be opened",
            because=_owner(path),
            hint='run as root, or give a group access: a udev rule KERNEL=="iommu", GROUP="…", MODE="0660"',
        )
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return BackendUnavailable(
            f"there is no {path}",
            because="the kernel was built without CONFIG_IOMMUFD, or the module is not loaded",
            hint="modprobe iommufd; `zgrep IOMMUFD /proc/config.gz` tells whether the kernel has it",
        )
    return BackendUnavailable(f"{path} cannot be opened", because=os.strerror(error.errno or 0))


def _owner(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return f"user {os.geteuid()} may not enter its folder"
    mode = stat.S_IMODE(status.st_mode)
    return f"it belongs to user {status.st_uid}, group {status.st_gid}, mode {mode:o}; this is user {os.geteuid()}"


def refused(fd: int, name: str, argument: Structure, number: int) -> KernelRefused:
    """The error for a call (`IOMMU_IOAS_MAP`) that failed with this number on the iommufd `fd`."""
    symbol = _symbol(number)
    said = _CALLS.get(name, {}).get(symbol) or _COMMON.get(symbol, ("", ""))
    because, hint = said(fd, argument) if callable(said) else said
    values = {field: getattr(argument, field) for field, *_ in argument._fields_}
    because, hint = because.format(**values), hint.format(**values)
    what = f"the kernel refused {name}: {symbol}"
    if name == "IOMMU_HWPT_INVALIDATE":
        done = 0 if symbol in _NOT_COUNTED else argument.entry_num
        return InvalidationRefused(what, errno=number, done=done, because=because, hint=hint)
    return KernelRefused(what, errno=number, because=because, hint=hint)


def _symbol(number: int) -> str:
    """The kernel's name of an error, where Python's table has a synonym of it."""
    return "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode.get(number, str(number))


def _missing(fd: int, argument: Structure) -> Words:
    return evidence.missing(fd, argument) or _NO_ID, ""


def _not_mapped(fd: int, argument: Structure) -> Words:
    if wrong := evidence.missing(fd, argument):
        return wrong, ""
    return (
        "no mapping lies wholly in {iova:#x}+{length:#x}, or one lies in it only in part (fields iova, length)",
        "unmap whole mappings, as they were mapped",
    )


def _no_source(fd: int, argument: Structure) -> Words:
    if wrong := evidence.missing(fd, argument):
        return wrong, ""
    return "{src_iova:#x}+{length:#x} of address space {src_ioas_id} is not all mapped (fields src_iova, length)", ""


def _range(fd: int, argument: Structure) -> Words:
    return evidence.range_refused(fd, argument) or "flags, an address or the length", ""


def _memory(_fd: int, argument: Structure) -> Words:
    return evidence.locked_memory(getattr(argument, "length", 0))


def _no_table(fd: int, argument: Structure) -> Words:
    if not evidence.exists(fd, argument.pt_id):
        return "no object has the id {pt_id} (field pt_id)", ""
    if (not argument.data_type) != (not argument.data_len):
        return "a type needs a payload, and a payload a type (fields data_type {data_type:#x}, data_len {data_len})", ""
    if evidence.ranges(fd, argument.pt_id):
        return "a mapping of address space {pt_id} cannot be pinned: it goes beyond the end of its file", ""
    return (
        "{pt_id} is neither a nest parent nor a vIOMMU of the device's IOMMU, or data_len {data_len} is not the length "
        "of payload {data_type:#x} (fields pt_id, data_len)",
        "",
    )


_WHERE = "{iova:#x}+{length:#x} (fields iova, length)"
_PINNED = "memory that is mapped cannot be pinned: it is not there, is read-only but mapped writable, or is a device's"
_PIN_HINT = "map memfds, and BARs as dma-bufs"
_FULL: dict[str, Words | Explain] = {
    "EEXIST": (f"something is mapped in {_WHERE}", "unmap it first: the kernel replaces no mapping"),
    "EINVAL": _range,
    "EOVERFLOW": (f"{_WHERE} goes beyond the last address", ""),
    "ENOMEM": _memory,
    "ENOSPC": ("no range of that length is free", ""),
}
_CALLS: dict[str, dict[str, Words | Explain]] = {
    **viommu_refusals.CALLS,
    "IOMMU_DESTROY": {
        "ENOENT": ("no object has the id {id} (field id)", ""),
        "EBUSY": (
            "something refers to object {id}: an object made on it, a device that is attached to it, or an open file",
            "destroy what was made on it first, detach its devices, close its fault or event file",
        ),
    },
    "IOMMU_IOAS_ALLOW_IOVAS": {
        "EADDRINUSE": (
            "a range touches what a device that is attached cannot use, or what is reserved (field allowed_iovas)",
            "stay within the ranges of IOMMU_IOAS_IOVA_RANGES",
        ),
        "EINVAL": ("a range does not end after its start, or two overlap (field allowed_iovas)", ""),
    },
    "IOMMU_IOAS_MAP": _FULL | {"EFAULT": (f"{_PINNED} (field user_va, {{user_va:#x}}+{{length:#x}})", _PIN_HINT)},
    "IOMMU_IOAS_MAP_FILE": _FULL
    | {
        "EBADF": ("{fd} is not an open file (field fd)", ""),
        "EFAULT": ("the file cannot be pinned (field fd)", _PIN_HINT),
        "EOPNOTSUPP": (
            "flags {flags:#x} has unknown bits, or the dma-buf {fd} is not one of VFIO's (fields flags, fd)",
            "map memfds, files of a tmpfs, or BARs exported by VFIO",
        ),
    },
    "IOMMU_IOAS_COPY": {
        "EEXIST": ("something is mapped in {dst_iova:#x}+{length:#x} (fields dst_iova, length)", "unmap it first"),
        "EINVAL": _range,
        "EOVERFLOW": ("{length:#x} bytes from src_iova or dst_iova go beyond the last address (field length)", ""),
        "ENOENT": _no_source,
        "EPERM": (
            "the memory was mapped read-only at {src_iova:#x}, and is to be writable (field flags)",
            "copy it read-only, or map it writable first",
        ),
        "ENOMEM": _memory,
        "EFAULT": (_PINNED, _PIN_HINT),
    },
    "IOMMU_IOAS_UNMAP": {
        "ENOENT": _not_mapped,
        "EINVAL": ("the length is 0 (field length)", ""),
        "EOVERFLOW": (f"{_WHERE} goes beyond the last address", ""),
        "EBUSY": (f"a mapping in {_WHERE} is locked by a hardware queue, or another process works on it", ""),
    },
    "IOMMU_IOAS_CHANGE_PROCESS": {
        "EINVAL": (
            "some mapping is of a process's own memory, which cannot change hands",
            "unmap it; map files (IOMMU_IOAS_MAP_FILE)",
        ),
        "ENOMEM": _memory,
        "EBUSY": ("another process maps or unmaps at this moment", "try again"),
    },
    "IOMMU_OPTION": {
        "EPERM": ("only CAP_SYS_RESOURCE may set option {option_id} (field option_id)", "run as root"),
        "EBUSY": ("the iommufd has objects already, and the option is for an empty one", ""),
        "EINVAL": ("value {val64} is not one that the option takes, or mappings stand against it (field val64)", ""),
        "EOPNOTSUPP": ("option {option_id} is unknown, or is not one of object {object_id}", ""),
    },
    "IOMMU_GET_HW_INFO": {"EOPNOTSUPP": ("device {dev_id} has no IOMMU that tells of itself (field dev_id)", "")},
    "IOMMU_HWPT_ALLOC": {
        "EADDRINUSE": (
            "what is mapped, or kept available by --width, lies beyond what the device's IOMMU translates, or where the"
            " device has reserved ranges (field pt_id {pt_id})",
            "`iommuctl domain show` lists the mappings; map lower addresses, or take another domain for this device",
        ),
        "EINVAL": _no_table,
        "EOPNOTSUPP": viommu_refusals.no_such_table,
        "ENODEV": ("device {dev_id} has no IOMMU (field dev_id)", ""),
        "ENOMEM": _memory,
        "EFAULT": (f"{_PINNED}, or the process that mapped it has ended", _PIN_HINT),
        "EIO": (
            "the IOMMU's driver refuses the payload: a field is not a guest's to set, or has a value that is not "
            "offered (field data_uptr)",
            "",
        ),
    },
    "IOMMU_HWPT_SET_DIRTY_TRACKING": {
        "EOPNOTSUPP": ("page table {hwpt_id} was not made for dirty tracking (field hwpt_id)", ""),
    },
    "IOMMU_HWPT_GET_DIRTY_BITMAP": {
        "EOPNOTSUPP": ("page table {hwpt_id} was not made for dirty tracking (field hwpt_id)", ""),
        "EINVAL": (
            f"{_WHERE} does not begin and end at multiples of page_size {{page_size:#x}} and of the alignment of IOVAs",
            "",
        ),
        "EOVERFLOW": (f"{_WHERE} goes beyond the last address", ""),
    },
    "IOMMU_FAULT_QUEUE_ALLOC": {"EMFILE": ("too many files are open", "raise `ulimit -n`")},
}
_COMMON: dict[str, Words | Explain] = {
    "ENOTTY": ("this kernel has no such call", "a newer kernel may have it"),
    "E2BIG": ("a field that this kernel does not know is not 0", "a newer kernel may know it"),
    "EOPNOTSUPP": ("the kernel knows the call, but not this value of flags or of a reserved field", ""),
    "ENOENT": _missing,
    "ENOMEM": ("the kernel has no memory for it", ""),
    "EFAULT": ("an address that was given is not readable, or not writable", ""),
    "EBADF": ("the iommufd is not open", ""),
}
