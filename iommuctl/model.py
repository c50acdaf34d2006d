# SPDX-License-Identifier: Apache-2.0
"""The nouns of DESIGN: what a RID, a slot, a domain, a mapping, an attachment and a binding are.

All of them are plain immutable values. Addresses and sizes are integers in bytes.
"""

from collections.abc import Mapping as MappingABC
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from iommuctl.errors import BadRid
from iommuctl.spelling import RID

if TYPE_CHECKING:
    from iommuctl.formats.bits import Layout

MAX_ADDRESS = (1 << 64) - 1
NO_PHYSICAL = 1 << 62
"""From here on are addresses that rows give to named memory of real hardware. Where it lies only the kernel knows."""

Access = Literal["r", "w", "x"]
RequestKind = Literal["untranslated", "translation", "translated"]
"""What a device sends: an address for the unit to translate; with ATS a question for the translation, and then an
address that it was told."""


class Rid(NamedTuple):
    """PCI requester id: segment ("domain"), bus, device, function."""

    segment: int
    bus: int
    device: int
    function: int

    @classmethod
    def parse(cls, text: str) -> "Rid":
        """Read `0000:00:01.0`, or `00:01.0` for segment 0. Raises BadRid."""
        match = RID.fullmatch(text)
        numbers = [int(part or "0", 16) for part in match.groups()] if match else []
        if not numbers or numbers[2] > 0x1F:
            raise BadRid(
                f"{text!r} is not a RID",
                because="a RID is segment:bus:device.function in hexadecimal, device at most 1f, function at most 7",
                hint="write it as 0000:00:01.0, as `lspci -D` prints it",
            )
        return cls(*numbers)

    @classmethod
    def of(cls, number: int) -> "Rid":
        """The RID with that source id, and the segment in the 16 bits above it."""
        return cls(number >> 16, number >> 8 & 0xFF, number >> 3 & 0x1F, number & 7)

    @property
    def source_id(self) -> int:
        """The 16 bits that a transaction carries: bus, device and function."""
        return self.bus << 8 | self.device << 3 | self.function

    def __str__(self) -> str:
        return f"{self.segment:04x}:{self.bus:02x}:{self.device:02x}.{self.function:x}"


class Slot(NamedTuple):
    """Where a table is installed: a RID, or a RID and one of its PASIDs."""

    rid: Rid
    pasid: int | None = None

    def __str__(self) -> str:
        return str(self.rid) if self.pasid is None else f"{self.rid} PASID {self.pasid}"


class Device(NamedTuple):
    """A requester and what it can do. `pasid_bits` is 0 for a device without PASIDs.

    On real hardware, `bound` says whether its slots are ours to use; `driver` is the driver that it is with, "" for
    none, and `owner` says what its slots hold while they are the kernel's, as "DMA-FQ" or "identity".
    """

    rid: Rid
    ats: bool = False
    pri: bool = False
    pasid_bits: int = 0
    bound: bool = True
    driver: str = ""
    owner: str = ""
    siblings: tuple[Rid, ...] = ()
    """The other devices of its IOMMU group: what its own slot holds is theirs, too."""


class Domain(NamedTuple):
    """One kernel-managed I/O page table. Input addresses are below 2**width."""

    id: int
    name: str
    label: str | None
    nest_parent: bool
    width: int
    page_sizes: tuple[int, ...]


class Memory(NamedTuple):
    """Named memory: on the simulator a range of RAM at physical address `pa`; elsewhere that is from NO_PHYSICAL on."""

    id: int
    name: str
    pa: int
    size: int


class DomainRanges(NamedTuple):
    """Which input addresses a domain can map, as (first, last): what the kernel allows, and what devices keep."""

    aperture: tuple[tuple[int, int], ...]
    reserved: tuple[tuple[int, int], ...]


class Dirty(NamedTuple):
    """What DMA wrote to: ranges of input addresses as (IOVA, size), in units of `granule` bytes."""

    ranges: tuple[tuple[int, int], ...]
    granule: int


class Mapping(NamedTuple):
    """A range of a domain. `memory` names where `pa` comes from, `offset` counts from its start."""

    iova: int
    size: int
    pa: int
    memory: str | None
    offset: int
    prot: str


class PageTable(NamedTuple):
    """A stage 1 that we build in guest memory; `pool` and `root` are GPAs of `parent`."""

    id: int
    name: str
    label: str | None
    parent: Domain
    format: str
    pool: int
    pool_size: int
    root: int


