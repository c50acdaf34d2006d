# SPDX-License-Identifier: Apache-2.0
"""The events of a vIOMMU, read from a file that behaves as drivers/iommu/iommufd/eventq.c of Linux 7.3."""

import errno
import os
import struct
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.iommufd.veventq import NEVER, Drained, drain

FD = 777
READ = "iommuctl.iommufd.veventq.os.read"
LAST = 0x7FFF_FFFF
"""INT_MAX: the number after it is 0."""


class Queue:
    """The kernel's queue behind FD: bounded, numbered, read without waiting.

    An event that finds it full is dropped and takes a number; a header alone then stands at the end, with the number of
    the last one, until another event comes. A read gives whole events only, and EINVAL where not even one fits.
    """

    def __init__(self, depth: int, size: int, number: int = 0) -> None:
        self.depth, self.size, self.number = depth, size, number
        self.events: list[tuple[int, bytes]] = []
        self.lost_at: int | None = None
        self.reads = 0
        self.error = 0

    def report(self, payload: bytes) -> None:
        assert len(payload) == self.size
        if len(self.events) == self.depth:
            self.lost_at = self.number
        else:
            self.events.append((self.number, payload))
            self.lost_at = None
        self.number = (self.number + 1) & LAST

    def read(self, fd: int, count: int) -> bytes:
        assert fd == FD
        self.reads += 1
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        if count < 8:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        data = b""
        while self.events:
            number, payload = self.events[0]
            if 8 + self.size > count - len(data):
                if not data:
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
                return data
            data += struct.pack("<II", 0, number) + payload
            del self.events[0]
        if self.lost_at is not None and count - len(data) >= 8:
            data += struct.pack("<II", 1, self.lost_at)
            self.lost_at = None
        return data


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    made = Queue(4, 2)
    monkeypatch.setattr(READ, made.read)
    return made


def report(queue: Queue, *numbers: int) -> None:
    for number in numbers:
        queue.report(number.to_bytes(2, "big"))


def payloads(*numbers: int) -> list[bytes]:
    return [number.to_bytes(2, "big") for number in numbers]


def test_an_empty_queue_is_not_waited_for(queue: Queue) -> None:
    assert drain(FD, 2) == Drained([], 0, NEVER)
    assert drain(FD, 2, 17) == Drained([], 0, 17)


def test_everything_is_read_in_its_order(queue: Queue) -> None:
    report(queue, 10, 11, 12)
    assert drain(FD, 2) == Drained(payloads(10, 11, 12), 0, 2)
    assert drain(FD, 2, 2) == Drained([], 0, 2)
    report(queue, 13)
    assert drain(FD, 2, 2) == Drained(payloads(13), 0, 3)


def test_events_lost_at_the_end_are_counted(queue: Queue) -> None:
    """Of 4 there was room; the header alone has the number of the last of 3 others."""
    report(queue, *range(7))
    assert drain(FD, 2) == Drained(payloads(0, 1, 2, 3), 3, 6)
    report(queue, 7)
    assert drain(FD, 2, 6) == Drained(payloads(7), 0, 7)


def test_events_lost_between_others_are_counted(queue: Queue) -> None:
    report(queue, *range(5))
    queue.depth = 6
    report(queue, 5, 6, 7)
    assert drain(FD, 2) == Drained(payloads(0, 1, 2, 3, 5, 6), 2, 7)


def test_events_lost_before_the_first(queue: Queue) -> None:
    """Nobody has read number 0; a queue that was read before begins elsewhere."""
    queue.number = 3
    report(queue, 1)
    assert drain(FD, 2) == Drained(payloads(1), 3, 3)


def test_numbers_begin_again_after_the_greatest(queue: Queue) -> None:
    queue.number = LAST - 1
    report(queue, *range(4))
    assert drain(FD, 2, LAST - 2) == Drained(payloads(0, 1, 2, 3), 0, 1)
    queue.number = LAST
    report(queue, *range(6))
    assert drain(FD, 2, LAST - 1) == Drained(payloads(0, 1, 2, 3), 2, 4)


def test_a_flood_is_read_in_bounds(queue: Queue) -> None:
    queue.depth = 1 << 19
    report(queue, *(number & 0xFFFF for number in range(40_000)))
    last, total = NEVER, 0
    while True:
        found = drain(FD, 2, last)
        assert found.lost == 0
        assert len(found.events) <= 16384
        if not found.events:
            break
        assert found.events[0] == (total & 0xFFFF).to_bytes(2, "big")
        last, total = found.last_sequence, total + len(found.events)
    assert total == 40_000
    assert queue.reads < 100


def test_an_event_of_any_size_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 4, 16, 32, 4096):
        queue = Queue(4, size)
        monkeypatch.setattr(READ, queue.read)
        queue.report(bytes(size))
        assert drain(FD, size).events == [bytes(size)]


def test_an_error_is_raised(queue: Queue) -> None:
    queue.error = errno.ENOMEM
    with pytest.raises(OSError, match="memory"):
        drain(FD, 2)


def test_an_error_later_loses_nothing_that_was_read(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(fd: int, count: int) -> bytes:
        data = queue.read(fd, count)
        queue.error = errno.ENOMEM
        return data

    monkeypatch.setattr(READ, read)
    report(queue, 5)
    assert drain(FD, 2) == Drained(payloads(5), 0, 0)


def test_a_pipe_that_was_closed_is_empty() -> None:
    """Of a pipe each read gives what was written; its end is told as an empty queue is."""
    reads, writes = os.pipe()
    os.write(writes, struct.pack("<IIHII", 0, 0, 0xABCD, 1, 3))
    os.close(writes)
    assert drain(reads, 2) == Drained([b"\xcd\xab"], 3, 3)
    os.close(reads)


@settings(deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(0, 9)), st.integers(0, LAST))
def test_no_event_goes_unaccounted(depth: int, bursts: list[int], number: int) -> None:
    """Whatever comes between two reads, each event is handed over or counted."""
    queue = Queue(depth, 4, number)
    last, sent, seen, lost = (number - 1) % (LAST + 1), 0, 0, 0
    for burst in bursts:
        for _ in range(burst):
            queue.report(sent.to_bytes(4, "big"))
            sent += 1
        with mock.patch(READ, queue.read):
            found = drain(FD, 4, last)
        last = found.last_sequence
        assert found.events == sorted(found.events)
        seen, lost = seen + len(found.events), lost + found.lost
        assert len(found.events) == min(burst, depth)
    assert seen + lost == sent


@settings(deadline=None)
@given(st.lists(st.binary()), st.integers(1, 40), st.integers(NEVER, LAST))
def test_any_bytes_are_survived(chunks: list[bytes], size: int, last: int) -> None:
    given_ = iter([*(chunk for chunk in chunks if chunk), b""])
    with mock.patch(READ, side_effect=given_):
        found = drain(FD, size, last)
    assert all(len(event) == size for event in found.events)
    assert sum(map(len, found.events)) <= sum(map(len, chunks))
    assert found.lost >= 0
    assert NEVER <= found.last_sequence <= 0xFFFF_FFFF
