# SPDX-License-Identifier: Apache-2.0
"""Page requests of devices, as a fault queue of iommufd hands them over, and the answers that are written to it.

Source: struct iommu_hwpt_pgfault and struct iommu_hwpt_page_response in include/uapi/linux/iommufd.h, and
drivers/iommu/iommufd/eventq.c of Linux 7.3. A read never waits: it gives as many whole groups as fit, nothing where
there are none, and EINVAL where not even the first one fits. What was read is in the queue no more, and its group waits
for an answer, which names it by its cookie: the lowest number from 1 on that no other group of the queue has.
"""

import errno
import select
from collections.abc import Iterable, Sequence
from os import read, write
from struct import Struct
from typing import Final, NamedTuple

from iommuctl.iommufd.uapi import (
    IOMMU_PGFAULT_FLAGS_LAST_PAGE,
    IOMMU_PGFAULT_FLAGS_PASID_VALID,
    IOMMUFD_PAGE_RESP_INVALID,
)

_FAULT = Struct("=6IQ2I")
_RESPONSE = Struct("=2I")
_ROOM: Final = (512, 16384)
"""Requests that a read has room for: the first, or what follows it where a group is larger."""
_MOST: Final = 4096
"""Requests after which no more are read; what a flood leaves is there for the next time."""
MOST_READ: Final = _MOST + _ROOM[-1]
"""More groups than one `drain` ever reads."""


class PageFault(NamedTuple):
    """A request for the page at `address`, by the object of a device; `permissions` are IOMMU_PGFAULT_PERM_*.

    All requests of a group have its cookie, and its index `group`, which is the device's; the `last` one ends it.
    """

    dev_id: int
    pasid: int | None
    group: int
    permissions: int
    address: int
    cookie: int
    last: bool


def filled(files: Iterable[int]) -> set[int]:
    """Those of these queues that hold something. Nothing is read."""
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return {file for file, events in poll.poll(0) if events & select.POLLIN}


def drain(fd: int) -> list[PageFault]:
    """Read what a queue holds, the oldest group first, or as many groups of it as have 4096 requests together.

    Raises OSError; what was read before it is returned instead, as it would be lost otherwise. EINVAL is a group of
    more than 16384 requests.
    """
    found: list[PageFault] = []
    rooms = [*_ROOM]
    while len(found) < _MOST:
        try:
            data = read(fd, rooms[0] * _FAULT.size)
        except OSError as error:
            if error.errno == errno.EINVAL and len(rooms) > 1:
                del rooms[0]
                continue
            if not found:
                raise
            break
        if not data:
            break
        found += _faults(data)
    return found


def answer(fd: int, cookies: Sequence[int], code: int) -> int:
    """Answer groups, in their order, up to the first that waits for none, by IOMMUFD_PAGE_RESP_*; returns how many.

    It is one call, so that none or all of it is done by a process that is killed. Raises OSError.
    """
    responses = bytearray(len(cookies) * _RESPONSE.size)
    for number, cookie in enumerate(cookies):
        _RESPONSE.pack_into(responses, number * _RESPONSE.size, cookie, code)
    try:
        return write(fd, responses) // _RESPONSE.size
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return 0


def reject_unknown(fd: int, known: Sequence[int]) -> int:
    """Answer invalid every group that was read by one `drain` and that nobody knows of; returns how many there were.

    `known` are the cookies of all other groups that wait. A cookie is the lowest free number, so that the unknown ones
    are the lowest of those that are not known, without a gap.
    """
    others = set(known)
    cookies = [cookie for cookie in range(1, MOST_READ + len(others) + 1) if cookie not in others]
    return answer(fd, cookies, IOMMUFD_PAGE_RESP_INVALID)


def _faults(data: bytes) -> list[PageFault]:
    """What one read gave, whole requests."""
    found = []
    for flags, dev_id, pasid, group, permissions, _, address, _, cookie in _FAULT.iter_unpack(
        data[: len(data) // _FAULT.size * _FAULT.size]
    ):
        known = pasid if flags & IOMMU_PGFAULT_FLAGS_PASID_VALID else None
        last = bool(flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE)
        found.append(PageFault(dev_id, known, group, permissions, address, cookie, last))
    return found
