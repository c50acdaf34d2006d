# SPDX-License-Identifier: Apache-2.0
"""Where named memory comes from: files that the kernel can map for DMA, each as an open descriptor.

IOMMU_IOAS_MAP_FILE takes memfds, files of tmpfs and hugetlbfs, and dma-bufs (drivers/iommu/iommufd/pages.c).
"""

import ctypes
import errno
import os
import stat

from iommuctl.errors import KernelRefused, NoRoom, OutsideMemory, PermissionRefused, SystemFailed, Unsupported

_PIDFD_GETFD = 438
"""The number of the system call, on every architecture."""
_TMPFS, _HUGETLBFS = 0x01021994, 0x958458F6


def new(name: str, size: int, *, hugepages: bool = False) -> int:
    """A memfd of `size` bytes, all zero. Raises NoRoom, Unsupported where the kernel has no huge pages."""
    try:
        made = os.memfd_create(f"iommuctl:{name}", os.MFD_CLOEXEC | (os.MFD_HUGETLB if hugepages else 0))
    except OSError as error:
        raise Unsupported(
            f"no memory file for {name}",
            because=f"{error.strerror}",
            hint="leave --hugepages away" if hugepages else "",
        ) from None
    try:
        os.ftruncate(made, size)
        if hugepages:
            # Huge pages are taken when they are touched, and a device's touch of one that is not there is a fault.
            os.posix_fallocate(made, 0, size)
    except OSError as error:
        os.close(made)
        if error.errno == errno.EINVAL and hugepages:
            because = f"{size:#x} bytes are not a whole number of huge pages"
            raise Unsupported(f"no memory of huge pages for {name}", because=because) from None
        raise NoRoom(
            f"no memory of {size:#x} bytes",
            because=f"{error.strerror}",
            hint="see HugePages_Free in /proc/meminfo; `sysctl vm.nr_hugepages=N` reserves some" if hugepages else "",
        ) from None
    return made


def of_file(path: str, size: int) -> int:
    """A file of that size, made if there is none; the size of an old one must do. Raises OutsideMemory, Unsupported."""
    try:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
    except OSError as error:
        kind = PermissionRefused if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else SystemFailed
        raise kind(f"{path} cannot be opened", because=f"{error.strerror}".lower()) from None
    try:
        _check_mappable(opened, path)
        if os.fstat(opened).st_size == 0:
            _check_room(opened, path, size)
            # No fallocate: tmpfs clears pages that come from it when a process first looks at them, and what a device
            # has written there by then is gone (mm/shmem.c of Linux 7.3).
            os.ftruncate(opened, size)
        _check_size(opened, path, size)
    except BaseException:
        os.close(opened)
        raise
    return opened


def of_process(pid: int, descriptor: int, size: int) -> int:
    """A copy of another process's descriptor, a VMM's memfd. Raises PermissionRefused, KernelRefused, Unsupported."""
    what = f"descriptor {descriptor} of process {pid}"
    try:
        process = os.pidfd_open(pid)
    except OSError as error:
        raise KernelRefused(f"no process {pid}", errno=error.errno or 0, because=f"{error.strerror}".lower()) from None
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        copied: int = libc.syscall(_PIDFD_GETFD, process, descriptor, 0)
        number = ctypes.get_errno()
    finally:
        os.close(process)
    if copied < 0:
        if number == errno.EPERM:
            raise PermissionRefused(
                f"{what} cannot be copied",
                because="that takes the right to trace the process",
                hint="run as root, or as the same user where /proc/sys/kernel/yama/ptrace_scope is 0",
            )
        because = "it has no such descriptor" if number == errno.EBADF else os.strerror(number).lower()
        raise KernelRefused(f"{what} cannot be copied", errno=number, because=because)
    try:
        _check_mappable(copied, what)
        _check_size(copied, what, size)
    except BaseException:
        os.close(copied)
        raise
    return copied


def _check_mappable(descriptor: int, what: str) -> None:
    """What the kernel would refuse only when a device is attached."""
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    if not regular or _file_system(descriptor) not in (_TMPFS, _HUGETLBFS):
        raise Unsupported(
            f"{what} cannot be mapped for DMA",
            because="the kernel maps memfds and files of tmpfs and hugetlbfs"
            + ("" if regular else ", and this is no regular file"),
            hint="a file that survives the keeper can lie in /dev/shm",
        )


def _check_room(descriptor: int, path: str, size: int) -> None:
    there = os.fstatvfs(descriptor)
    if size > there.f_bavail * there.f_frsize:
        because = f"its file system has room for {there.f_bavail * there.f_frsize:#x}"
        raise NoRoom(f"{path} cannot have {size:#x} bytes", because=because, hint="make room, or ask for less")


def _check_size(descriptor: int, what: str, size: int) -> None:
    there = os.fstat(descriptor).st_size
    if there < size:
        raise OutsideMemory(f"{size:#x} bytes are not in {what}", because=f"it has {there:#x}")


def _file_system(descriptor: int) -> int:
    """The magic number of the file system that a file lies in: `statfs.f_type`, which Python does not show."""
    libc = ctypes.CDLL(None, use_errno=True)
    # The largest struct statfs of 64-bit Linux has 120 bytes; f_type is its first long.
    buffer = (ctypes.c_long * 32)()
    if libc.fstatfs(descriptor, buffer):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(buffer[0])
