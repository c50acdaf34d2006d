# SPDX-License-Identifier: Apache-2.0
"""Devices that are bound to an iommufd for the time of a test, and a guest with one of them."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

import pytest

from iommuctl.errors import KernelRefused
from iommuctl.iommufd.drivers import bind_to_vfio, give_back
from iommuctl.iommufd.session import Iommufd
from iommuctl.iommufd.sysfs import Sysfs
from iommuctl.iommufd.vfio import Cdev
from iommuctl.model import Rid
from tests.hardware.conftest import lacking
from tests.hardware.edu import Edu
from tests.hardware.smmuv3.guest import SIZE, VSID, Guest, GuestMemory
from tests.hardware.smmuv3.nested import Nested

EDU = Rid(0, 0, 0x10, 0)


@pytest.fixture
def session() -> Iterator[Iommufd]:
    with contextlib.closing(Iommufd.open()) as opened:
        yield opened


@pytest.fixture(scope="module")
def vfio_name() -> Iterator[Callable[[Rid], str]]:
    """Gives devices to vfio-pci, until the tests of a file are over; the names of their nodes."""
    sysfs, names = Sysfs(), dict[Rid, str]()
    with contextlib.ExitStack() as undo:

        def name(rid: Rid) -> str:
            if rid not in names:
                before = sysfs.device(rid)
                undo.callback(give_back, sysfs, rid, before.driver, before.driver_override)
                bind_to_vfio(sysfs, rid)
                names[rid] = sysfs.device(rid).cdev or ""
            return names[rid]

        yield name


@pytest.fixture
def cdev(vfio_name: Callable[[Rid], str]) -> Iterator[Callable[[Rid], Cdev]]:
    """Opens devices, and closes them afterwards: nothing is attached then."""
    with contextlib.ExitStack() as undo:

        def open_cdev(rid: Rid) -> Cdev:
            opened = Cdev.open(vfio_name(rid))
            undo.callback(opened.close)
            return opened

        yield open_cdev


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    fd = os.memfd_create("guest", os.MFD_CLOEXEC)
    os.ftruncate(fd, SIZE)
    yield GuestMemory(fd)
    os.close(fd)


@pytest.fixture
def device(cdev: Callable[[Rid], Cdev]) -> Cdev:
    """An edu device."""
    return cdev(EDU)


@pytest.fixture
def guest(session: Iommufd, device: Cdev, memory: GuestMemory) -> Guest:
    """With the edu device attached to its nest parent. There is no vDEVICE yet."""
    try:
        made = Guest(session, device.bind(session.fd), memory)
    except KernelRefused as refused:
        if refused.errno == errno.EOPNOTSUPP:
            lacking(f"this SMMUv3 does not nest: {refused.because}")
        raise
    device.attach(made.parent)
    return made


@pytest.fixture
def edu(guest: Guest, device: Cdev) -> Edu:
    """The guest's device at work."""
    assert guest.parent
    return Edu(device.fd)


@pytest.fixture
def nested(guest: Guest, device: Cdev, edu: Edu) -> Nested:
    """The guest's device as the vDEVICE VSID, with a stage 1 of 4 KB pages."""
    guest.vdevice = guest.session.vdevice_alloc(guest.viommu, guest.device, VSID)
    return Nested(guest, device, edu)
