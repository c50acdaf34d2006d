# SPDX-License-Identifier: Apache-2.0
"""Every suite, for the backend that `--iommuctl-backend` names."""

from iommuctl.testing import (
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


class TestContextTables(ContextTableSuite): ...


class TestDeclaration(DeclarationSuite): ...


class TestDomains(DomainSuite): ...


class TestHitless(HitlessSuite): ...


class TestInvalidation(InvalidationSuite): ...


class TestNestedRefusals(NestedRefusalSuite): ...


class TestNesting(NestingSuite): ...


class TestOneParent(OneParentSuite): ...


class TestRefusals(RefusalSuite): ...


class TestSlots(SlotSuite): ...


class TestStateful(StatefulSuite): ...


class TestTopology(TopologySuite): ...


class TestUndo(UndoSuite): ...
