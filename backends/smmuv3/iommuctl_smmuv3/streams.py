# SPDX-License-Identifier: Apache-2.0
"""What the driver remembers of each stream, and the memory of guests that nested ones have their CDs in."""

from typing import Any, NamedTuple

from iommuctl.errors import OutsideMemory
from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, Memory
from iommuctl.formats.radix import Format
from iommuctl.hookspecs import Rows
from iommuctl.model import Attachment, Binding, Device, Domain, Occupant, Rid
from iommuctl_smmuv3.entries import DSS_BYPASS, DSS_SUBSTREAM_0, DSS_TERMINATE, LEAF_BITS, Contexts

KIND = "smmuv3.stream"


class Stream(NamedTuple):
    """A device: whether it has ATS, its PASID bits; what becomes of requests without PASID, as S1DSS has it.

    `cds` counts its CDs, `pointer` is the address of their table, None without one, which has room for PASIDs of
    `cd_bits` bits; `nested` says that it is a GPA.
    `parent` is the domain that is its stage 2: id, granule in bytes, and width in bits.
    """

    ats: bool
    bits: int
    dss: int = DSS_TERMINATE
    cds: int = 0
    pointer: int | None = None
    nested: bool = False
    parent: tuple[int, int, int] | None = None
    cd_bits: int = 0
    foreign: bool = False
    """Whether the CDs are in a table that a guest owns."""
    pri: bool = False

    @property
    def contexts(self) -> Contexts | None:
        return None if self.pointer is None else Contexts(self.pointer, self.cd_bits)

    def bits_for(self, substream: int) -> int:
        """S1CDMax of a table that has room for a PASID: a page of CDs, where the device has so many PASIDs, or more."""
        return min(self.bits, max(LEAF_BITS, substream.bit_length()))


class Streams:
    """The streams of one unit, in rows."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def add(self, device: Device) -> Stream:
        stream = Stream(device.ats, device.pasid_bits, pri=device.pri)
        self.put(device.rid, stream)
        return stream

    def put(self, rid: Rid, stream: Stream) -> None:
        self._rows.put(KIND, _key(rid), stream)

    def get(self, rid: Rid) -> Stream | None:
        found: Any = self._rows.get(KIND, _key(rid))
        return Stream(*found) if found else None

    def remove(self, rid: Rid) -> None:
        self._rows.delete(KIND, _key(rid))

    def all(self) -> list[tuple[int, Stream]]:
        """All by StreamID."""
        return [(int(key, 16), Stream(*value)) for key, value in self._rows.scan(KIND)]


def stream_id(rid: Rid) -> int:
    """The StreamID that stands for a RID: its source id, with the segment in the bits above."""
    return rid.segment << 16 | rid.source_id


def without_pasid(occupant: Occupant | None) -> int:
    """What becomes of requests without PASID where the RID's slot is held so: S1DSS."""
    if isinstance(occupant, Attachment) and occupant.domain.nest_parent:
        return DSS_BYPASS
    return DSS_SUBSTREAM_0 if occupant else DSS_TERMINATE


def uses_stage_1(occupant: Occupant | None) -> bool:
    """Whether a slot that is held so has a CD."""
    return isinstance(occupant, Binding) or (occupant is not None and not occupant.domain.nest_parent)


def parent_of(occupant: Occupant | None) -> Domain | None:
    """The domain whose stage 2 a slot that is held so goes through."""
    return occupant.domain if occupant and occupant.domain.nest_parent else None


class GuestView:
    """What lies behind a stage 2, by its tables: a Memory of intermediate physical addresses, to read."""

    def __init__(self, memory: Memory, fmt: Format, root: int) -> None:
        self._memory = memory
        self._fmt = fmt
        self._root = root

    def place(self, address: int) -> int:
        """The physical address. Raises OutsideMemory where stage 2 has nothing."""
        last = None
        if not address >> self._fmt.width:
            *_, last = radix.walk(self._fmt, self._memory, self._root, address)
        if last is None or last.entry.kind != "leaf":
            raise OutsideMemory(f"GPA {address:#x} is not in memory", because="stage 2 maps nothing there")
        return last.entry.address | address & last.size - 1

    def read(self, address: int, size: int) -> bytes:
        data = b""
        while len(data) < size:
            at = address + len(data)
            data += self._memory.read(self.place(at), min(size - len(data), PAGE - at % PAGE))
        return data

    def write(self, address: int, data: bytes) -> None:
        raise OutsideMemory(f"{len(data)} bytes at GPA {address:#x} cannot be written", because="this is for looking")


def _key(rid: Rid) -> str:
    return f"{stream_id(rid):04x}"
