# SPDX-License-Identifier: Apache-2.0
"""Why the kernel refused a call on a VFIO device, and what to do: from its error and from what /sys and /proc show.

Sources: drivers/vfio/device_cdev.c, drivers/vfio/vfio_main.c, drivers/iommu/iommufd/device.c, drivers/iommu/iommu.c and
drivers/vfio/pci/vfio_pci_dmabuf.c of Linux 7.3.
"""

import errno
import os

from iommuctl.errors import (
    BackendUnavailable,
    GroupNotViable,
    IommuError,
    KernelRefused,
    NoSuchDevice,
    PermissionRefused,
)
from iommuctl.iommufd.holders import Holders, holders, node_numbers
from iommuctl.iommufd.sysfs import Sysfs
from iommuctl.iommufd.viability import check_viable
from iommuctl.model import Rid

LOG_MAY_TELL = "the kernel log may say more: dmesg | tail"
Reasons = dict[int, tuple[str, str]]
"""Why and what to do, by errno."""


def of_open(sysfs: Sysfs, name: str, node: str, error: OSError) -> IommuError:
    """The node could not be opened."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionRefused(
            f"{node} cannot be opened",
            because="only its owner may use the device",
            hint=f"run it as root, or give the device away: chown USER {node}",
        )
    folder = sysfs.path("class/vfio-dev", name)
    if error.errno not in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return _refused(f"to open {node}", error, {})
    if not os.path.isdir(folder):
        return NoSuchDevice(
            f"there is no VFIO device {name}",
            because="no VFIO driver has such a device, or not any more",
            hint="give a device to vfio-pci with `iommuctl device bind RID`",
        )
    number = sysfs.cdev_number(name)
    if number is None:
        return BackendUnavailable(
            f"{name} has no node",
            because=f"{folder} has no file `dev`: the kernel was built without CONFIG_VFIO_DEVICE_CDEV",
            hint="use a kernel with CONFIG_VFIO_DEVICE_CDEV=y",
        )
    return BackendUnavailable(
        f"{node} does not exist",
        because=f"the kernel has the device {number}, but nothing made its node here: udev, or the container's /dev",
        hint=f"udevadm trigger; in a container pass {os.path.dirname(node)} in; "
        f"or mknod {node} c {number.replace(':', ' ')}",
    )


def of_bind(sysfs: Sysfs, name: str, rid: Rid | None, error: OSError) -> IommuError:
    """BIND_IOMMUFD failed."""
    device = f"{rid} ({name})" if rid else name
    if error.errno == errno.EPERM:
        return _not_permitted(sysfs, rid, device, error)
    group = sysfs.device(rid).group if rid else None
    exec_hint = f"run the program that is to use it as `iommuctl exec --device {rid or 'RID'} -- PROGRAM`"
    reasons: Reasons = {
        errno.EINVAL: (
            "a device is bound once, by one open file, and "
            + _others(holders(*node_numbers(sysfs.node(name))), "has the node open")
            + "; otherwise its DMA is not coherent, or it is a virtual function that needs a token",
            exec_hint,
        ),
        errno.EBUSY: (
            f"the older interface is in use: /dev/vfio/{group} is open in "
            + str(holders(*node_numbers(os.path.join(sysfs.dev, "vfio", str(group))))),
            "end the program that uses it; the two interfaces exclude each other",
        ),
        errno.ENODEV: ("the driver is giving the device up", "look at it with `iommuctl device list`"),
        errno.EBADFD: ("field iommufd is no /dev/iommu", LOG_MAY_TELL),
        errno.EBADF: ("field iommufd is no open file", LOG_MAY_TELL),
    }
    return _refused(f"VFIO_DEVICE_BIND_IOMMUFD of {device}", error, reasons)


def _not_permitted(sysfs: Sysfs, rid: Rid | None, device: str, error: OSError) -> IommuError:
    """EPERM: the group belongs to someone else, or nothing keeps the device from raising others' interrupts."""
    siblings: tuple[int, ...] = ()
    if rid is not None:
        here = sysfs.device(rid)
        try:
            check_viable(sysfs, here)
        except GroupNotViable as found:
            return found
        members = sysfs.group(here.group).members if here.group is not None else ()
        others = [sysfs.device(member.rid).cdev for member in members if member.rid and member.rid != rid]
        siblings = node_numbers(*(sysfs.node(cdev) for cdev in others if cdev))
    who = holders(*siblings)
    if who.found:
        because = f"another device of its IOMMU group is bound to another iommufd: open in {who}"
        hint = "a group has one iommufd: release that device there, or use this one there too"
    else:
        because = "the platform does not isolate interrupts: a device could raise those of others by DMA"
        hint = (
            "switch interrupt remapping on; or, if you trust the device, "
            f"echo Y > {sysfs.path('module/iommufd/parameters/allow_unsafe_interrupts')}"
        )
    return _refused(f"VFIO_DEVICE_BIND_IOMMUFD of {device}", error, {errno.EPERM: (because, hint)})


