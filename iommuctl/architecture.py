# SPDX-License-Identifier: Apache-2.0
"""What a vendor's formats offer to the rest: structures, page-table formats, the driver side, the hardware side.

An architecture is an object registered in the entry-point group `iommuctl.architectures`. Real hardware is driven
with the first three parts; the simulator needs all four.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from iommuctl.capabilities import Capabilities
from iommuctl.formats.bits import Layout
from iommuctl.formats.memory import Memory, Run
from iommuctl.formats.radix import Format
from iommuctl.model import (
    Access,
    Attachment,
    Binding,
    Command,
    Device,
    Domain,
    Placed,
    RequestKind,
    Rid,
    Slot,
    Step,
    Translation,
)
from iommuctl.model import Mapping as DomainMapping

if TYPE_CHECKING:
    from iommuctl.hookspecs import CheckRequest, Context, SlotChange, TranslateRequest
    from iommuctl.recorded import Events


class Recalled(NamedTuple):
    """A cache entry that an answer rests on: the structures that it was made of, as they were, from the root down.

    `tag` is what the entry is found by besides addresses, in the architecture's own terms.
    """

    cache: str
    tag: tuple[int, ...]
    steps: tuple[Step, ...]


class Answer(NamedTuple):
    """A unit's answer to a request. `hit` says that its IOTLB had the translation; `recalled` all that caches had.

    For a translation, `made_of` are what names its tables and the entries that it was made of, and `tag` is that of
    the IOTLB.
    """

    translation: Translation
    hit: bool
    recalled: tuple[Recalled, ...]
    made_of: tuple[Step, ...] = ()
    tag: tuple[int, ...] = ()


class Stale(NamedTuple):
    """A cache entry that served a request for `size` bytes at `iova` while the tables say something else.

    `changed` are those of its structures that are no longer so, from the root down. `leaf` says that each of them is
    the last one of its stage, so that no table went.
    """

    cache: str
    tag: tuple[int, ...]
    iova: int
    size: int
    changed: tuple[Step, ...]
    leaf: bool


Completion = Literal["done", "timeout", "invalid"]
"""What comes of a device-TLB invalidation: the device has forgotten, it never answers, or it answers nonsense."""


PageResponse = Literal["success", "invalid", "failure"]
"""What a group of page requests is answered with."""


class PageRequest(NamedTuple):
    """A device with PRI asks for the page of 4 KiB that begins at `iova`. It waits for an answer to its group.

    The requests of a group are of one slot and have one index, of 9 bits; the `last` one has it answered. A request for
    nothing is a stop marker: the device has asked for all that it will of that PASID, and waits for nothing.
    """

    slot: Slot
    iova: int
    read: bool
    write: bool
    group: int
    last: bool
    execute: bool = False
    privileged: bool = False

    @property
    def stops(self) -> bool:
        """Whether it is a stop marker. Without PASID there are none: such a request is answered as any other."""
        return self.last and self.slot.pasid is not None and not (self.read or self.write)


class Bus(Protocol):
    """The devices behind a unit, as far as it talks to them."""

    def respond(self, source_id: int, pasid: int | None, group: int, response: PageResponse) -> None:
        """Answer a group of a device's page requests; with a PASID, or without as devices may have it."""

    def invalidate(self, source_id: int, pasid: int | None, first: int, last: int) -> Completion:
        """Have a device forget its translations of the addresses first..last, of the PASID or of no PASID."""

    def invalidate_pasids(self, source_id: int, first: int, last: int) -> Completion:
        """The same for every PASID of the device."""


class Unit(Protocol):
    """The hardware side: one IOMMU, as software sees it through registers, memory and its answers to requests.

    It knows nothing but its registers, its caches and what memory holds.
    """

    def registers(self) -> dict[str, int]:
        """All registers by the specification's names."""

    def read_register(self, name: str) -> int: ...

    def write_register(self, name: str, value: int) -> None:
        """Write as software does; a write that commands something (a queue tail, an enable) is carried out."""

    def request(
        self,
        slot: Slot,
        iova: int,
        access: Access,
        *,
        privileged: bool,
        kind: RequestKind = "untranslated",
        size: int = 1,
    ) -> Answer:
        """A device's request: looks into the caches, fills them, updates accessed and dirty bits, records faults.

        It is for `size` bytes, of which the first one is translated. Devices ask for the bytes of each page of 4 KB by
        themselves; what a unit makes of other requests is its own affair.

        With kind "translated", `iova` is a physical address that a translation request was answered with, and the
        answer says whether the device may use it.
        """

    def page_request(self, request: PageRequest) -> None:
        """Queue a device's page request in memory, or answer it where that cannot be, as in a queue that is full.

        Raises nothing: what cannot be queued is answered or dropped as the architecture says.
        """

    def walk(
        self, slot: Slot, iova: int, access: Access, *, privileged: bool, kind: RequestKind = "untranslated"
    ) -> Translation:
        """The same question answered from memory alone, without any effect."""

    def caches(self) -> dict[str, int]:
        """How many entries each cache holds."""

    def cached_tables(self) -> Iterable[int]:
        """Where the tables begin that cached entries point to: the unit may read them at any time."""


