# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with a guest's DMA, as the guest reads it from its queue of events."""

import os
import select
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from iommuctl.errors import KernelRefused
from iommuctl.formats.bits import Layout
from iommuctl.formats.memory import read_word, write_word
from iommuctl.iommufd import uapi
from iommuctl_smmuv3.cd import Cd
from iommuctl_smmuv3.configuration_commands import CfgiCd
from iommuctl_smmuv3.configuration_events import CBadCd
from iommuctl_smmuv3.events import CLASS_IN, EVENTS, FAccess, FAddrSize, FPermission, FTranslation
from iommuctl_smmuv3.ste import Ste
from tests.hardware.smmuv3.guest import SIZE, VEVENTQ, VSID, payload
from tests.hardware.smmuv3.nested import HOLE, IOVA, Nested

HEADER, RECORD = 8, 32
DEPTH = 16
SECONDS = 5


class Event(NamedTuple):
    """A record, and the number that the kernel gave it."""

    sequence: int
    layout: type[Layout]
    fields: dict[str, int]


class Queue:
    """A queue of events by its file."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, size: int = DEPTH * (HEADER + RECORD), seconds: float = SECONDS) -> bytes:
        """What is there, or comes in that time."""
        return os.read(self.fd, size) if select.select([self.fd], [], [], seconds)[0] else b""

    def events(self, number: int) -> list[Event]:
        """So many events, and no more."""
        data = b""
        while len(data) < number * (HEADER + RECORD):
            more = self.read()
            assert more, f"{data.hex()} is not {number} events"
            data += more
        assert not self.read(seconds=0.2)
        return [self._event(data[at : at + HEADER + RECORD]) for at in range(0, len(data), HEADER + RECORD)]

    @staticmethod
    def _event(data: bytes) -> Event:
        header = uapi.iommufd_vevent_header.from_buffer_copy(data)
        assert header.flags == 0
        raw = int.from_bytes(data[HEADER:], "little")
        layout = EVENTS[raw & 0xFF]
        return Event(header.sequence, layout, {name: value for name, value in layout.values(raw).items() if value})


@pytest.fixture
def queue(nested: Nested) -> Iterator[Queue]:
    _, fd = nested.guest.session.veventq_alloc(nested.guest.viommu, VEVENTQ, DEPTH)
    yield Queue(fd)
    os.close(fd)


def number(layout: type[Layout]) -> int:
    return next(number for number, each in EVENTS.items() if each is layout)


def of_stage_1(layout: type[Layout], iova: int, *, read: bool) -> dict[str, int]:
    """The fields of a fault of an input address that are not 0."""
    found = {"Event": number(layout), "StreamID": VSID, "RnW": int(read), "CLASS": CLASS_IN, "InputAddr": iova}
    return {name: value for name, value in found.items() if value}


def test_a_hole_in_stage_1(nested: Nested, queue: Queue) -> None:
    """The device's words are two accesses. The StreamID is the guest's."""
    nested.seen(HOLE + 0x128)
    nested.write(HOLE + 0x3128)
    events = queue.events(4)
    assert [event.sequence for event in events] == [0, 1, 2, 3]
    assert {event.layout for event in events} == {FTranslation}
    assert [event.fields for event in events] == [
        of_stage_1(FTranslation, HOLE + offset, read=read)
        for offset, read in ((0x128, True), (0x12C, True), (0x3128, False), (0x312C, False))
    ]


def broken(change: Callable[[int], int]) -> Callable[[Nested], None]:
    """Change the descriptor of the page at IOVA, which no cache has yet."""

    def make(nested: Nested) -> None:
        table = nested.stage_1.root
        for shift in (39, 30, 21):
            table = read_word(nested.guest.memory, table + 8 * (IOVA >> shift & 511)) & 0xFFFF_FFFF_F000
        at = table + 8 * (IOVA >> 12 & 511)
        write_word(nested.guest.memory, at, change(read_word(nested.guest.memory, at)))

    return make


@pytest.mark.parametrize(
    ("layout", "make"),
    [
        (FTranslation, broken(lambda _: 0)),
        (FPermission, broken(lambda raw: raw | 1 << 7)),
        (FAccess, broken(lambda raw: raw & ~(1 << 10))),
        (FAddrSize, broken(lambda raw: raw | 1 << 47)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_faults_of_a_page(nested: Nested, queue: Queue, layout: type[Layout], make: Callable[[Nested], None]) -> None:
    make(nested)
    nested.write(IOVA)
    assert [(event.layout, event.fields) for event in queue.events(2)] == [
        (layout, of_stage_1(layout, IOVA + offset, read=False)) for offset in (0, 4)
    ]


def test_a_cd_that_is_not_valid(nested: Nested, queue: Queue) -> None:
    guest = nested.guest
    guest.write_cd(nested.stage_1.cd, int.from_bytes(guest.memory.read(nested.stage_1.cd, 64), "little") & ~Cd.V.mask)
    guest.invalidate(CfgiCd.encode(StreamID=VSID, Leaf=1))
    nested.write(IOVA)
    expected = {"Event": number(CBadCd), "StreamID": VSID}
    assert [(event.layout, event.fields) for event in queue.events(2)] == [(CBadCd, expected)] * 2


def test_a_hole_in_stage_2_is_not_the_guest_s(nested: Nested, queue: Queue) -> None:
    """The kernel's log alone has it. Of one under a table of stage 1 QEMU says S2=0, so that a guest would get that."""
    nested.stage_1.map(HOLE, SIZE)
    nested.write(HOLE)
    assert not queue.read(seconds=0.5)


