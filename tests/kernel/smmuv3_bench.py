# SPDX-License-Identifier: Apache-2.0
"""How tests see whether devices behind an SMMUv3 are led to what the rows of a folder say, and to nothing else."""

from iommuctl.model import Binding, Occupant, Rid
from tests.kernel.bench import Bench
from tests.kernel.host import NODES
from tests.kernel.objects import Hwpt, Viommu

_BYPASS, _SUBSTREAM_0 = 1, 2
"""STE: S1DSS, what a request without PASID goes through. It counts if S1CDMax is not 0."""


def assert_agrees(bench: Bench) -> None:
    """Besides what holds for any unit: each CD is of a row, there is one for each, and nothing stale is cached."""
    bench.assert_agrees()
    slots = bench.iommu.slots()
    for rid in NODES:
        _assert_device(bench, rid, {held.slot.pasid: held for held in slots if held.slot.rid == rid})
    assert bench.kernel.caches.stale(bench.kernel.objects) == []


def _assert_device(bench: Bench, rid: Rid, slots: dict[int | None, Occupant]) -> None:
    objects, node = bench.kernel.objects, NODES[rid]
    bindings = {pasid or 0: held for pasid, held in slots.items() if isinstance(held, Binding)}
    live = bench.kernel.caches.live(objects, node)
    assert {number: context.root for number, context in live.items()} == {
        number: held.root for number, held in bindings.items()
    }
    # An ASID stands for one page table.
    tables = {(context.asid, context.root) for context in live.values()}
    assert len(tables) == len({asid for asid, _ in tables}) == len({root for _, root in tables})
    own = {pasid for pasid, held in slots.items() if pasid is None or not isinstance(held, Binding)}
    if str(rid) in bench.rows("device"):
        assert bench.device(rid).slots.keys() == own
    parents = {held.domain.name for held in slots.values() if held.domain.nest_parent}
    if not parents:
        assert str(rid) not in bench.rows("vdevice"), "a device without a parent has a number on a vIOMMU"
        return
    (parent,) = parents
    held = objects[bench.device(rid).slots[None] or 0]
    assert isinstance(held, Hwpt)
    assert held.nested == bool(bindings)
    if held.nested:
        if held.data[7] >> 3:
            assert held.data[8] & 3 == (_SUBSTREAM_0 if 0 in bindings else _BYPASS)
        viommu = objects[held.under]
        assert isinstance(viommu, Viommu)
        held = objects[viommu.parent]
        assert isinstance(held, Hwpt)
    assert (objects[held.under], held.nest_parent) == (bench.ioas(parent), True)
