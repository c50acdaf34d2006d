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

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from iommuctl.formats.memory import TableMemory
from iommuctl.requests import (
    Availability,
    CheckRequest,
    DmaRequest,
    InvalidateRequest,
    MapRequest,
    MemoryPlan,
    Settled,
    SetupRequest,
    SlotChange,
    TranslateRequest,
    UnmapRequest,
)

if TYPE_CHECKING:
    from iommuctl.architecture import Architecture, Driver
    from iommuctl.capabilities import Capabilities
    from iommuctl.model import Command, Device, DmaResult, Domain, IommuUnit, Rid, Translation

__all__ = [
    "API_VERSION",
    "Availability",
    "BackendSpec",
    "CheckRequest",
    "Context",
    "DmaRequest",
    "InvalidateRequest",
    "MapRequest",
    "MemoryPlan",
    "Rows",
    "Settled",
    "SetupRequest",
    "SlotChange",
    "TranslateRequest",
    "UnmapRequest",
    "hookimpl",
]

API_VERSION = (1, 0)

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
    def iommuctl_driver(self, context: Context) -> "Driver":  # type: ignore[empty-body]
        """The driver side of the architecture, for the page tables that the core builds in guest memory."""

    @hookspec(firstresult=True)
    def iommuctl_devices(self, context: Context, rid: "Rid | None") -> "list[Device]":  # type: ignore[empty-body]
        """All devices, or the one with that RID (an empty list when there is none)."""

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
    def iommuctl_domain_create(self, context: Context, domain: "Domain") -> bool:  # type: ignore[empty-body]
        """Make the table of a new, empty domain. Returns True."""

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
        """Change what a slot holds. Undo is the same call with old and new swapped. Returns True."""

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
    def iommuctl_dma(self, context: Context, request: DmaRequest) -> "DmaResult":  # type: ignore[empty-body]
        """Simulators: do a DMA, with caches, accessed and dirty bits and fault recording."""

    @hookspec(firstresult=True)
    def iommuctl_settle(self, context: Context, request: Settled) -> bool:  # type: ignore[empty-body]
        """Simulators: an operation is about to take effect that wrote to memory that was in use. Returns True."""

    @hookspec(firstresult=True)
    def iommuctl_describe(self, context: Context) -> dict[str, Any]:  # type: ignore[empty-body]
        """Simulators: the unit's registers {name: value} and caches {name: entries}, for `sim show`."""
