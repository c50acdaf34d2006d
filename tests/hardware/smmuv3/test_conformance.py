# SPDX-License-Identifier: Apache-2.0
"""The conformance suites on an SMMUv3 that Linux drives, with nesting and without PASIDs."""

from pathlib import Path
from typing import ClassVar

import pytest

from iommuctl import Iommu
from iommuctl.capabilities import Capabilities
from iommuctl.iommufd.keeper_client import Keeper
from iommuctl.testing import (
    BackendSuite,
    ContextTableSuite,
    DeclarationSuite,
    DomainSuite,
    InvalidationSuite,
    NestedRefusalSuite,
    NestingSuite,
    RefusalSuite,
    SlotSuite,
    StatefulSuite,
    TopologySuite,
    UndoSuite,
)
from iommuctl.testing.probes import IOVA, refused

RIDS = "0000:00:10.0", "0000:00:11.0"


class Temporary(Iommu):
    """When it is closed, the devices get their drivers back, and the keeper ends with all of the kernel's objects."""

    def close(self) -> None:
        self.dry_run = False
        for rid in RIDS:
            if self.device(rid).bound:
                self.device_unbind(rid, force=True)
        super().close()
        if keeper := Keeper.connect(self.state):
            keeper.stop()


class Smmuv3(BackendSuite):
    backend = "smmuv3"
    rids = RIDS
    declares: ClassVar = Capabilities(
        nesting="device",
        context_tables_in_guest=True,
        widths=(39, 44, 48),
        parent_widths=(39, 44),
        page_sizes=(1 << 12, 1 << 21, 1 << 30),
        reserved=((0x800_0000, 0x80F_FFFF),),
        fault_records=True,
        pgtable_formats=("smmuv3.stage-1-4k-48", "smmuv3.stage-1-16k-48", "smmuv3.stage-1-64k-48"),
        context_formats=("cd-table",),
    )
    largest = 1 << 21

    @pytest.fixture(autouse=True)
    def given_back(self, state: Path) -> None:
        """The devices get their drivers back, and nobody holds the kernel's objects, when a test is over."""

    @classmethod
    def open(cls, folder: Path) -> Iommu:
        return Temporary(folder, backend=cls.backend)


class TestContextTables(Smmuv3, ContextTableSuite): ...


class TestDeclaration(Smmuv3, DeclarationSuite):
    def test_every_page_size_works_alone(self, iommu: Iommu, rid1: str) -> None:
        """But for this: Linux uses large pages where they fit, or none."""
        smallest, *others = self.declared().page_sizes
        self._works(iommu, iommu.domain_create("d", page_sizes=[smallest]), rid1, smallest, IOVA)
        for size in others:
            with refused(iommu, "unsupported"):
                iommu.domain_create(f"d{size}", page_sizes=[size])

    def test_a_folder_that_does_not_exist_yet_has_the_declaration_of_a_new_one(self, tmp_path: Path) -> None:
        """But for this: what the unit can do, the kernel tells of a device that is bound."""
        with Iommu(tmp_path / "new", backend=self.backend) as iommu:
            with refused(iommu, "device-not-bound") as caught:
                iommu.capabilities()
            assert "device bind" in caught.value.hint
            assert not (tmp_path / "new").exists()


class TestDomains(Smmuv3, DomainSuite): ...


class TestInvalidation(Smmuv3, InvalidationSuite): ...


class TestNestedRefusals(Smmuv3, NestedRefusalSuite): ...


class TestNesting(Smmuv3, NestingSuite): ...


class TestRefusals(Smmuv3, RefusalSuite): ...


class TestSlots(Smmuv3, SlotSuite): ...


class TestStateful(Smmuv3, StatefulSuite):
    examples = 2


class TestTopology(Smmuv3, TopologySuite): ...


class TestUndo(Smmuv3, UndoSuite): ...
