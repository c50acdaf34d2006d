# SPDX-License-Identifier: Apache-2.0
"""Page requests, read from a file that behaves as drivers/iommu/iommufd/eventq.c of Linux 7.3, and answered there."""

import errno
import os
import struct
from itertools import count
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.iommufd import fault_queue
from iommuctl.iommufd.fault_queue import PageFault, answer, drain, filled, reject_unknown

FD = 777
READ, WRITE = "iommuctl.iommufd.fault_queue.read", "iommuctl.iommufd.fault_queue.write"
SIZE = 40


class Queue:
    """The kernel's queue behind FD: groups of so many requests."""

    def __init__(self, *sizes: int) -> None:
        self.unread = [*sizes]
        self.read_out: dict[int, int] = {}
        self.told: list[tuple[int, int]] = []
        self.reads = self.writes = 0
        self.error = 0

    def read(self, fd: int, size: int) -> bytes:
        assert fd == FD
        assert size % SIZE == 0
        self.reads += 1
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        data = b""
        while self.unread and len(data) + self.unread[0] * SIZE <= size:
            cookie = next(number for number in count(1) if number not in self.read_out)
            length = self.read_out[cookie] = self.unread.pop(0)
            for index in range(length):
                flags = 1 | (2 if index == length - 1 else 0)
                data += struct.pack("<6IQ2I", flags, 11, 5, 7, 3, 0, index << 12, 0, cookie)
        if self.unread and not data:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return data

    def write(self, fd: int, data: bytes) -> int:
        assert fd == FD
        self.writes += 1
        done = 0
        for cookie, code in struct.iter_unpack("<2I", data):
            if cookie not in self.read_out or code > 1:
                if not done:
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
                break
            del self.read_out[cookie]
            self.told.append((cookie, code))
            done += 8
        return done

    def patched(self) -> "mock._patch[object]":
        return mock.patch.multiple(fault_queue, read=self.read, write=self.write)


def test_a_request_is_decoded() -> None:
    """Flags: PASID valid, last of its group; the permissions are to read, write, execute, and privileged."""
    records = (
        "00000000 0b000000 ffffffff fe010000 01000000 00000000 00f0debc9a785634 00000000 09000000"
        "03000000 0c000000 05000000 00000000 0f000000 00000000 0010000000000000 00000000 09000000"
    )
    with mock.patch(READ, side_effect=[bytes.fromhex(records), b""]):
        assert drain(FD) == [
            PageFault(11, None, 0x1FE, 1, 0x345678_9ABCDEF000, 9, last=False),
            PageFault(12, 5, 0, 15, 0x1000, 9, last=True),
        ]


def test_an_empty_queue_is_not_waited_for() -> None:
    queue = Queue()
    with queue.patched():
        assert drain(FD) == []
    assert queue.reads == 1


def test_a_group_larger_than_a_read_gets_room() -> None:
    queue = Queue(3, 513, 1, 9000)
    with queue.patched():
        found = drain(FD)
    assert [sum(each.cookie == cookie for each in found) for cookie in (1, 2, 3, 4)] == [3, 513, 1, 9000]
    assert [each.cookie for each in found if each.last] == [1, 2, 3, 4]


def test_a_group_beyond_all_bounds_is_an_error() -> None:
    with Queue(16385).patched(), pytest.raises(OSError, match="Invalid argument"):
        drain(FD)


def test_a_flood_is_read_in_bounds() -> None:
    queue = Queue(*[10] * 2000)
    with queue.patched():
        assert 4096 <= len(drain(FD)) < 4096 + 512
    assert queue.unread


def test_an_error_later_loses_nothing_that_was_read() -> None:
    queue = Queue(500, 500)

    def read(fd: int, size: int) -> bytes:
        data = queue.read(fd, size)
        queue.error = errno.ENOMEM
        return data

    with mock.patch(READ, read):
        assert len(drain(FD)) == 500
        with pytest.raises(OSError, match="memory"):
            drain(FD)


def test_answers_go_up_to_the_first_that_nobody_waits_for() -> None:
    queue = Queue(1, 1, 1)
    with queue.patched():
        drain(FD)
        assert answer(FD, [2, 1], 0) == 2
        assert answer(FD, [2], 0) == 0
        assert answer(FD, [3, 1], 1) == 1
    assert queue.told == [(2, 0), (1, 0), (3, 1)]


def test_another_error_of_an_answer_is_told() -> None:
    with (
        mock.patch(WRITE, side_effect=OSError(errno.EBADF, os.strerror(errno.EBADF))),
        pytest.raises(OSError, match="Bad file"),
    ):
        answer(FD, [1], 0)


@settings(deadline=None)
@given(st.integers(0, 12), st.data())
def test_what_nobody_knows_of_is_rejected_and_nothing_else(before: int, data: st.DataObject) -> None:
    """In one call, whatever was answered before, and whatever was read by who died."""
    queue = Queue(*[1] * before)
    with queue.patched():
        drain(FD)
        gone = data.draw(st.sets(st.integers(1, max(before, 1))))
        for cookie in gone:
            answer(FD, [cookie], 0)
        known = [*queue.read_out]
        queue.unread = [1] * data.draw(st.integers(0, 9))
        drain(FD)
        unknown = len(queue.read_out) - len(known)
        writes, told = queue.writes, len(queue.told)
        assert reject_unknown(FD, known) == unknown
        assert queue.writes == writes + 1
        assert [code for _, code in queue.told[told:]] == [1] * unknown
        assert [*queue.read_out] == known


def test_which_queues_hold_something() -> None:
    pipes = [os.pipe() for _ in range(3)]
    os.write(pipes[1][1], b"!")
    assert filled([theirs for theirs, _ in pipes]) == {pipes[1][0]}
    assert filled([]) == set()
    for each in pipes:
        for file in each:
            os.close(file)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1)))
def test_any_bytes_are_survived(chunks: list[bytes]) -> None:
    with mock.patch(READ, side_effect=[*chunks, b""]):
        found = drain(FD)
    assert len(found) <= sum(map(len, chunks)) // SIZE
