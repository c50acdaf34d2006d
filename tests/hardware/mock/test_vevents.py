# SPDX-License-Identifier: Apache-2.0
"""Events of a vIOMMU as the kernel queues them: order, numbers, what is lost, and that no read waits."""

import errno
import os
from collections.abc import Iterator
from ctypes import sizeof
from typing import NamedTuple

import pytest

from iommuctl.iommufd.session import Iommufd
from iommuctl.iommufd.veventq import NEVER, drain
from tests.hardware.mock import uapi
from tests.hardware.mock.driver import Device, Mock
from tests.hardware.mock.machine import Machine

SIZE = sizeof(uapi.iommu_viommu_event_selftest)
NUMBER = 0x99
EVENT = NUMBER.to_bytes(SIZE, "little")
DEPTH = 4


class Source(NamedTuple):
    """A device whose vDEVICE reports events, and the file of the queue that they come to."""

    mock: Mock
    device: Device
    fd: int

    def report(self, times: int) -> None:
        for _ in range(times):
            self.mock.trigger_vevent(self.device)


@pytest.fixture
def source(machine: Machine, session: Iommufd, mock: Mock) -> Iterator[Source]:
    viommu_id = machine.viommu()
    session.vdevice_alloc(viommu_id, machine.device.dev_id, NUMBER)
    mock.replace(machine.device, machine.nested(parent=viommu_id))
    _, fd = session.veventq_alloc(viommu_id, uapi.IOMMU_VEVENTQ_TYPE_SELFTEST, DEPTH)
    yield Source(mock, machine.device, fd)
    os.close(fd)


def test_an_empty_queue_is_not_waited_for(source: Source) -> None:
    assert drain(source.fd, SIZE) == ([], 0, NEVER)


def test_vevents_are_read_once_and_numbered_from_0(source: Source) -> None:
    source.report(3)
    assert drain(source.fd, SIZE) == ([EVENT] * 3, 0, 2)
    assert drain(source.fd, SIZE, 2) == ([], 0, 2)
    source.report(2)
    assert drain(source.fd, SIZE, 2) == ([EVENT] * 2, 0, 4)


def test_vevents_that_found_the_queue_full_are_counted(source: Source) -> None:
    source.report(DEPTH + 7)
    assert drain(source.fd, SIZE) == ([EVENT] * DEPTH, 7, DEPTH + 6)
    source.report(1)
    assert drain(source.fd, SIZE, DEPTH + 6) == ([EVENT], 0, DEPTH + 7)


def test_vevents_that_were_lost_between_others_are_counted(source: Source) -> None:
    """A read of one event makes room, and the next one has a number that tells."""
    source.report(DEPTH + 3)
    assert len(os.read(source.fd, 8 + SIZE)) == 8 + SIZE
    source.report(1)
    assert drain(source.fd, SIZE, 0) == ([EVENT] * DEPTH, 3, DEPTH + 3)


def test_a_read_without_room_for_a_vevent_is_refused(source: Source) -> None:
    """So the one of drain always has room."""
    source.report(1)
    with pytest.raises(OSError, match="Invalid argument") as caught:
        os.read(source.fd, 8 + SIZE - 1)
    assert caught.value.errno == errno.EINVAL
    assert drain(source.fd, SIZE) == ([EVENT], 0, 0)
