# SPDX-License-Identifier: Apache-2.0
"""What page tables map, as ranges: joined, put together, and the way from one set of them to another."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from iommuctl.plan.document import GuestMapping

if TYPE_CHECKING:
    from iommuctl.formats.radix import Leaf


class Way(NamedTuple):
    """What to unmap, and then what to map. Ranges are ascending."""

    unmap: tuple[GuestMapping, ...]
    map: tuple[GuestMapping, ...]


def pages(leaves: "Iterable[Leaf]") -> list[GuestMapping]:
    """The pages of a page table, each as it is mapped."""
    return [GuestMapping(leaf.iova, leaf.size, leaf.pa, leaf.prot) for leaf in leaves]


def joined(mappings: Iterable[GuestMapping]) -> tuple[GuestMapping, ...]:
    """The mappings ascending, those that continue each other as one."""
    found: list[GuestMapping] = []
    for one in sorted(mappings):
        if found and _continues(found[-1], one):
            found[-1] = found[-1]._replace(size=found[-1].size + one.size)
        else:
            found.append(one)
    return tuple(found)


def together(wanted: Iterable[GuestMapping], kept: Iterable[GuestMapping]) -> tuple[GuestMapping, ...]:
    """What is wanted, and of the others what it leaves room for."""
    wanted = joined(wanted)
    return joined([*wanted, *_without(joined(kept), wanted, only_same=False)])


def way(mapped: Iterable[GuestMapping], wanted: Iterable[GuestMapping]) -> Way:
    """From the pages that are mapped to the ranges that should be. A page goes as a whole or not at all."""
    mapped, wanted = sorted(mapped), joined(wanted)
    partly = {part.iova for part in _without(mapped, wanted, only_same=True, whole=True)}
    stay = [page for page in mapped if page.iova not in partly]
    go = [page for page in mapped if page.iova in partly]
    return Way(joined(go), tuple(_without(wanted, joined(stay), only_same=True)))


def _continues(one: GuestMapping, other: GuestMapping) -> bool:
    return (other.iova, other.gpa, other.prot) == (one.iova + one.size, one.gpa + one.size, one.prot)


def _without(
    ranges: Iterable[GuestMapping], others: Iterable[GuestMapping], *, only_same: bool, whole: bool = False
) -> Iterator[GuestMapping]:
    """What is left of ascending ranges without the addresses of others, or with `only_same` without those that map
    them to the same. `whole` gives ranges of which anything is left as they are.
    """
    others = list(others)
    index = 0
    for one in ranges:
        at, end = one.iova, one.iova + one.size
        left: list[GuestMapping] = []
        while index < len(others) and others[index].iova + others[index].size <= at:
            index += 1
        following = index
        while following < len(others) and others[following].iova < end:
            other = others[following]
            following += 1
            if only_same and (other.gpa - other.iova, other.prot) != (one.gpa - one.iova, one.prot):
                continue
            if other.iova > at:
                left.append(_part(one, at, other.iova))
            at = max(at, other.iova + other.size)
        if at < end:
            left.append(_part(one, at, end))
        yield from [one] if whole and left else left


def _part(mapping: GuestMapping, first: int, end: int) -> GuestMapping:
    return GuestMapping(first, end - first, mapping.gpa + first - mapping.iova, mapping.prot)
