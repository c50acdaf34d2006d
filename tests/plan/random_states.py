# SPDX-License-Identifier: Apache-2.0
"""State folders with anything in them, made by calls that know nothing of documents."""

import contextlib
import random
from collections.abc import Callable
from typing import Any, TypeAlias

from hypothesis import strategies as st

from iommuctl import Iommu
from iommuctl.errors import IommuError
from iommuctl.model import Attachment

KIB, MIB = 1 << 10, 1 << 20
RIDS = ("0000:00:01.0", "0000:00:02.0")
DOMAINS = ("d1", "d2", "d3")
TABLES = ("t1", "t2")
MEMORY = ("m1", "m2")
LABELS = (None, "one", "two words")
SVA = 0x7F00_0000_0000

Call: TypeAlias = tuple[int, int, int, int]


def _memory(iommu: Iommu, a: int, b: int, c: int) -> Any:
    return iommu.memory_create(MEMORY[a % 2], (64 * KIB, 2 * MIB, 4 * MIB + 4 * KIB)[b % 3])


def _domain(iommu: Iommu, a: int, b: int, c: int) -> Any:
    pages = (None, (4 * KIB,), (4 * KIB, 2 * MIB))[c % 3]
    width = (None, 39, 48)[b // 3 % 3]
    return iommu.domain_create(
        DOMAINS[a % 3], nest_parent=a // 3 % 3 > 0, width=width, page_sizes=pages, label=LABELS[b % 3]
    )


def _guest(iommu: Iommu, a: int, b: int, c: int) -> Any:
    """The memory in which page tables can lie: no two domains have the same there."""
    target: dict[str, Any] = {"memory": "m1"} if b % 2 and a % 3 == 0 else {"pa": (12 + 4 * (a % 3)) * MIB}
    return iommu.map(DOMAINS[a % 3], iova=0, size=(64 * KIB, MIB, 4 * MIB)[c % 3], **target)


def _map(iommu: Iommu, a: int, b: int, c: int) -> Any:
    target: dict[str, Any] = (
        {"memory": MEMORY[b % 2], "offset": c % 3 * 4 * KIB} if c % 4 else {"pa": MIB + (b % 8) * 4 * KIB}
    )
    size = (4 * KIB, 8 * KIB, 2 * MIB)[c // 4 % 3]
    return iommu.map(
        DOMAINS[a % 3], iova=8 * MIB + (b % 6) * 4 * KIB, size=size, prot=("rw", "r")[a // 3 % 2], **target
    )


def _pgtable(iommu: Iommu, a: int, b: int, c: int) -> Any:
    formats = (None, "vtd.first-stage-4", "vtd.first-stage-5")
    return iommu.pgtable_create(
        TABLES[a % 2], parent=DOMAINS[b % 3], pool=(c % 3) * 32 * KIB, pool_size=(32 + 32 * (c // 3 % 2)) * KIB,
        format=formats[a // 2 % 3], label=LABELS[b // 3 % 3],
    )  # fmt: skip


def _pgtable_map(iommu: Iommu, a: int, b: int, c: int) -> Any:
    size = (4 * KIB, 12 * KIB, 2 * MIB)[b % 3]
    return iommu.pgtable_map(
        TABLES[a % 2], iova=SVA + (b // 3 % 4) * 4 * KIB * (1 if size < MIB else 512), size=size,
        gpa=(8 + 2 * (c % 2)) * MIB if size == 2 * MIB else 8 * MIB + (c % 6) * 4 * KIB,
        prot=("rw", "r")[a // 2 % 2], privileged=a // 4 % 4 == 0,
    )  # fmt: skip


def _device(iommu: Iommu, a: int, b: int, c: int) -> Any:
    return iommu.device_add(RIDS[a % 2], ats=b % 2 == 0, pri=c % 3 == 0, pasid_bits=(8, 2, 0)[b // 2 % 3])


def _attach(iommu: Iommu, a: int, b: int, c: int) -> Any:
    return iommu.attach(DOMAINS[b % 3], RIDS[a % 2], pasid=(None, 1, 2, 3)[c % 4], label=LABELS[c // 4 % 3])


def _bind(iommu: Iommu, a: int, b: int, c: int) -> Any:
    if b % 3 == 0:
        target: dict[str, Any] = {
            "addr": (c // 4 % 4) * 4 * KIB + 6 * MIB,
            "format": (None, "vtd.first-stage-4")[b % 2],
        }
    else:
        target = {"pgtable": TABLES[b % 2]}
    pasid, label = (None, 1, 2, 3)[c % 4], LABELS[c // 4 % 3]
    slot = [held for held in iommu.slots(rid=RIDS[a % 2]) if held.slot.pasid == pasid]
    parent = slot[0].domain.name if slot else DOMAINS[b // 3 % 3]
    if "pgtable" in target and not slot:
        parent = iommu.pgtable(target["pgtable"]).parent.name
    return iommu.bind_pgtable(parent, RIDS[a % 2], pasid=pasid, label=label, **target)


CALLS: tuple[Callable[[Iommu, int, int, int], Any], ...] = (
    _memory, _domain, _guest, _map, _pgtable, _pgtable_map, _device, _attach, _bind,
)  # fmt: skip

# By kind of call: how many names there are to be used, and how often each is tried.
_TRIES = ((2, 1), (3, 1), (3, 2), (3, 3), (2, 3), (2, 4), (2, 1), (2, 5), (2, 6))


def _calls(seed: int) -> list[Call]:
    """Each name is used in most states, with numbers that are anything: evenly, so that most calls find a partner."""
    chance = random.Random(seed)
    found = []
    for kind, (names, tries) in enumerate(_TRIES):
        for name in range(names):
            for _ in range(tries):
                if chance.random() < 0.85:
                    a = name + names * chance.randrange(12)
                    found.append((kind, a, chance.randrange(36), chance.randrange(36)))
    return found


STATES: st.SearchStrategy[list[Call]] = st.integers(0, 1 << 32).map(_calls)
"""Calls in an order in which most of them work."""


def _pair(one: list[Call], other: list[Call], differ: set[int]) -> tuple[list[Call], list[Call]]:
    mixed = [[call for call in (other if kind in differ else one) if call[0] == kind] for kind in range(len(CALLS))]
    return one, [call for part in mixed for call in part]


_EVERY = set(range(len(CALLS)))
PAIRS = st.builds(_pair, STATES, STATES, st.sampled_from([_EVERY, _EVERY, *({kind} for kind in _EVERY), {3, 5}, {5}]))
"""Two states: unlike, or alike but for some kinds of objects."""


def build(iommu: Iommu, calls: list[Call]) -> None:
    """Make the calls in one transaction; what is refused is left out."""
    with iommu.transaction():
        for kind, a, b, c in calls:
            with contextlib.suppress(IommuError):
                CALLS[kind](iommu, a, b, c)


def probes(iommu: Iommu) -> list[tuple[str, int | None, int]]:
    """An address of each mapping, in each slot with a table that we built: RID, PASID, address."""
    found = []
    for held in iommu.slots():
        if isinstance(held, Attachment):
            mapped = [(one.iova, one.size) for one in iommu.mappings(held.domain.name)]
        elif held.pgtable is not None:
            mapped = [(leaf.iova, leaf.size) for leaf in iommu.pgtable_mappings(held.pgtable)]
        else:
            continue
        found += [(str(held.slot.rid), held.slot.pasid, iova + size - 8) for iova, size in mapped[:4]]
        found += [(str(held.slot.rid), held.slot.pasid, iova) for iova in (0, SVA, 9 * MIB)]
    return found


def lands(iommu: Iommu, rid: str, pasid: int | None, iova: int) -> tuple[str | None, int] | None:
    """Where a read ends: memory and offset, or a physical address; None for a fault. Caches must agree."""
    told = iommu.translate(rid, iova, pasid=pasid)
    done = iommu.dma(rid, iova, size=8, pasid=pasid)
    assert not done.stale, (rid, pasid, hex(iova), done.missing)
    assert (done.fault is None) == (told.fault is None)
    if told.pa is None:
        return None
    assert [piece.pa for piece in done.pieces] == [told.pa]
    for memory in iommu.memories():
        if memory.pa <= told.pa < memory.pa + memory.size:
            return memory.name, told.pa - memory.pa
    return None, told.pa
