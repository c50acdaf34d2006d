# SPDX-License-Identifier: Apache-2.0
"""Every operation is all or nothing: whatever fails in it, the state is as before; and so it is after a dry run."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from iommuctl.errors import NoRoom
from iommuctl.iommu import Iommu
from iommuctl.model import Slot
from iommuctl.session import Operation
from iommuctl.testing.nesting import BASE, POOL, POOL_SIZE, NestingBase
from iommuctl.testing.probes import IOVA, RAM, lands, put, refused, snapshot
from iommuctl.testing.selection import needs

Changes = dict[str, Callable[[], Any]]


class UndoSuite(NestingBase):
    """Failures are put into an operation after each call of the backend in turn, when it has done its work."""

    @pytest.fixture
    def plain(self, iommu: Iommu, rid1: str) -> Iommu:
        """Domain `d` in the slot of RID1, with memory that can be taken from it."""
        iommu.memory_create("spare", 0x2_0000)
        for name in ("d", "e"):
            iommu.domain_create(name)
            put(iommu, name, IOVA, 0x1_0000)
            iommu.map(name, iova=3 * IOVA, size=0x2_0000, memory="spare")
        iommu.attach("d", rid1)
        assert lands(iommu, rid1, IOVA) == 0
        return iommu

    @pytest.fixture
    def nested(self, iommu: Iommu, rid1: str, rid2: str, vm1: str) -> Iommu:
        """RID1 and RID2 are attached to `vm1`, and page table `t` is bound in the slot of RID2."""
        put(iommu, vm1, 2 * IOVA, 0x1_0000)
        self.build(iommu, "t", vm1, 0x20_0000)
        for rid in (rid1, rid2):
            iommu.attach(vm1, rid)
        iommu.bind_pgtable(vm1, rid2, pgtable="t")
        assert lands(iommu, rid2, IOVA) == 0x20_0000
        return iommu

    def test_failures(self, plain: Iommu, rid1: str, rid2: str, monkeypatch: pytest.MonkeyPatch) -> None:
        changes: Changes = {
            "domain create": partial(plain.domain_create, "new"),
            "domain destroy": partial(plain.domain_destroy, "d", force=True),
            "domain map": partial(put, plain, "d", 2 * IOVA, 0x20_0000),
            "domain unmap": partial(plain.unmap, "d", iova=IOVA, size=0x1_0000),
            "memory create": partial(plain.memory_create, "new", 0x1_0000),
            "memory destroy": partial(plain.memory_destroy, "spare", force=True),
            "attach": partial(plain.attach, "d", rid2),
            "attach --replace": partial(plain.attach, "e", rid1, replace=True),
            "detach": partial(plain.detach, "d", rid1),
        }
        for name, change in changes.items():
            _fail_everywhere(plain, name, change, monkeypatch)

    @needs("simulates")
    def test_failures_of_a_simulator(self, plain: Iommu, rid1: str, monkeypatch: pytest.MonkeyPatch) -> None:
        changes: Changes = {
            "device add": partial(plain.device_add, "0000:00:03.0"),
            "device remove": partial(plain.device_remove, rid1, force=True),
            "sim dma": partial(plain.dma, rid1, IOVA, data=b"words of a device"),
        }
        for name, change in changes.items():
            _fail_everywhere(plain, name, change, monkeypatch)

    @needs("nesting")
    def test_failures_where_tables_are_nested(
        self, nested: Iommu, rid1: str, rid2: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create = partial(nested.pgtable_create, "new", parent="vm1")
        changes: Changes = {
            "domain destroy": partial(nested.domain_destroy, "vm1", force=True),
            "domain unmap": partial(nested.unmap, "vm1", iova=2 * IOVA, size=0x1_0000),
            "pgtable create": partial(create, pool=POOL + 0x10_0000, pool_size=POOL_SIZE),
            "pgtable map": partial(nested.pgtable_map, "t", iova=4 * IOVA, size=0x1_0000, gpa=BASE),
            "pgtable unmap": partial(nested.pgtable_unmap, "t", iova=IOVA, size=0x1_0000),
            "pgtable destroy": partial(nested.pgtable_destroy, "t", force=True),
            "bind-pgtable": partial(nested.bind_pgtable, "vm1", rid1, pgtable="t"),
            "unbind-pgtable": partial(nested.unbind_pgtable, "vm1", rid2),
            "invalidate": partial(nested.invalidate, "vm1"),
            "detach --force": partial(nested.detach, "vm1", rid2, force=True),
        }
        for name, change in changes.items():
            _fail_everywhere(nested, name, change, monkeypatch)

    @needs("nesting", "pasid_bits")
    def test_binding_a_pasid_undoes_its_attachment(
        self, nested: Iommu, rid1: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The implicit attachment goes with the binding that fails, and the slot can be used again."""
        with monkeypatch.context() as patch:
            calls = _fail_after(patch, 0, only="install")
            with refused(nested, "no-room"):
                nested.bind_pgtable("vm1", rid1, pgtable="t", pasid=9)
        assert calls == ["install"]
        assert Slot(nested.device(rid1).rid, 9) not in {occupant.slot for occupant in nested.slots()}
        assert lands(nested, rid1, IOVA, pasid=9) is None
        nested.bind_pgtable("vm1", rid1, pgtable="t", pasid=9)
        assert lands(nested, rid1, IOVA, pasid=9) == 0x20_0000

    def test_a_dry_run_tells_what_it_would_do(self, plain: Iommu, rid1: str) -> None:
        plain.dry_run = True
        plain.attach("e", rid1, replace=True)
        told = plain.last
        plain.dry_run = False
        assert [str(occupant.slot) for occupant in plain.slots(domain="e")] == []
        assert lands(plain, rid1, IOVA) == 0
        plain.attach("e", rid1, replace=True)
        assert plain.last.commands == told.commands
        assert plain.last.writes == ()
        assert all(write.old != write.new and write.address % 8 == 0 for write in told.writes)
        assert plain.memory(RAM).size


def _fail_everywhere(iommu: Iommu, name: str, change: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the change after one call more each time, as many as a dry run of it makes."""
    before = snapshot(iommu)
    iommu.dry_run = True
    with monkeypatch.context() as patch:
        calls = _fail_after(patch, 1000)
        change()
    iommu.dry_run = False
    assert calls, f"{name} never asked the backend"
    assert snapshot(iommu) == before, f"a dry run of {name} changed something"
    for allowed in range(len(calls)):
        with monkeypatch.context() as patch:
            _fail_after(patch, allowed)
            with pytest.raises(NoRoom):
                change()
        assert snapshot(iommu) == before, f"{name} that failed after {', '.join(calls[: allowed + 1])} left something"


def _fail_after(patch: pytest.MonkeyPatch, allowed: int, only: str | None = None) -> list[str]:
    """Let this many calls of hooks pass; the next one fails when the backend has done its work."""
    original = Operation.call
    calls: list[str] = []

    def call(operation: Operation, hook: str, **arguments: Any) -> Any:
        answer = original(operation, hook, **arguments)
        if only in (None, hook):
            calls.append(hook)
            if len(calls) > allowed:
                raise NoRoom(f"the test had {hook} fail")
        return answer

    patch.setattr(Operation, "call", call)
    return calls