class TableFormats(Protocol):
    """Which formats the tables of a state folder have."""

    def stage1_format(self, name: str) -> Format:
        """The stage-1 format of that name. Raises Unsupported."""

    def domain_format(self, domain: Domain) -> Format:
        """The format of a domain's table."""


class Driver(TableFormats, Protocol):
    """The driver side: installs tables in memory and tells the unit what changed, in the order that it requires.

    Table entries are written before the commands that announce them; memory that a table used is given back only
    after the caches have been told.
    """

    def capabilities(self) -> Capabilities: ...

    def start(self) -> None:
        """Build the empty root structures and the command queue, and switch translation on."""

    def device_add(self, device: Device) -> None:
        """Make a device known, with all its slots blocked. Raises Unsupported where the unit cannot serve it."""

    def device_remove(self, device: Device) -> None:
        """The reverse of device_add. All slots are empty."""

    def domain_create(self, domain: Domain) -> None:
        """Make an empty table and its cache tag."""

    def domain_destroy(self, domain: Domain) -> None:
        """Give back what domain_create and map took. Nothing uses the domain any more."""

    def map(self, domain: Domain, mapping: DomainMapping) -> None:
        """Add a mapping, with the largest pages of `domain.page_sizes` that fit."""

    def unmap(self, domain: Domain, mappings: Sequence[DomainMapping], users: Sequence[Attachment | Binding]) -> None:
        """Take whole, adjacent mappings away and flush every cache that `users` may have filled from them."""

    def install(self, change: "SlotChange") -> None:
        """Put a table into a slot, replace it, or take it away, with the invalidations that this requires."""

    def invalidate(self, bindings: Sequence[Binding], span: tuple[int, int] | None, *, leaf: bool) -> None:
        """Tell all caches that page tables changed: input addresses first..last of `span`, or everything."""

    def missing(self, slot: Slot, stale: Sequence[Stale]) -> list[Command]:
        """The commands that would have taken these cache entries away, in their order, each once."""

    def domain_root(self, domain: Domain) -> int:
        """Physical address of the domain's root table."""

    def structures(self, rid: Rid) -> Iterator[Placed]:
        """Every structure of a device that is present, from the root to what points to page tables, as memory has it.

        Each comes before those that it leads to.
        """

    def check(self, request: "CheckRequest") -> list[str]:
        """Sentences about where the structures in memory differ from what they should hold."""

    def used(self) -> Iterator[Run]:
        """Every page of table memory that holds a structure, but for the tables of domains."""


class GuestTables(Protocol):
    """What a Driver, or the formats of real hardware, offer besides where `context_tables_in_guest` is declared."""

    def used_in_guest(self, rid: Rid, guest: Memory) -> Iterator[Run]:
        """Every page of guest memory that holds a device's CD table, by GPA."""


class GuestWalk(Protocol):
    """What the formats of real hardware offer besides, where `context_tables_in_guest` is declared."""

    def translate_in_guest(self, request: "TranslateRequest", guest: Memory) -> Translation:
        """Where a request of a nested slot goes in guest memory, on real hardware: `pa` and addresses are GPAs."""


class FaultRecords(Protocol):
    """What a Driver offers besides, when it declares `fault_records`."""

    def take_faults(self, source: str) -> "Events":
        """What the unit has recorded since the last time; there is room for other records then.

        `source` is the unit's name among the backend's units.
        """


class PageRequests(Protocol):
    """What a Driver offers besides, when it declares `page_responses`."""

    def take_page_requests(self) -> tuple[list[PageRequest], bool]:
        """What the queue holds, the oldest first, and whether it has overflowed; there is room for others then.

        What found no room is gone: the unit has answered its groups, or devices ask again. So where it has overflowed,
        groups without their last request are not among them, and who has begun to collect one forgets it.
        """

    def respond(self, slot: Slot, group: int, response: PageResponse) -> None:
        """Have a group answered."""


class Architecture(Protocol):
    """A vendor's table formats, commands, records and rules."""

    @property
    def name(self) -> str: ...

    @property
    def structures(self) -> Mapping[str, type[Layout]]:
        """Every declared structure by its full name, `vtd.pasid-entry`."""

    def register_layout(self, name: str) -> type[Layout] | None:
        """The layout of a unit's register, by its name in `IommuUnit.registers`; None for one without fields."""

    def unit_words(self, registers: Mapping[str, int]) -> list[tuple[str, str]]:
        """What a unit can do and what it is doing, from its registers alone: subjects and phrases, at least one.

        Registers may be missing, as hardware gives only a few, and hold anything: what cannot be told is left out.
        """

    def unit(self, context: "Context", bus: Bus) -> Unit:
        """The unit of a state folder that `reset_unit` has prepared."""

    def reset_unit(self, context: "Context", options: Mapping[str, str]) -> None:
        """Give the unit of a fresh state folder its registers. Raises Usage for an option it does not know."""

    def driver(self, context: "Context", unit: Unit) -> Driver: ...
