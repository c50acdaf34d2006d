# SPDX-License-Identifier: Apache-2.0
"""The conformance suites on the real core of iommufd, with the mock driver behind it."""

from pathlib import Path
from typing import ClassVar

import pytest

from iommuctl import Iommu, plugins
from iommuctl.capabilities import Capabilities
from iommuctl.iommufd.keeper_client import Keeper
from iommuctl.testing import (
    BackendSuite,
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


class Temporary(Iommu):
    """Its keeper ends with it, and all of the kernel's objects."""

    def close(self) -> None:
        super().close()
        if keeper := Keeper.connect(self.state):
            keeper.stop()


class Mock(BackendSuite):
    backend = "mock"
    declares: ClassVar = Capabilities(
        nesting="slot",
        dirty_tracking=True,
        widths=(31,),
        reserved=((0, (16 << 20) - 1),),
        pasid_bits=20,
        pgtable_formats=("vtd.first-stage-4",),
        page_responses=("success", "invalid"),
    )

    @pytest.fixture(autouse=True)
    def known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(plugins.BACKENDS, "mock", "tests.hardware.mock.backend:BACKEND")

    @classmethod
    def open(cls, folder: Path) -> Iommu:
        return Temporary(folder, backend=cls.backend)


class TestDeclaration(Mock, DeclarationSuite): ...


class TestDomains(Mock, DomainSuite): ...


class TestInvalidation(Mock, InvalidationSuite): ...


class TestNestedRefusals(Mock, NestedRefusalSuite): ...


class TestNesting(Mock, NestingSuite): ...


class TestRefusals(Mock, RefusalSuite): ...


class TestSlots(Mock, SlotSuite): ...


class TestStateful(Mock, StatefulSuite):
    examples = 5


class TestTopology(Mock, TopologySuite): ...


class TestUndo(Mock, UndoSuite): ...
