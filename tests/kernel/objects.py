# SPDX-License-Identifier: Apache-2.0
"""The objects of an iommufd, as tests see them. What names another object by its id keeps that from being destroyed."""

from dataclasses import dataclass, field
from typing import NamedTuple


class Mapped(NamedTuple):
    """A mapping of an IOAS: bytes, the name of the file as /proc shows it, and IOMMU_IOAS_MAP_* without FIXED_IOVA."""

    iova: int
    size: int
    file: str
    start: int
    flags: int


@dataclass
class Ioas:
    mapped: list[Mapped] = field(default_factory=list)


@dataclass
class Hwpt:
    """`under` is its IOAS, or if it is nested its parent or its vIOMMU; `data` is then what the unit keeps of it.

    `fault` is the queue of its page requests, 0 for none.
    """

    under: int
    unit: str
    nest_parent: bool = False
    pasids: bool = False
    nested: bool = False
    data: bytes = b""
    fault: int = 0


@dataclass
class Viommu:
    """`parent` is the nest parent."""

    parent: int
    unit: str
    type: int


@dataclass
class Vdevice:
    """The number `virt_id` of a device on a vIOMMU."""

    viommu: int
    device: int
    virt_id: int


@dataclass
class Veventq:
    """`depth` events have room; `sequence` is the number of the next, and `losing` is set while there is none."""

    viommu: int
    type: int
    depth: int
    sequence: int = 0
    losing: bool = False


class Page(NamedTuple):
    """A page that a device asks for, with IOMMU_PGFAULT_PERM_*."""

    address: int
    permissions: int


class Group(NamedTuple):
    """Page requests of a device, by its object; `number` is the device's."""

    device: int
    pasid: int | None
    number: int
    pages: tuple[Page, ...]


@dataclass
class FaultQueue:
    """Groups that were not read yet, and those that were and wait for an answer, by their cookies."""

    unread: list[Group] = field(default_factory=list)
    read: dict[int, Group] = field(default_factory=dict)


@dataclass
class Device:
    """A bound device: the node, and what is attached to it and to its PASIDs.

    `stream` is what events are reported as while a nested table is attached: a vIOMMU, and the number on it. `answered`
    are the answers to page requests: PASID, number of the group, code.
    """

    node: str
    slots: dict[int | None, int] = field(default_factory=dict)
    stream: tuple[int, int] | None = None
    answered: list[tuple[int | None, int, int]] = field(default_factory=list, compare=False)


class Dead(NamedTuple):
    """The id of a vDEVICE whose device was closed: it is no object any more, and is not given again."""


Object = Ioas | Hwpt | Viommu | Vdevice | Veventq | FaultQueue | Device | Dead


def used(objects: dict[int, Object]) -> set[int]:
    """The ids that an object names."""
    found: set[int] = set()
    for one in objects.values():
        match one:
            case Hwpt():
                found |= {one.under, one.fault} - {0}
            case Viommu():
                found.add(one.parent)
            case Vdevice() | Veventq():
                found.add(one.viommu)
            case Device():
                found |= set(one.slots.values())
    return found
