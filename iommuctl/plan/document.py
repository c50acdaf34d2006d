# SPDX-License-Identifier: Apache-2.0
"""A topology document as values: objects by what they are and how they are named.

What a document leaves out is None: then an object that exists stays as it is, and a new one gets the default.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from iommuctl.model import Rid, Slot
from iommuctl.requests import SetupRequest

Kind = Literal["memory", "domain", "mapping", "pgtable", "device", "attachment", "binding"]
KINDS: tuple[Kind, ...] = ("memory", "domain", "mapping", "pgtable", "device", "attachment", "binding")
"""In this order objects can be made: each needs only kinds before it."""


class Key(NamedTuple):
    """Which object: a name, a RID, a slot, or for a mapping its domain and IOVA."""

    kind: Kind
    name: Any

    def __str__(self) -> str:
        if self.kind == "mapping":
            domain, iova = self.name
            return f"mapping {iova:#x} of {domain}"
        return f"{self.kind} {self.name}"


class MemoryEntry(NamedTuple):
    """Named memory, in bytes."""

    size: int


class DomainEntry(NamedTuple):
    """A domain without its mappings; page sizes in bytes, ascending."""

    label: str | None = None
    nest_parent: bool | None = None
    width: int | None = None
    page_sizes: tuple[int, ...] | None = None


class MappingEntry(NamedTuple):
    """A mapping of a domain, to named memory or to a physical address."""

    size: int
    memory: str | None = None
    offset: int = 0
    pa: int | None = None
    prot: str | None = None


class GuestMapping(NamedTuple):
    """What a page table maps: input addresses to guest memory. `prot` has a `p` when users are kept out."""

    iova: int
    size: int
    gpa: int
    prot: str = "rw"


class PageTableEntry(NamedTuple):
    """A page table that we build, with what it maps."""

    parent: str
    pool: tuple[int, int]
    format: str | None = None
    label: str | None = None
    mappings: tuple[GuestMapping, ...] = ()


class DeviceEntry(NamedTuple):
    """A device and what it can do. On real hardware a document cannot change that."""

    ats: bool | None = None
    pri: bool | None = None
    pasid_bits: int | None = None


class AttachmentEntry(NamedTuple):
    """A domain in a slot that was attached by itself, whether or not a page table is bound there, too."""

    domain: str
    label: str | None = None


class BindingEntry(NamedTuple):
    """A page table in a slot: one that we build, or one at a GPA."""

    domain: str
    pgtable: str | None = None
    addr: int | None = None
    format: str | None = None
    label: str | None = None
    cd_pool: tuple[int, int] | None = None


Entry: TypeAlias = (
    MemoryEntry | DomainEntry | MappingEntry | PageTableEntry | DeviceEntry | AttachmentEntry | BindingEntry
)


Path: TypeAlias = tuple[str | int, ...]
"""Where something stands in a document: keys, and numbers of elements of an array."""


class Document(NamedTuple):
    """What should be there. `places` tells where each object stands, in a document that was read."""

    backend: str | None
    machine: SetupRequest | None
    objects: dict[Key, Entry]
    places: Mapping[Key, Path] = {}


def slot_of(key: Key) -> Slot:
    """The slot of an attachment or a binding."""
    slot: Slot = key.name
    return slot


def rid_of(key: Key) -> Rid:
    """The RID of a device."""
    rid: Rid = key.name
    return rid


def path_text(path: Path) -> str:
    """A path as error messages write it: `domain.vm1.mappings[2].size`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isascii() and part.replace("-", "_").replace("_", "a").isalnum():
            text += f".{part}"
        else:
            text += f".{json.dumps(part, ensure_ascii=False)}"
    return text.removeprefix(".")
