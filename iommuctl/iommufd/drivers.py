# SPDX-License-Identifier: Apache-2.0
"""A device goes to vfio-pci and back to its driver, by driver_override. No module is loaded.

Whoever calls `bind_to_vfio` writes down RID, driver and driver_override first: from any point in the middle `give_back`
restores them. Sources: drivers/base/bus.c, drivers/pci/pci-driver.c and drivers/vfio/vfio_main.c of Linux 7.3.
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, NoReturn

from iommuctl.errors import InUse, IommuError, KernelRefused, PermissionRefused, Unsupported
from iommuctl.iommufd.bounded import StillWriting, write_bounded
from iommuctl.iommufd.holders import holders, node_numbers
from iommuctl.iommufd.kernel_log import KernelLog
from iommuctl.iommufd.sysfs import PciDevice, Sysfs
from iommuctl.iommufd.viability import VFIO_PCI, check_viable
from iommuctl.model import Rid

NO_OVERRIDE: Final = "\n"

Writer = Callable[[str, str], None]


class Write(NamedTuple):
    """One write to sysfs."""

    path: str
    text: str


def to_vfio(sysfs: Sysfs, device: PciDevice) -> list[Write]:
    """The writes that bring a device to vfio-pci, in their order; none if a VFIO driver has it already."""
    if device.vfio is not None or device.driver == VFIO_PCI:
        return []
    steps = [_override(sysfs, device.rid, VFIO_PCI)]
    if device.driver is not None:
        steps.append(_unbind(sysfs, device.rid, device.driver))
    return [*steps, Write(sysfs.path("bus/pci/drivers_probe"), str(device.rid))]


def back(sysfs: Sysfs, device: PciDevice, driver: str | None, override: str | None) -> list[Write]:
    """The writes that restore driver and override, from whatever state the device is in.

    A driver that took the device meanwhile and is neither the old one nor vfio-pci keeps it. The old driver comes by
    an override too: what it once had the device by may be gone.
    """
    steps = []
    shown = device.driver_override
    if device.driver != driver and device.driver in (None, VFIO_PCI):
        shown = driver or override
        steps.append(_override(sysfs, device.rid, shown))
        if device.driver is not None:
            steps.append(_unbind(sysfs, device.rid, device.driver))
        if driver is not None:
            steps.append(Write(sysfs.path("bus/pci/drivers", driver, "bind"), str(device.rid)))
    if shown != override:
        steps.append(_override(sysfs, device.rid, override))
    return steps


def bind_to_vfio(sysfs: Sysfs, rid: Rid, write: Writer = write_bounded) -> str | None:
    """Give a device to vfio-pci and return the driver that it had. One that a VFIO driver has stays with it.

    Raises NoSuchDevice, GroupNotViable, Unsupported, InUse, PermissionRefused and KernelRefused, with driver and
    override as before.
    """
    before = sysfs.device(rid)
    check_viable(sysfs, before)
    if not to_vfio(sysfs, before):
        return before.driver
    _check_vfio_can_take(sysfs, before)
    try:
        with KernelLog() as log:
            for step in to_vfio(sysfs, before):
                _carry_out(sysfs, before, step, write)
            if sysfs.device(rid).driver != VFIO_PCI:
                _refused_by_vfio(before, log.last_about(str(rid)))
    except BaseException as error:
        _restore(sysfs, before, error, write)
        raise
    return before.driver


def give_back(
    sysfs: Sysfs, rid: Rid, driver: str | None, override: str | None, write: Writer = write_bounded
) -> str | None:
    """Restore what `bind_to_vfio` found, also after it was killed in the middle; returns the driver that has it now.

    Raises NoSuchDevice; InUse if somebody holds the device open, with nothing changed; PermissionRefused;
    KernelRefused, also if the old driver does not take it, with the override restored.
    """
    device = sysfs.device(rid)
    if device.driver == VFIO_PCI != driver:
        _check_not_held(sysfs, device)
    try:
        for step in back(sysfs, device, driver, override):
            _carry_out(sysfs, device, step, write)
    except IommuError as error:
        if not isinstance(error, PermissionRefused):
            with suppress(IommuError):
                _carry_out(sysfs, device, _override(sysfs, rid, override), write)
        raise
    now = sysfs.device(rid).driver
    if now is None and driver is not None:
        raise KernelRefused(
            f"driver {driver} did not take {rid} back",
            because="its probe failed; the kernel log says why",
            hint=f"dmesg | grep {rid}",
        )
    return now


def _override(sysfs: Sysfs, rid: Rid, driver: str | None) -> Write:
    return Write(sysfs.device_path(rid, "driver_override"), driver or NO_OVERRIDE)


def _unbind(sysfs: Sysfs, rid: Rid, driver: str) -> Write:
    return Write(sysfs.path("bus/pci/drivers", driver, "unbind"), str(rid))


def _check_vfio_can_take(sysfs: Sysfs, device: PciDevice) -> None:
    """What vfio-pci would refuse, told before anything is changed."""
    if not sysfs.has_driver(VFIO_PCI):
        raise KernelRefused(
            f"{device.rid} cannot go to {VFIO_PCI}",
            because=f"the driver {VFIO_PCI} is not loaded",
            hint=f"modprobe {VFIO_PCI}",
        )
    if device.group is None:
        raise Unsupported(
            f"{device.rid} is behind no IOMMU",
            because="it is in no IOMMU group",
            hint="switch the IOMMU on, in the firmware and on the kernel's command line; where it is, the kernel's log"
            " tells why it has left the device out",
        )
    if device.class_code >> 16 == 0x06 and device.class_code >> 8 & 0xFF in (0x04, 0x09):
        raise Unsupported(f"{device.rid} is a bridge", because=f"{VFIO_PCI} takes no bridges")
    if count := sysfs.virtual_functions(device.rid):
        raise InUse(
            f"{device.rid} has {count} virtual functions",
            because=f"{VFIO_PCI} takes a physical function only while they are switched off",
            hint=f"echo 0 > {sysfs.device_path(device.rid, 'sriov_numvfs')}, or bind a virtual function",
        )


def _numbers(sysfs: Sysfs, device: PciDevice) -> tuple[int, ...]:
    """The device numbers by which a device can be open: of its cdev, and of its group in the older interface."""
    legacy = os.path.join(sysfs.dev, "vfio", str(device.group))
    return node_numbers(legacy, *([sysfs.node(device.cdev)] if device.cdev else []))


def _check_not_held(sysfs: Sysfs, device: PciDevice) -> None:
    who = holders(*_numbers(sysfs, device))
    if who.found:
        raise InUse(
            f"{device.rid} cannot be taken from {VFIO_PCI}",
            because=f"it is open in {who}, and the kernel would wait until it is closed",
            hint="end what holds it, or have it close the device",
        )


def _carry_out(sysfs: Sysfs, device: PciDevice, step: Write, write: Writer) -> None:
    numbers = _numbers(sysfs, device) if step.path.endswith("/unbind") else ()
    try:
        write(step.path, step.text)
    except StillWriting as error:
        who = f"open in {holders(*numbers)}" if numbers else f"still in use by driver {device.driver}"
        raise KernelRefused(
            f"the kernel does not finish {_said(step)} within {error.seconds:g} s",
            because=f"{device.rid} is {who}; process {error.pid} waits for the kernel",
            hint=f"end what uses {device.rid}; once the kernel is done it has no driver, and can be bound to any",
        ) from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise PermissionRefused(
                f"{_said(step)} is not permitted",
                because="the file system is read-only, as in a container"
                if error.errno == errno.EROFS
                else "only root may change drivers",
                hint="run it as root, on the host",
            ) from None
        if sysfs.device(device.rid).driver is None and step.path.endswith("/unbind"):
            return  # somebody was faster
        raise KernelRefused(
            f"{_said(step)} failed: {errno.errorcode.get(error.errno or 0, error.errno)}",
            errno=error.errno or 0,
            because="that driver is not loaded any more" if error.errno == errno.ENOENT else f"{error.strerror}",
            hint=f"the kernel log may say more: dmesg | grep {device.rid}",
        ) from None


def _said(step: Write) -> str:
    return f"`echo {step.text.strip()} > {step.path}`"


def _refused_by_vfio(device: PciDevice, message: str) -> NoReturn:
    raise KernelRefused(
        f"{VFIO_PCI} did not take {device.rid}",
        because=f"its probe failed{message and ': '}{message}; driver and driver_override are as before",
        hint=f"the kernel log may say more: dmesg | grep {device.rid}",
    )


def _restore(sysfs: Sysfs, before: PciDevice, error: BaseException, write: Writer) -> None:
    """Undo what was done. An undo that fails is told with the first error."""
    try:
        give_back(sysfs, before.rid, before.driver, before.driver_override, write)
    except IommuError as second:
        if isinstance(error, IommuError) and (second.what, second.because) != (error.what, error.because):
            error.because = f"{error.because}; {second.what} either: {second.because}"
