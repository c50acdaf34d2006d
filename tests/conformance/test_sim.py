# SPDX-License-Identifier: Apache-2.0
"""The suites on the simulator: by default, with units that can less, and dressed up as a backend for hardware."""

from typing import ClassVar

import pytest

from iommuctl import plugins
from iommuctl.capabilities import Capabilities
from iommuctl.testing import (
    BackendSuite,
    ContextTableSuite,
    DeclarationSuite,
    DomainSuite,
    HitlessSuite,
    InvalidationSuite,
    NestedRefusalSuite,
    NestingSuite,
    OneParentSuite,
    RefusalSuite,
    SlotSuite,
    StatefulSuite,
    TopologySuite,
    UndoSuite,
)
from iommuctl_vtd.capability import DEFAULT_CAP, DEFAULT_ECAP
from iommuctl_vtd.registers import CAP, ECAP

K4, M2, G1 = 1 << 12, 1 << 21, 1 << 30
INTERRUPTS = (0xFEE0_0000, 0xFEEF_FFFF)


class Default(BackendSuite):
    """A VT-d unit with all that the simulator has."""

    backend = "sim"
    ats = True
    declares: ClassVar = Capabilities(
        nesting="slot",
        hitless_replace=True,
        physical_addresses=True,
        simulates=True,
        fault_records=True,
        widths=(39, 48, 57),
        page_sizes=(K4, M2, G1),
        reserved=(INTERRUPTS,),
        pasid_bits=20,
        pgtable_formats=("vtd.first-stage-4", "vtd.first-stage-5"),
        page_responses=("success", "invalid", "failure"),
    )


class TestDeclaration(Default, DeclarationSuite): ...


class TestDomains(Default, DomainSuite): ...


class TestHitless(Default, HitlessSuite): ...


class TestInvalidation(Default, InvalidationSuite): ...


class TestNestedRefusals(Default, NestedRefusalSuite): ...


class TestNesting(Default, NestingSuite): ...


class TestRefusals(Default, RefusalSuite): ...


class TestSlots(Default, SlotSuite): ...


class TestStateful(Default, StatefulSuite):
    # Longer walks of the same kind are in tests/acceptance/test_sanitizer.py.
    examples = 10


class TestTopology(Default, TopologySuite): ...


class TestUndo(Default, UndoSuite): ...


class Small(BackendSuite):
    """A unit with one width, small pages, few PASIDs, no ATS, and no invalidation of pages of the second stage."""

    backend = "sim"
    options: ClassVar = {
        "haw": "39",
        "cap": hex(CAP.encode(ND=2, SAGAW=0b00010, MGAW=38, FRO=0x40, NFR=0)),
        "ecap": hex(DEFAULT_ECAP & ~(ECAP.DT.mask | ECAP.PRS.mask | ECAP.PSS.mask) | ECAP.encode(PSS=5)),
    }
    declares: ClassVar = Default.declares._replace(
        widths=(39,), page_sizes=(K4,), pasid_bits=6, pgtable_formats=("vtd.first-stage-4",), page_responses=()
    )


class TestSmallDeclaration(Small, DeclarationSuite): ...


class TestSmallDomains(Small, DomainSuite): ...


class TestSmallHitless(Small, HitlessSuite): ...


class TestSmallInvalidation(Small, InvalidationSuite): ...


class TestSmallNesting(Small, NestingSuite): ...


class TestSmallSlots(Small, SlotSuite): ...


class TestSmallStateful(Small, StatefulSuite):
    examples = 10


class TestSmallTopology(Small, TopologySuite): ...


class Plain(BackendSuite):
    """A unit without nesting and without PASIDs."""

    backend = "sim"
    options: ClassVar = {
        "cap": hex(DEFAULT_CAP & ~CAP.SSLPS.mask | CAP.encode(SSLPS=1)),
        "ecap": hex(DEFAULT_ECAP & ~(ECAP.NEST.mask | ECAP.PASID.mask | ECAP.PSS.mask)),
    }
    declares: ClassVar = Default.declares._replace(
        nesting="none", page_sizes=(K4, M2), pasid_bits=0, pgtable_formats=()
    )


class TestPlainDeclaration(Plain, DeclarationSuite): ...


class TestPlainDomains(Plain, DomainSuite): ...


class TestPlainRefusals(Plain, RefusalSuite): ...


class TestPlainSlots(Plain, SlotSuite): ...


class TestPlainStateful(Plain, StatefulSuite):
    examples = 10


class TestPlainUndo(Plain, UndoSuite): ...


class Legacy(BackendSuite):
    """VT-d's legacy mode: context entries, a queue of 128-bit descriptors, the second stage alone."""

    backend = "sim"
    ats = True
    options: ClassVar = {"mode": "legacy"}
    declares: ClassVar = Default.declares._replace(nesting="none", pasid_bits=0, pgtable_formats=(), page_responses=())


class TestLegacyDeclaration(Legacy, DeclarationSuite): ...


class TestLegacyDomains(Legacy, DomainSuite): ...


class TestLegacyHitless(Legacy, HitlessSuite): ...


class TestLegacyRefusals(Legacy, RefusalSuite): ...


class TestLegacySlots(Legacy, SlotSuite): ...


class TestLegacyStateful(Legacy, StatefulSuite):
    examples = 10


class TestLegacyUndo(Legacy, UndoSuite): ...


class Limited(BackendSuite):
    """See limited.py: what the suites make of a backend that is not a simulator, and nests as SMMUv3 does."""

    backend = "limited"

    @pytest.fixture(autouse=True)
    def known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(plugins.BACKENDS, "limited", "tests.conformance.limited")

    declares: ClassVar = Default.declares._replace(
        nesting="device",
        context_tables_in_guest=True,
        hitless_replace=False,
        physical_addresses=False,
        simulates=False,
        fault_records=False,
        page_responses=(),
        pasid_bits=16,
    )


class TestLimitedContextTables(Limited, ContextTableSuite): ...


class TestLimitedDeclaration(Limited, DeclarationSuite): ...


class TestLimitedDomains(Limited, DomainSuite): ...


class TestLimitedInvalidation(Limited, InvalidationSuite): ...


class TestLimitedNestedRefusals(Limited, NestedRefusalSuite): ...


class TestLimitedNesting(Limited, NestingSuite): ...


class TestLimitedOneParent(Limited, OneParentSuite): ...


class TestLimitedRefusals(Limited, RefusalSuite): ...


class TestLimitedSlots(Limited, SlotSuite): ...


class TestLimitedStateful(Limited, StatefulSuite):
    examples = 10


class TestLimitedTopology(Limited, TopologySuite): ...


class TestLimitedUndo(Limited, UndoSuite): ...
