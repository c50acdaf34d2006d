# SPDX-License-Identifier: Apache-2.0
"""Nesting per device: all nested slots of a RID share its parent, and what goes beside that."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from iommuctl.errors import IommuError
from iommuctl.iommu import Iommu
from iommuctl.session import Operation
from iommuctl.testing.nesting import BASE, GUEST, NestingBase
from iommuctl.testing.probes import IOVA, lands, put, refused
from iommuctl.testing.refusals import check
from iommuctl.testing.selection import needs


@needs("pasid_bits", nesting="device")
class OneParentSuite(NestingBase):
    """One stage 2 for each device: who may be where while others are, and in which order it is taken down."""

    @pytest.fixture
    def nested(self, iommu: Iommu, rid1: str, rid2: str, vm1: str, vm2: str) -> Iommu:
        """RID1 is on `vm1`, its PASIDs 1 and 2 are nested there; RID2 and its PASID 1 are on stage-1 domains."""
        for name, offset in (("d", 0), ("e", 0x1_0000)):
            iommu.domain_create(name)
            put(iommu, name, IOVA, 0x1_0000, offset)
        self.build(iommu, "t", vm1, 0x20_0000)
        self.build(iommu, "u", vm2, 0x20_0000)
        iommu.attach(vm1, rid1)
        for pasid in (1, 2):
            iommu.bind_pgtable(vm1, rid1, pgtable="t", pasid=pasid)
        iommu.attach("d", rid2)
        iommu.attach("e", rid2, pasid=1)
        return iommu

    def where(self, iommu: Iommu, rid: str) -> list[int | None]:
        """Where IOVA leads: for the RID itself, and for its PASIDs 1 and 2."""
        return [lands(iommu, rid, IOVA, pasid=pasid) for pasid in (None, 1, 2)]

    def test_what_one_stage_2_rules_out(self, nested: Iommu, rid1: str, rid2: str) -> None:
        attach, bind = nested.attach, nested.bind_pgtable
        check(
            nested,
            [
                # A PASID selects a stage 1 only.
                ("unsupported", partial(attach, "vm1", rid1, pasid=3)),
                ("unsupported", partial(attach, "vm1", rid2, pasid=3)),
                ("unsupported", partial(attach, "vm2", rid2, pasid=1, replace=True)),
                # A stage-1 domain would be nested.
                ("cannot-nest", partial(attach, "d", rid1, pasid=3)),
                ("cannot-nest", partial(attach, "d", rid1, pasid="auto")),
                ("cannot-nest", partial(attach, "vm1", rid2, replace=True)),
                # Another stage 2, or none.
                ("cannot-nest", partial(bind, "vm2", rid1, pgtable="u", pasid=3)),
                ("cannot-nest", partial(bind, "vm2", rid2, pgtable="u", pasid=3)),
                # The stage 2 that PASIDs are nested on.
                ("in-use", partial(nested.detach, "vm1", rid1)),
                ("in-use", partial(attach, "vm2", rid1, replace=True)),
                ("in-use", partial(attach, "d", rid1, replace=True)),
            ],
        )
        assert self.where(nested, rid1) == [None, 0x20_0000, 0x20_0000]
        assert self.where(nested, rid2) == [0, 0x1_0000, None]

    def test_a_pasid_without_its_device(self, nested: Iommu, rid2: str) -> None:
        nested.detach("d", rid2)
        with refused(nested, "parent-not-attached"):
            nested.bind_pgtable("vm2", rid2, pgtable="u", pasid=3)
        # The slot of the RID may be empty below stage-1 domains, and it may be filled by another.
        assert self.where(nested, rid2) == [None, 0x1_0000, None]
        nested.attach("e", rid2)
        assert self.where(nested, rid2) == [0x1_0000, 0x1_0000, None]

    def test_the_device_can_be_bound_itself(self, nested: Iommu, rid1: str) -> None:
        nested.pgtable_map("t", iova=2 * IOVA, size=0x1_0000, gpa=BASE + 0x21_0000)
        nested.bind_pgtable("vm1", rid1, pgtable="t")
        nested.bind_pgtable("vm1", rid1, pgtable="t", pasid=3)
        assert self.where(nested, rid1) == [0x20_0000] * 3
        with refused(nested, "slot-bound"):
            nested.detach("vm1", rid1)
        nested.unbind_pgtable("vm1", rid1)
        assert self.where(nested, rid1) == [None, 0x20_0000, 0x20_0000]
        assert lands(nested, rid1, BASE + 0x20_0000) == 0x20_0000
        # The same parent again is no change for those that are nested on it.
        nested.attach("vm1", rid1, replace=True, label="again")
        assert self.where(nested, rid1) == [None, 0x20_0000, 0x20_0000]

    def test_it_leaves_when_nothing_is_nested_any_more(self, nested: Iommu, rid1: str) -> None:
        nested.unbind_pgtable("vm1", rid1, pasid=1)
        with refused(nested, "in-use"):
            nested.attach("vm2", rid1, replace=True)
        assert nested.unbind_pgtable("vm1", rid1, pasid=2) is None
        nested.attach("vm2", rid1, replace=True)
        nested.bind_pgtable("vm2", rid1, pgtable="u", pasid=2)
        assert self.where(nested, rid1) == [None, None, GUEST + 0x20_0000]

    @pytest.mark.parametrize("bound", [False, True])
    def test_force_takes_pasids_off_first(
        self, nested: Iommu, rid1: str, bound: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for verb in (
            partial(nested.detach, "vm1", rid1, force=True),
            partial(nested.domain_destroy, "vm1", force=True),
        ):
            if bound:
                nested.bind_pgtable("vm1", rid1, pgtable="t")
            with monkeypatch.context() as patch:
                order = self.installed(patch)
                verb()
            assert order == [2, 1, None]
            assert nested.slots(rid=rid1) == []
            if "vm1" in {domain.name for domain in nested.domains()}:
                nested.attach("vm1", rid1)
                for pasid in (1, 2):
                    nested.bind_pgtable("vm1", rid1, pgtable="t", pasid=pasid)

    @needs("simulates")
    def test_removing_a_device_takes_pasids_off_first(
        self, nested: Iommu, rid1: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order = self.installed(monkeypatch)
        nested.device_remove(rid1, force=True)
        assert order == [2, 1, None]

    def test_a_page_table_that_goes_leaves_the_device_on_its_parent(self, nested: Iommu, rid1: str) -> None:
        self.build(nested, "v", "vm1", 0x30_0000)
        before = nested.slots(rid=rid1)[0]
        nested.bind_pgtable("vm1", rid1, pgtable="v")
        nested.unbind_pgtable("vm1", rid1, pasid=2)
        nested.pgtable_destroy("v", force=True)
        assert nested.slots(rid=rid1)[0] == before
        assert self.where(nested, rid1) == [None, 0x20_0000, None]

    @pytest.mark.parametrize("refusal", ["unsupported", "cannot-nest", "in-use"])
    def test_the_reason_is_told(self, nested: Iommu, rid1: str, refusal: str) -> None:
        calls: dict[str, Callable[[], Any]] = {
            "unsupported": partial(nested.attach, "vm1", rid1, pasid=3),
            "cannot-nest": partial(nested.bind_pgtable, "vm2", rid1, pgtable="u", pasid=3),
            "in-use": partial(nested.detach, "vm1", rid1),
        }
        with pytest.raises(IommuError) as caught:
            calls[refusal]()
        assert "stage 2" in caught.value.because
        assert caught.value.hint
        assert ("PASIDs 1, 2" in caught.value.because) == (refusal == "in-use")

    @staticmethod
    def installed(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
        """A list that gets the PASID of each slot that the backend is told to change."""
        original, order = Operation.call, []

        def call(operation: Operation, hook: str, **arguments: Any) -> Any:
            if hook == "install":
                order.append(arguments["change"].slot.pasid)
            return original(operation, hook, **arguments)

        monkeypatch.setattr(Operation, "call", call)
        return order
