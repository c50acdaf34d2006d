# SPDX-License-Identifier: Apache-2.0
"""The events of a vIOMMU, as its event queue (vEVENTQ) hands them over.

Source: struct iommufd_vevent_header in include/uapi/linux/iommufd.h and drivers/iommu/iommufd/eventq.c of Linux 7.3.
A read never waits: it gives as many whole events as fit, and nothing where there are none. Each event has a header with
its sequence number. What found the queue full was counted and dropped: the next number tells how many those were, or,
where nothing came after them, a header at the end with the flag LOST_EVENTS, the number of the last, and no payload.
"""

import os
from struct import Struct
from typing import NamedTuple

from iommuctl.iommufd.uapi import IOMMU_VEVENTQ_FLAG_LOST_EVENTS

NEVER = -1
"""Stands for the number of the event before the first."""
_HEADER = Struct("=II")
_NUMBERS = 1 << 31
"""Sequence numbers go from 0 to INT_MAX and around."""
_MOST = 16384
"""Events that are read at once; what a flood leaves is there for the next time."""
_AT_ONCE = 512


class Drained(NamedTuple):
    """What a queue held: the payloads, the oldest first, how many others were lost, and the number to go on from."""

    events: list[bytes]
    lost: int
    last_sequence: int


def drain(fd: int, size: int, last_sequence: int = NEVER) -> Drained:
    """Read everything that a queue holds, or its oldest 16384 events, which are in it no more then.

    `size` is that of a payload of the queue's type. `last_sequence` is what the last call returned, for what was lost
    since. Raises OSError; what was read before it is returned instead, as it would be lost otherwise.
    """
    found = Drained([], 0, last_sequence)
    while len(found.events) < _MOST:
        try:
            # Whatever it holds, one event fits: the kernel refuses a read that has no room for one.
            data = os.read(fd, _AT_ONCE * (_HEADER.size + size))
        except OSError:
            if found.last_sequence == last_sequence:
                raise
            break
        if not data:
            break
        found = _after(found, data, size)
    return found


def _after(before: Drained, data: bytes, size: int) -> Drained:
    """With what one more read gave. Of an event that is cut off there is nothing to tell; the kernel gives none."""
    events, lost, last = list(before.events), before.lost, before.last_sequence
    at = 0
    while at + _HEADER.size <= len(data):
        flags, sequence = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        alone = flags & IOMMU_VEVENTQ_FLAG_LOST_EVENTS
        if not alone:
            if at + size > len(data):
                break
            events.append(data[at : at + size])
            at += size
        # How many numbers lie between; the one of a header alone belongs to an event that was lost, too.
        lost += (sequence - last - (0 if alone else 1)) % _NUMBERS
        last = sequence
    return Drained(events, lost, last)
