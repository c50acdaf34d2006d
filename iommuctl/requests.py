# SPDX-License-Identifier: Apache-2.0
"""What the core asks of a backend's hooks, as plain values. Requests only grow: a new member has a default."""

from collections.abc import Mapping, Sequence, Set
from typing import Any, Literal, NamedTuple

from iommuctl.formats.memory import TableMemory
from iommuctl.model import Access, Binding, Device, Domain, Memory, Occupant, Rid, Slot
from iommuctl.model import Mapping as DomainMapping


class Availability(NamedTuple):
    """Whether a backend can work on this machine, and if not, why."""

    name: str
    available: bool
    because: str
    architecture: str | None
    api: tuple[int, int]


class SetupRequest(NamedTuple):
    """How a state folder is to be prepared. Sizes and addresses in bytes; None leaves the choice to the backend."""

    architecture: str | None = None
    ram: tuple[int, int] | None = None
    tables: tuple[int, int] | None = None
    options: Mapping[str, str] = {}


class MemoryPlan(NamedTuple):
    """The RAM of a state folder and the part of it that table pages are taken from, as (base, size)."""

    ram: tuple[int, int]
    tables: tuple[int, int]


class MapRequest(NamedTuple):
    """Add `mapping` to `domain`. It is aligned, free, and inside the aperture."""

    domain: Domain
    mapping: DomainMapping


class UnmapRequest(NamedTuple):
    """Take whole mappings away that lie one after the other. `users` are all slots that can reach the domain."""

    domain: Domain
    mappings: Sequence[DomainMapping]
    users: Sequence[Occupant]


class SlotChange(NamedTuple):
    """Attach, replace, bind, unbind and detach in one: the slot goes from `old` to `new`; None is empty.

    `guest` is there where `context_tables_in_guest` is declared and `old` or `new` is a binding: the memory of its
    parent, addressed by GPA. Its pages come from one pool, which stays the RID's until the last of its bindings goes.

    `page_requests` says that page requests of the slot are to be queued, by what the slot goes to; it is there where
    `page_responses` are declared. On real hardware `old` and `new` can be the same but for that.
    """

    slot: Slot
    old: Occupant | None
    new: Occupant | None
    guest: TableMemory | None = None
    page_requests: bool = False


class InvalidateRequest(NamedTuple):
    """Tell the caches that the page tables of `bindings` changed.

    `first` and `last` are input addresses, both inclusive, or None for everything; `leaf` says that only leaf
    entries changed.
    """

    bindings: Sequence[Binding]
    first: int | None = None
    last: int | None = None
    leaf: bool = False


class TranslateRequest(NamedTuple):
    """A question: where would this request go?"""

    slot: Slot
    iova: int
    access: Access = "r"
    privileged: bool = False


class DmaRequest(NamedTuple):
    """A simulated DMA. `data` is what a write carries; a read has `size`.

    With `translated`, the device translates the addresses by itself, through its own TLB (ATS).
    """

    slot: Slot
    iova: int
    size: int
    data: bytes | None = None
    privileged: bool = False
    translated: bool = False


class Settled(NamedTuple):
    """An operation, as one types it, and its writes to memory that was in use: address, the old bytes, the new ones.

    `fresh` are the pages that nothing used before it and that it wrote.
    """

    operation: str
    writes: Sequence[tuple[int, bytes, bytes]]
    fresh: Set[int] = frozenset()


class CheckRequest(NamedTuple):
    """Everything that should be in the tables. `mappings` are ascending, by the ids of the domains.

    `guests` are the memories that SlotChange.guest was for the devices with bindings, to be read only.
    """

    devices: Sequence[Device]
    domains: Sequence[Domain]
    mappings: Mapping[int, Sequence[DomainMapping]]
    slots: Mapping[Slot, Occupant]
    guests: Mapping[Rid, TableMemory] = {}


class MemorySource(NamedTuple):
    """Where named memory comes from, on real hardware: one of them, or none for a memory file of our own.

    `fd` is (PID, descriptor) of a process that has it, `dma_buf` (RID, number of the BAR).
    """

    path: str | None = None
    fd: tuple[int, int] | None = None
    dma_buf: tuple[Rid, int] | None = None
    hugepages: bool = False


NEW_MEMORY = MemorySource()
"""Memory that is made for the purpose: RAM of a simulated machine, a memory file of the kernel's."""


class MemoryRequest(NamedTuple):
    """Make named memory. `memory.pa` is the address by which rows and `Context.memory` know it, and nobody else."""

    memory: Memory
    source: MemorySource = NEW_MEMORY


class DirtyRequest(NamedTuple):
    """Switch dirty tracking of a domain on or off, or read what was written since the last time, and forget it."""

    domain: Domain
    action: Literal["on", "off", "read"]
    mappings: Sequence[DomainMapping] = ()


class FaultsRequest(NamedTuple):
    """Hand over what queues hold. `positions` are those that came with the events that were stored last, by source."""

    positions: Mapping[str, Any]


class Truth(NamedTuple):
    """What the rows say: all that should be there. `mappings` are ascending, by the ids of the domains.

    `guests` are the memories that SlotChange.guest was for the devices with bindings. `page_requests` are the slots
    whose page requests are to be queued (SlotChange), `tokens` are those of the groups that wait for an answer.
    """

    domains: Sequence[Domain]
    mappings: Mapping[int, Sequence[DomainMapping]]
    slots: Mapping[Slot, Occupant]
    memories: Sequence[Memory]
    guests: Mapping[Rid, TableMemory] = {}
    page_requests: Set[Slot] = frozenset()
    tokens: Sequence[Any] = ()


class RepairRequest(NamedTuple):
    """Bring what `intents` name, as the backend noted them, to what rows say."""

    intents: Sequence[Any]
    truth: Truth
