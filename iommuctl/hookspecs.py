# SPDX-License-Identifier: Apache-2.0
"""The contract of a backend: every hook, its arguments and its promises.

A backend is a module (or object) whose functions carry the `hookimpl` marker; it is registered in the entry-point
group `iommuctl.backends`. The core has checked the rules of the generic layer before it calls a hook, keeps the
books, and undoes a failed operation: whatever a hook did to `context` is forgotten when it raises.

A complete backend that offers nothing yet:

    from iommuctl.hookspecs import API_VERSION, Availability, hookimpl

    @hookimpl
    def iommuctl_probe():
        return Availability("mine", False, "no such hardware here", None, API_VERSION)

and in its pyproject.toml:

    [project.entry-points."iommuctl.backends"]
    mine = "my_package.backend"

The requests are in iommuctl.requests and can be imported from here. API_VERSION is (major, minor); a plugin is
accepted when its major is equal and its minor at most the core's.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pluggy

from iommuctl.formats.memory import TableMemory
from iommuctl.requests import (
    Availability,
    CheckRequest,
    DirtyRequest,
    DmaRequest,
    FaultsRequest,
    InvalidateRequest,
    MapRequest,
    MemoryPlan,
    MemoryRequest,
    MemorySource,
    RepairRequest,
    Settled,
    SetupRequest,
    SlotChange,
    TranslateRequest,
    Truth,
    UnmapRequest,
)

if TYPE_CHECKING:
    from iommuctl.architecture import Architecture, Driver, TableFormats
    from iommuctl.capabilities import Capabilities
    from iommuctl.model import (
        Call,
        Command,
        Device,
        Dirty,
        DmaResult,
        Domain,
        DomainRanges,
        IommuUnit,
        Memory,
        Rid,
        Translation,
    )
    from iommuctl.page_requests import AskedPages, PageAnswer
    from iommuctl.recorded import Events

__all__ = [
    "API_VERSION",
    "Availability",
    "BackendSpec",
    "CheckRequest",
    "Context",
    "DirtyRequest",
    "DmaRequest",
    "FaultsRequest",
    "HardwareContext",
    "InvalidateRequest",
    "MapRequest",
    "MemoryPlan",
    "MemoryRequest",
    "MemorySource",
    "RepairRequest",
    "Rows",
    "Settled",
    "SetupRequest",
    "SlotChange",
    "TranslateRequest",
    "Truth",
    "UnmapRequest",
    "hookimpl",
]

API_VERSION = (1, 3)

hookspec = pluggy.HookspecMarker("iommuctl")
hookimpl = pluggy.HookimplMarker("iommuctl")


class Rows(Protocol):
    """What a backend keeps between two commands: values (anything JSON holds) by kind and key.

    Keys of a kind are strings and are kept in their order.

    One kind has a meaning beyond its backend: the keys of `NAME.device`, by the name of the backend, are RIDs as `str`
    writes them. Completion offers them and asks no backend; where there are no such rows, it offers the RIDs in use.
    """

    def get(self, kind: str, key: str) -> Any:
        """The value, or None."""

    def put(self, kind: str, key: str, value: Any) -> None: ...

    def delete(self, kind: str, key: str) -> None:
        """Remove a row; nothing happens when there is none."""

    def scan(
        self, kind: str, first: str = "", last: str | None = None, *, limit: int = -1
    ) -> Iterator[tuple[str, Any]]:
        """At most `limit` rows in the order of their keys, from `first` up to and including `last` (else to the end).

        The rows are read before the first is handed out, so they may be changed meanwhile.
        """

    def count(self, kind: str) -> int: ...


class Context(Protocol):
    """What a hook works on: one transaction of one state folder."""

    @property
    def memory(self) -> TableMemory:
        """RAM, with an allocator for table pages."""

    @property
    def rows(self) -> Rows: ...

    def architecture(self, name: str) -> "Architecture":
        """The architecture of that name, wherever it is installed. Raises BackendUnavailable."""

    def log(self, command: "Command") -> None:
        """Note a command that was given to the hardware, for `commands[]` of the answer."""

    def warn(self, text: str) -> None:
        """Note what is no error and what the user should know: a sentence, for `warnings[]` of the answer."""


_T = TypeVar("_T")


class HardwareContext(Context, Protocol):
    """What a backend of real hardware has besides: the kernel's objects outlive a command that is killed.

    Before it calls the kernel, a hook notes an intent; when the operation fails, or its process is killed before the
    end of the commit, `iommuctl_repair` gets all intents and what the rows say then. What destroys objects that the
    rows still name is done after the commit.
    """

    @property
    def dry_run(self) -> bool:
        """Whether nothing is to be done but to log the calls: it is all forgotten at the end."""

    @property
    def folder(self) -> Path:
        """The state folder."""

    def intend(self, intent: Any) -> None:
        """Note, before it is done, what is about to be done to the kernel: anything JSON holds."""

    def write_out(self) -> bool:
        """Bring what was written to new pages to memory now: a device is about to be led to them.

        Returns whether memory is as written. What was in use before the transaction is written after the commit.
        """

    def after_commit(self, action: "Callable[[], None]") -> None:
        """Have something done when the change has taken effect. When it raises, the next command has a repair."""

    def kept(self, factory: "Callable[[Path], _T]") -> _T:
        """What `factory` makes of the state folder: once, and kept open until the folder is closed (`close()`)."""

    def log_call(self, call: "Call") -> None:
        """Note a call to the kernel, for `calls[]` of the answer."""


class BackendSpec:
    """The hooks. All but `iommuctl_probe` are called on the selected backend alone, inside a transaction."""

    @hookspec
    def iommuctl_probe(self) -> Availability:  # type: ignore[empty-body]
        """Say whether the backend can work here. Cheap, without effect; asked of every backend by `backend list`."""

    @hookspec(firstresult=True)
    def iommuctl_plan_memory(self, request: SetupRequest) -> MemoryPlan | None:
        """Where RAM and table memory are, for a backend that has RAM of its own; None for real hardware.

        Raises Usage for a plan that cannot be.
        """

    @hookspec(firstresult=True)
    def iommuctl_setup(self, context: Context, request: SetupRequest) -> str:  # type: ignore[empty-body]
        """Prepare a fresh state folder. Returns the architecture's name."""

    @hookspec(firstresult=True)
    def iommuctl_capabilities(self, context: Context) -> "Capabilities":  # type: ignore[empty-body]
        """What the backend declares in this state folder. What it declares must work."""

    @hookspec(firstresult=True)
    def iommuctl_formats(self, context: Context) -> "TableFormats":  # type: ignore[empty-body]
        """The page-table formats: of the tables that the core builds in guest memory, and of domains.

        Only for a backend that has no `iommuctl_driver`, as it cannot read all its tables.
        """

    @hookspec(firstresult=True)
    def iommuctl_driver(self, context: Context) -> "Driver":  # type: ignore[empty-body]
        """The driver side of the architecture, for a backend whose tables can all be read."""

    @hookspec(firstresult=True)
    def iommuctl_devices(self, context: Context, rid: "Rid | None") -> "list[Device]":  # type: ignore[empty-body]
        """All devices, or the one with that RID (an empty list when there is none).

        A backend that knows why one that is there is none of its own raises NoSuchDevice with that reason.
        """

    @hookspec(firstresult=True)
    def iommuctl_units(self, context: Context) -> "list[IommuUnit]":  # type: ignore[empty-body]
        """The IOMMUs that the devices are behind, with the registers that can be read, all or a few of them.

        Names are unique, and the same the next time. No register is changed by being read.
        """

    @hookspec(firstresult=True)
    def iommuctl_device_add(self, context: Context, device: "Device") -> bool:  # type: ignore[empty-body]
        """Simulators: make a device, all its slots empty. Returns True."""

    @hookspec(firstresult=True)
    def iommuctl_device_remove(self, context: Context, device: "Device") -> bool:  # type: ignore[empty-body]
        """Simulators: take a device away. Its slots are empty. Returns True."""

    @hookspec(firstresult=True)
    def iommuctl_domain_create(self, context: Context, domain: "Domain", dirty: bool) -> bool:  # type: ignore[empty-body]
        """Make the table of a new, empty domain; `dirty` where it is to track what devices write. Returns True."""

    @hookspec(firstresult=True)
    def iommuctl_domain_destroy(self, context: Context, domain: "Domain") -> bool:  # type: ignore[empty-body]
        """Take a domain's table away with all its mappings. No slot uses it. Returns True."""

    @hookspec(firstresult=True)
    def iommuctl_map(self, context: Context, request: MapRequest) -> bool:  # type: ignore[empty-body]
        """Add a mapping; every slot that uses the domain sees it at once. Returns True."""

    @hookspec(firstresult=True)
    def iommuctl_unmap(self, context: Context, request: UnmapRequest) -> bool:  # type: ignore[empty-body]
        """Take mappings away and flush: when this returns, no cache of any user translates them. Returns True."""

    @hookspec(firstresult=True)
    def iommuctl_install(self, context: Context, change: SlotChange) -> bool:  # type: ignore[empty-body]
        """Change what a slot holds. Undo is the same call with old and new swapped. Returns True.

        On real hardware, before a call by which the kernel answers the page requests that wait in the slot, note the
        intent `page_requests.ended(slot)`: so the core ends them, too, where the change is undone.
        """

    @hookspec(firstresult=True)
    def iommuctl_invalidate(self, context: Context, request: InvalidateRequest) -> bool:  # type: ignore[empty-body]
        """Invalidate: one command for each tag and one for each device, IOTLB before device TLB. Returns True."""

    @hookspec(firstresult=True)
    def iommuctl_translate(self, context: Context, request: TranslateRequest) -> "Translation":  # type: ignore[empty-body]
        """Walk the tables as the hardware would, with every entry visited; no cache, no effect."""

    @hookspec(firstresult=True)
    def iommuctl_check(self, context: Context, request: CheckRequest) -> list[str]:  # type: ignore[empty-body]
        """Sentences about where tables and rows disagree; an empty list when they agree."""

    @hookspec(firstresult=True)
    def iommuctl_faults(self, context: Context, request: FaultsRequest) -> "list[Events]":  # type: ignore[empty-body]
        """Hand over what the queues of recorded faults hold, an Events for each, and take it out of them.

        For a backend that declares `fault_records`. It is bounded: what a flood leaves is there for the next call. On
        real hardware nothing may fail once something was read, and what cannot be read is told with `context.warn`:
        the core notes what it is handed over before all else, and stores it even where the operation is undone. Rows
        of the backend are not, hence `request.positions`. Where the kernel's objects are lost, nothing is handed over.
        """

    @hookspec(firstresult=True)
    def iommuctl_page_requests(self, context: Context) -> "AskedPages":  # type: ignore[empty-body]
        """Hand over the page requests that queues hold, and take them out of them.

        For a backend that declares `page_responses`. It is bounded: what a flood leaves is there for the next call. On
        real hardware a hook notes an intent before it reads: in the repair of a reader that died, what it took out
        (which no token of `truth` tells of) is answered invalid. What was read is kept as that of `iommuctl_faults`.
        """

    @hookspec(firstresult=True)
    def iommuctl_respond(self, context: Context, request: "PageAnswer") -> bool:  # type: ignore[empty-body]
        """Answer a group of page requests, by a response that is declared. Returns True.

        A group that was answered by others meanwhile, as when its table went, needs no answer: that is no error. On
        real hardware an intent is noted before, and the repair answers again.
        """

    @hookspec(firstresult=True)
    def iommuctl_dma(self, context: Context, request: DmaRequest) -> "DmaResult":  # type: ignore[empty-body]
        """Simulators: do a DMA, with caches, accessed and dirty bits and fault recording."""

    @hookspec(firstresult=True)
    def iommuctl_settle(self, context: Context, request: Settled) -> bool:  # type: ignore[empty-body]
        """Simulators: an operation is about to take effect that wrote to memory that was in use. Returns True."""

    @hookspec(firstresult=True)
    def iommuctl_describe(self, context: Context) -> dict[str, Any]:  # type: ignore[empty-body]
        """Simulators: the unit's registers {name: value} and caches {name: entries}, for `sim show`."""

    # Real hardware. What follows is called with a HardwareContext, and so are the hooks above.

    @hookspec(firstresult=True)
    def iommuctl_lost(self, context: "HardwareContext") -> str:  # type: ignore[empty-body]
        """Why the kernel's objects that rows tell of are gone; "" when they are there. Without effect.

        Then hooks raise Lost, but for those that take something away: what is gone need not be there.
        """

    @hookspec(firstresult=True)
    def iommuctl_repair(self, context: "HardwareContext", request: RepairRequest) -> bool:  # type: ignore[empty-body]
        """After a change that did not come to its end: make the kernel agree with what rows say. Idempotent.

        Objects that no row names are destroyed. Where the kernel's objects are lost there is nothing to do.
        """

    @hookspec(firstresult=True)
    def iommuctl_recover(self, context: "HardwareContext", truth: Truth) -> list[str]:  # type: ignore[empty-body]
        """Make everything again that is lost. Returns sentences about what is not as it was: memory that is empty."""

    @hookspec(firstresult=True)
    def iommuctl_device_bind(self, context: "HardwareContext", rid: "Rid") -> "Device":  # type: ignore[empty-body]
        """Give a device to vfio-pci, remember its driver, and hold it. Raises GroupNotViable, KernelRefused."""

    @hookspec(firstresult=True)
    def iommuctl_device_unbind(self, context: "HardwareContext", rid: "Rid") -> "Device":  # type: ignore[empty-body]
        """Let a device go, whose slots are empty, and give it back to the driver that it had."""

    @hookspec(firstresult=True)
    def iommuctl_memory_create(self, context: "HardwareContext", request: MemoryRequest) -> bool:  # type: ignore[empty-body]
        """Make, open or take over named memory, and hold it. Returns True."""

    @hookspec(firstresult=True)
    def iommuctl_memory_destroy(self, context: "HardwareContext", memory: "Memory") -> bool:  # type: ignore[empty-body]
        """Let named memory go, which nothing maps any more. Returns True."""

    @hookspec(firstresult=True)
    def iommuctl_memory_descriptor(self, context: "HardwareContext", memory: "Memory") -> int:  # type: ignore[empty-body]
        """A file descriptor whose bytes are the memory's. Raises Lost, Unsupported for memory of a device."""

    @hookspec(firstresult=True)
    def iommuctl_memory_source(self, context: "HardwareContext", memory: "Memory") -> MemorySource:  # type: ignore[empty-body]
        """Where named memory comes from, as it was asked for."""

    @hookspec(firstresult=True)
    def iommuctl_ranges(self, context: "HardwareContext", domain: "Domain") -> "DomainRanges":  # type: ignore[empty-body]
        """Which input addresses the domain can map, as the kernel and its devices are now."""

    @hookspec(firstresult=True)
    def iommuctl_dirty(self, context: "HardwareContext", request: DirtyRequest) -> "Dirty":  # type: ignore[empty-body]
        """Dirty tracking of a domain: `ranges` are empty unless it is read. Raises Unsupported."""

    @hookspec(firstresult=True)
    def iommuctl_descriptors(self, context: "HardwareContext", rids: "list[Rid]") -> dict[str, int]:  # type: ignore[empty-body]
        """The file descriptors that a program needs to use these devices: `iommufd`, and `vfio:RID` of each."""