def of_attach(sysfs: Sysfs, rid: Rid | None, table: int, slot: str, error: OSError) -> KernelRefused:
    """ATTACH_IOMMUFD_PT failed."""
    group = sysfs.device(rid).group if rid else None
    ranges = [
        f"{first:#x}..{last:#x} ({kind})"
        for first, last, kind in (sysfs.group(group).reserved if group is not None else ())
        if kind != "direct-relaxable"
    ]
    wrong = (
        "another device of its IOMMU group has another page table, or the table was not made for this IOMMU or is "
        "without the PASID flag while PASIDs are in use, or has a fault queue and the device is a virtual function, "
        "whose PRI is that of the physical one"
        if "PASID" not in slot
        else "field pasid is beyond what the group's devices have, or this table or that of the RID is without the "
        "PASID flag"
    )
    reasons: Reasons = {
        errno.EINVAL: (wrong, "make the table for this device: `iommuctl device show` tells its unit and its group"),
        errno.EADDRINUSE: (
            f"mappings, or windows that are kept free, touch IOVAs that the device reserves: {', '.join(ranges)}",
            "unmap what lies there, and map it elsewhere",
        ),
        errno.EFAULT: (
            "memory behind a mapping is gone: the process that it belonged to has ended",
            "unmap it, and map a file or a memfd instead",
        ),
        errno.ENOMEM: (
            "the pages of the mappings cannot be pinned: the limit of locked memory (RLIMIT_MEMLOCK) is reached, "
            "or memory is short",
            "raise the limit with `ulimit -l`, or run it with CAP_IPC_LOCK",
        ),
        errno.EBUSY: (
            "the device or one of its group is being reset, or the slot is in use by another table",
            "detach PASIDs first, or try again when the reset is over",
        ),
        errno.ENODEV: (
            "the table has a fault queue, and Linux has not enabled the device's PRI, for which it wants ATS, and of a "
            "device with PASIDs that its answers need them; or the IOMMU has no entry for the device",
            "take a table without fault queue: `iommuctl fault handler clear`",
        ),
        errno.ENOENT: (
            f"field pt_id: there is no object {table}, or it is nested on a vIOMMU where the device has no number yet",
            "nested tables of a vIOMMU need IOMMU_VDEVICE_ALLOC first",
        ),
        errno.EOPNOTSUPP: ("the IOMMU's driver cannot put such a table into a slot of a PASID", ""),
    }
    return _refused(f"VFIO_DEVICE_ATTACH_IOMMUFD_PT of table {table} to {slot}", error, reasons)


def of_detach(slot: str, error: OSError) -> KernelRefused:
    """DETACH_IOMMUFD_PT failed; an empty slot is no error."""
    reasons: Reasons = {
        errno.EINVAL: ("the descriptor is not bound, or this kernel has no PASIDs here", ""),
        errno.EOPNOTSUPP: ("its VFIO driver has no PASIDs", ""),
    }
    return _refused(f"VFIO_DEVICE_DETACH_IOMMUFD_PT of {slot}", error, reasons)


def of_looking(call: str, device: str, error: OSError) -> KernelRefused:
    """GET_INFO or GET_REGION_INFO failed."""
    return _refused(
        f"{call} of {device}",
        error,
        {errno.EINVAL: ("the descriptor is not bound to an iommufd, or there is no such region", "")},
    )


def of_dma_buf(device: str, bar: int, offset: int, size: int, error: OSError) -> KernelRefused:
    """FEATURE_DMA_BUF failed."""
    reasons: Reasons = {
        errno.EINVAL: (
            f"{offset:#x}+{size:#x} is not in BAR {bar}, or not made of whole pages, or the BAR is not memory",
            "take a range of whole pages inside of the BAR",
        ),
        errno.ENODEV: (f"the device has no BAR {bar}", ""),
        errno.ENOTTY: ("this kernel gives out no BARs as dma-bufs", "use a kernel with CONFIG_VFIO_PCI_DMABUF"),
        errno.EOPNOTSUPP: ("its VFIO driver gives out no BARs as dma-bufs", ""),
    }
    return _refused(f"VFIO_DEVICE_FEATURE_DMA_BUF of {device}", error, reasons)


def _refused(call: str, error: OSError, reasons: Reasons) -> KernelRefused:
    number = error.errno or 0
    # Python's table has a synonym of EOPNOTSUPP.
    symbol = "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode.get(number, str(number))
    missing: Reasons = {errno.ENOTTY: ("this kernel has no such call", "use a newer kernel")}
    because, hint = (missing | reasons).get(number, (os.strerror(number), LOG_MAY_TELL))
    return KernelRefused(f"the kernel refused {call}: {symbol}", errno=number, because=because, hint=hint)


def _others(who: Holders, have: str) -> str:
    others = Holders(tuple(holder for holder in who.found if holder.pid != os.getpid()), who.unreadable)
    return f"{others} {have}" if others.found else "this process may have bound it already"