class Attachment(NamedTuple):
    """A domain in a slot."""

    slot: Slot
    domain: Domain
    label: str | None = None


class Binding(NamedTuple):
    """A page table in a slot, nested on its parent domain.

    `root` is the GPA of the table's root, `pgtable` the name when we built it. `implicit` says that the bind
    made the attachment; otherwise `attachment_label` is what the attachment goes back to. `cd_pool` is (GPA, size) of
    the guest memory that the CD table of the RID lies in, where the architecture keeps that there; None where it is
    the pool of this very page table.
    """

    slot: Slot
    domain: Domain
    root: int
    format: str
    pgtable: str | None = None
    label: str | None = None
    implicit: bool = False
    attachment_label: str | None = None
    cd_pool: tuple[int, int] | None = None


Occupant: TypeAlias = Attachment | Binding


class IommuUnit(NamedTuple):
    """One IOMMU of a machine, with those of its registers that can be read, by the specification's names.

    `words` are subjects and phrases that registers do not tell, or not rightly.
    """

    name: str
    architecture: str
    registers: MappingABC[str, int]
    words: MappingABC[str, str] = {}


class Command(NamedTuple):
    """One command that was given to the hardware, as bytes in memory order and decoded."""

    name: str
    raw: bytes
    fields: MappingABC[str, int]


class Call(NamedTuple):
    """One call to the kernel: the ioctl's name, and its fields as they were handed over."""

    name: str
    fields: MappingABC[str, int]


class MemoryWrite(NamedTuple):
    """One 64-bit word of memory that changes.

    On real hardware `address` is from NO_PHYSICAL on: the word is at `offset` of the named memory `memory`.
    """

    address: int
    old: int
    new: int
    memory: str | None = None
    offset: int = 0


class Step(NamedTuple):
    """One entry that a walk visited: the structure's name, where it lies, its 64-bit words, its fields.

    `stage` is 1 or 2 for an entry of that stage's tables, 0 for what leads to these.
    """

    structure: str
    address: int
    raw: tuple[int, ...]
    fields: MappingABC[str, int]
    stage: int = 0


class Placed(NamedTuple):
    """A structure that is present on the way to a device's page tables, below `depth` others.

    `pasids` are the first and the last PASID that it is for; None where it is for all of the device's requests.
    """

    step: Step
    depth: int
    pasids: tuple[int, int] | None = None

    @classmethod
    def of(
        cls,
        layout: "type[Layout]",
        address: int,
        raw: int,
        depth: int,
        *,
        pasids: tuple[int, int] | None = None,
        names: Sequence[str] = (),
    ) -> "Placed":
        """The structure at that address, with all its fields or those of these names."""
        values = layout.values(raw)
        fields = {name: values[name] for name in names or values}
        return cls(Step(layout.name, address, layout.to_words(raw), fields), depth, pasids)


class Fault(NamedTuple):
    """Why the hardware refused a request: the architecture's code and name, and the request."""

    code: int
    name: str
    reason: str
    rid: Rid
    pasid: int | None
    iova: int
    access: Access


class Translation(NamedTuple):
    """Where a request goes. `pa` is None when it faults; `prot` is what the tables allow at that address.

    On real hardware `pa` is from NO_PHYSICAL on, and says which named memory it is.
    """

    slot: Slot
    iova: int
    pa: int | None
    page_size: int | None
    prot: str | None
    fault: Fault | None
    steps: tuple[Step, ...]


class Piece(NamedTuple):
    """A part of a DMA that went to contiguous memory."""

    iova: int
    pa: int
    size: int


class Changed(NamedTuple):
    """A structure that `cache` holds as it was: its words then and now, and the operation that changed it last.

    `table` names the page table, domain or slot that it belongs to. `operation` is as one types it, None when it was
    too long ago.
    """

    structure: str
    address: int
    old: tuple[int, ...]
    new: tuple[int, ...]
    stage: int
    cache: str
    operation: str | None
    table: str = ""


class DmaResult(NamedTuple):
    """What a DMA did before it ended or faulted. `data` is what a read returned.

    `stale` says that a cache answered something else than the tables do; then `changed` has what the caches hold that
    is no longer so, and `missing` the invalidations that would have taken it away. `hits` and `misses` are the
    unit's, the others those of the device's own TLB.
    """

    pieces: tuple[Piece, ...]
    data: bytes
    fault: Fault | None
    stale: bool
    hits: int
    misses: int
    missing: tuple[Command, ...] = ()
    changed: tuple[Changed, ...] = ()
    device_hits: int = 0
    device_misses: int = 0
