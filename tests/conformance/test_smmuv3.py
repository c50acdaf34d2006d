# SPDX-License-Identifier: Apache-2.0
"""The suites on a simulated SMMUv3: by default, and with units that can less."""

from typing import ClassVar

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
from iommuctl_smmuv3.id_registers import IDR0, IDR1, IDR3, IDR5
from iommuctl_smmuv3.register_bank import DEFAULTS

K, M, G = 1 << 10, 1 << 20, 1 << 30
SIZES_4K = (4 * K, 64 * K, 2 * M, 32 * M, G, 16 * G)
SIZES_16K = (16 * K, 2 * M, 32 * M, G)
SIZES_64K = (64 * K, 2 * M, 512 * M, 16 * G)
"""Pages, blocks and contiguous runs of each granule: DDI0487 M.a.a section D8.2."""


class Default(BackendSuite):
    """A unit with all that the simulator has."""

    backend = "sim"
    architecture = "smmuv3"
    ats = True
    declares: ClassVar = Capabilities(
        nesting="device",
        context_tables_in_guest=True,
        execute_permission=True,
        physical_addresses=True,
        simulates=True,
        fault_records=True,
        widths=(39, 48),
        page_sizes=SIZES_4K,
        granules=(SIZES_16K, SIZES_64K),
        pasid_bits=20,
        pgtable_formats=("smmuv3.stage-1-4k-48", "smmuv3.stage-1-16k-48", "smmuv3.stage-1-64k-48"),
        page_responses=("success", "invalid", "failure"),
    )


class TestContextTables(Default, ContextTableSuite): ...


class TestDeclaration(Default, DeclarationSuite): ...


class TestDomains(Default, DomainSuite): ...


class TestHitless(Default, HitlessSuite): ...


class TestInvalidation(Default, InvalidationSuite): ...


class TestNestedRefusals(Default, NestedRefusalSuite): ...


class TestNesting(Default, NestingSuite): ...


class TestOneParent(Default, OneParentSuite): ...


class TestRefusals(Default, RefusalSuite): ...


class TestSlots(Default, SlotSuite): ...


class TestStateful(Default, StatefulSuite):
    examples = 10


class TestTopology(Default, TopologySuite): ...


class TestUndo(Default, UndoSuite): ...


class Small(BackendSuite):
    """Linear tables, granules of 64 KB alone, ids of 8 bits, invalidation page by page, no ATS, few PASIDs."""

    backend = "sim"
    architecture = "smmuv3"
    options: ClassVar = {
        "idr0": hex(
            DEFAULTS["IDR0"] & ~(IDR0.ST_LEVEL.mask | IDR0.CD2L.mask | IDR0.ATS.mask | IDR0.PRI.mask)
            & ~(IDR0.ASID16.mask | IDR0.VMID16.mask | IDR0.Hyp.mask)
        ),
        "idr1": hex(IDR1.encode(SIDSIZE=8, SSIDSIZE=5, PRIQS=1, EVENTQS=1, CMDQS=1)),
        "idr3": "0",
        "idr5": hex(IDR5.encode(OAS=2, GRAN64K=1)),
    }  # fmt: skip
    declares: ClassVar = Default.declares._replace(
        widths=(39, 40),
        page_sizes=(64 * K, 2 * M, 512 * M, 16 * G),
        granules=(),
        pasid_bits=5,
        pgtable_formats=("smmuv3.stage-1-64k-48",),
        page_responses=(),
    )


class TestSmallDeclaration(Small, DeclarationSuite): ...


class TestSmallDomains(Small, DomainSuite): ...


class TestSmallInvalidation(Small, InvalidationSuite): ...


class TestSmallNesting(Small, NestingSuite): ...


class TestSmallSlots(Small, SlotSuite): ...


class TestSmallStateful(Small, StatefulSuite):
    examples = 10


class Plain(BackendSuite):
    """Stage 1 alone, without PASIDs; granules of 16 KB and 4 KB."""

    backend = "sim"
    architecture = "smmuv3"
    ats = True
    options: ClassVar = {
        "idr0": hex(DEFAULTS["IDR0"] & ~IDR0.S2P.mask),
        "idr1": hex(DEFAULTS["IDR1"] & ~IDR1.SSIDSIZE.mask),
        "idr3": hex(DEFAULTS["IDR3"] & ~(IDR3.FWB.mask | IDR3.XNX.mask)),
        "idr5": hex(DEFAULTS["IDR5"] & ~IDR5.GRAN64K.mask),
    }
    declares: ClassVar = Default.declares._replace(
        nesting="none", context_tables_in_guest=False, granules=(SIZES_16K,), pasid_bits=0, pgtable_formats=()
    )


class TestPlainDeclaration(Plain, DeclarationSuite): ...


class TestPlainDomains(Plain, DomainSuite): ...


class TestPlainRefusals(Plain, RefusalSuite): ...


class TestPlainSlots(Plain, SlotSuite): ...


class TestPlainUndo(Plain, UndoSuite): ...