def test_an_ste_that_is_not_valid_has_no_events(nested: Nested, queue: Queue) -> None:
    """The kernel makes it one that aborts: C_BAD_STE is the monitor's to report."""
    nested.attach(payload(Ste.encode()))
    nested.write(IOVA)
    assert not queue.read(seconds=0.5)


def test_more_events_than_there_is_room_for(nested: Nested) -> None:
    """A header alone says that some were lost. It has the number of the last of them."""
    guest = nested.guest
    _, fd = guest.session.veventq_alloc(guest.viommu, VEVENTQ, 1)
    for first in (0, 4):
        nested.write(HOLE)
        nested.write(HOLE)
        time.sleep(0.5)
        data = os.read(fd, DEPTH * (HEADER + RECORD))
        assert len(data) == HEADER + RECORD + HEADER
        headers = [uapi.iommufd_vevent_header.from_buffer_copy(data, at) for at in (0, HEADER + RECORD)]
        assert [(header.flags, header.sequence) for header in headers] == [
            (0, first),
            (uapi.IOMMU_VEVENTQ_FLAG_LOST_EVENTS, first + 3),
        ]
    os.close(fd)


def test_reads_of_the_wrong_size(nested: Nested, queue: Queue) -> None:
    """What is there is kept. Where nothing is, nothing is read."""
    assert os.read(queue.fd, HEADER + RECORD) == b""
    nested.write(HOLE)
    for size in (HEADER - 1, HEADER, HEADER + RECORD - 1):
        with pytest.raises(OSError, match="Invalid argument"):
            queue.read(size)
    assert len(queue.read(HEADER + RECORD + 7)) == HEADER + RECORD
    assert len(queue.read()) == HEADER + RECORD


def test_one_queue_and_its_file(nested: Nested) -> None:
    """A queue is destroyed when its file is closed."""
    guest = nested.guest
    number, fd = guest.session.veventq_alloc(guest.viommu, VEVENTQ, DEPTH)
    with pytest.raises(KernelRefused, match="EEXIST") as refused:
        guest.session.veventq_alloc(guest.viommu, VEVENTQ, DEPTH)
    assert "has a queue for events of type 0x1 already" in refused.value.because
    with pytest.raises(KernelRefused, match="EBUSY"):
        guest.session.destroy(number)
    os.close(fd)
    guest.session.destroy(number)
    number, fd = guest.session.veventq_alloc(guest.viommu, VEVENTQ, 1 << 19)
    os.close(fd)
    guest.session.destroy(number)
