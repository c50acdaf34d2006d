# SPDX-License-Identifier: Apache-2.0
"""The objects of an iommufd, as tests see them."""

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
    """`under` is its IOAS, or its parent's id if it is nested."""

    under: int


@dataclass
class Device:
    """A bound device: the node, and what is attached to it and to its PASIDs."""

    node: str
    slots: dict[int | None, int] = field(default_factory=dict)


Object = Ioas | Hwpt | Device
