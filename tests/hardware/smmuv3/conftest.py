# SPDX-License-Identifier: Apache-2.0
"""Devices that are bound to an iommufd for the time of a test, and a guest with one of them."""

import contextlib
import errno
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
from tests.hardware.smmuv3.guest import Guest

EDU = Rid(0, 0, 0x10, 0)


@pytest.fixture
def session() -> Iterator[Iommufd]:
    with contextlib.closing(Iommufd.open()) as opened:
        yield opened


@pytest.fixture
def cdev() -> Iterator[Callable[[Rid], Cdev]]:
    """Opens devices, which go back to their drivers afterwards."""
    sysfs = Sysfs()
    with contextlib.ExitStack() as undo:

        def open_cdev(rid: Rid) -> Cdev:
            before = sysfs.device(rid)
            undo.callback(give_back, sysfs, rid, before.driver, before.driver_override)
            bind_to_vfio(sysfs, rid)
            opened = Cdev.open(sysfs.device(rid).cdev or "")
            undo.callback(opened.close)
            return opened

        yield open_cdev


@pytest.fixture
def device(cdev: Callable[[Rid], Cdev]) -> Cdev:
    """An edu device."""
    return cdev(EDU)


@pytest.fixture
def guest(session: Iommufd, device: Cdev) -> Guest:
    """With the edu device attached to its nest parent. There is no vDEVICE yet."""
    try:
        made = Guest(session, device.bind(session.fd))
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
