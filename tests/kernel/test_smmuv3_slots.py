# SPDX-License-Identifier: Apache-2.0
"""What slots hold behind an SMMUv3, and what is refused there; killed commands are in test_smmuv3_killed.py."""

import os
import struct

import pytest

from iommuctl.errors import (
    CannotNest,
    DeviceNotBound,
    InUse,
    IommuError,
    Misaligned,
    NoPasidSupport,
    OutOfAperture,
    Unsupported,
    Usage,
)
from iommuctl.iommufd.keeper_client import Keeper
from tests.kernel.bench import Bench
from tests.kernel.host import NODES, ONE, TWO, UNIT
from tests.kernel.objects import Hwpt
from tests.kernel.smmuv3_bench import assert_agrees
from tests.kernel.smmuv3_steps import FEW, FULL, MANY, MIB, PARENT, POOL, prepare
from tests.kernel.smmuv3_unit import QEMU, SUBSTREAMS

TABLES, DATA = 0x30_0000, 0x38_0000
"""GPAs of a pool for page tables, and of what they map."""


def written(bench: Bench, gpa: int, data: bytes) -> None:
    """Put bytes into the guest's memory, which is mapped from GPA 0 on."""
    keeper = Keeper.connect(bench.folder)
    assert keeper
    file = keeper.get(f"memory-{bench.iommu.memory('m').id}")
    assert file is not None
    os.pwrite(file, data, gpa)
    keeper.close()


def stream_words(bench: Bench) -> tuple[int, int]:
    """The STE that the first device was given."""
    held = bench.kernel.objects[bench.device(ONE).slots[None] or 0]
    assert isinstance(held, Hwpt)
    low, high = struct.unpack("<2Q", held.data)
    return low, high


def context(root: int) -> bytes:
    """A CD that a guest has written: V, AA64, 48 bits of addresses in pages of 4 KiB, R, A, ASET, ASID 9."""
    words = (16 | 1 << 30 | 1 << 31 | 4 << 32 | 1 << 41 | 7 << 45 | 9 << 48, root, 0, 0xF404FF44)
    return struct.pack("<8Q", *words, 0, 0, 0, 0)


@pytest.fixture
def nested(smmu: Bench) -> Bench:
    prepare(smmu, PARENT)
    smmu.iommu.pgtable_create("t", parent="p", pool=TABLES, pool_size=0x40000)
    smmu.iommu.pgtable_map("t", iova=0x7F00_0000_0000, size=0x3000, gpa=DATA)
    return smmu


def test_nothing_is_known_before_a_device_is_bound(smmu: Bench) -> None:
    """Whoever asks gets the reason; what needs no answer works."""
    assert [unit.registers for unit in smmu.iommu.units()] == [{}]
    assert "device that is bound" in smmu.iommu.unit(UNIT).words["unit"]
    with pytest.raises(DeviceNotBound, match="what the SMMU can do") as raised:
        smmu.iommu.domain_create("d")
    assert "device bind" in raised.value.hint
    assert not smmu.iommu.domains()
    assert not smmu.iommu.slots()
    smmu.iommu.memory_create("m", 4 * MIB)
    smmu.iommu.device_bind(ONE)
    assert smmu.iommu.unit(UNIT).registers["IDR0"] == SUBSTREAMS["IDR0"]
    assert smmu.iommu.unit(UNIT).words == {"nesting": "yes"}
    assert smmu.iommu.capabilities().pasid_bits == 16


def test_how_wide_domains_are_and_what_they_hold(smmu: Bench) -> None:
    """Stage 1 has the addresses of IDR5.VAX, stage 2 those of OAS: IHI0070 G.b section 3.4."""
    smmu.iommu.device_bind(ONE)
    smmu.iommu.memory_create("m", 4 * MIB)
    assert smmu.iommu.domain_create("d").width == 48
    assert smmu.iommu.domain_create("p", nest_parent=True).width == 44
    with pytest.raises(Unsupported, match="nest parent of 48"):
        smmu.iommu.domain_create("q", nest_parent=True, width=48)
    for prot, left in (("rx", "r"), ("rwx", "rw")):
        with pytest.raises(Unsupported, match=prot) as raised:
            smmu.iommu.map("d", iova=0, size=4 * MIB, memory="m", prot=prot)
        assert raised.value.hint == f"use --prot {left}"
    smmu.iommu.map("d", iova=0xFFFF_0000_0000, size=4 * MIB, memory="m", prot="r")


@pytest.mark.parametrize(
    ("registers", "nests", "why"),
    [
        (QEMU, True, ""),
        (QEMU | {"IDR0": QEMU["IDR0"] & ~1}, False, "no stage 2"),
        (QEMU | {"IDR0": QEMU["IDR0"] & ~2}, False, "no stage 1"),
    ],
)
def test_what_stands_in_the_way_of_nesting(smmu: Bench, registers: dict[str, int], nests: bool, why: str) -> None:
    smmu.iommu.device_bind(ONE)
    assert (smmu.iommu.capabilities().nesting == "device") is nests
    assert why in smmu.iommu.capabilities().nesting_obstacle
    if not nests:
        assert why in smmu.iommu.unit(UNIT).words["nesting"]
        with pytest.raises(IommuError, match="nest") as raised:
            smmu.iommu.domain_create("p", nest_parent=True)
        assert raised.value.exit == 3
        assert why in raised.value.because


def test_pasids_lead_to_their_page_tables(nested: Bench) -> None:
    """The first at a page of CDs, one beyond it, and the RID: each by the walk of what memory holds."""
    iommu, iova = nested.iommu, 0x7F00_0000_1008
    for pasid in (FEW, MANY, None):
        iommu.bind_pgtable("p", str(ONE), pgtable="t", pasid=pasid)
        assert_agrees(nested)
    for pasid in (None, FEW, MANY):
        found = iommu.translate(ONE, iova, pasid=pasid)
        assert found.fault is None
        assert [step.structure for step in found.steps[:2]][-1] == ("smmuv3.cd")
        landing = iommu.mappings("p")[0]
        assert (found.pa, found.prot, found.page_size) == (landing.pa + DATA + 0x1008, "rw", 4096)
    assert iommu.translate(ONE, iova, pasid=FEW + 1).fault is not None
    missing = iommu.translate(ONE, 0x1000, pasid=FEW).fault
    assert missing
    assert (missing.code, missing.name) == (0x10, "F_TRANSLATION")
    iommu.unbind_pgtable("p", str(ONE), pasid=FEW)
    empty = iommu.translate(ONE, iova, pasid=FEW).fault
    assert empty
    assert empty.name == "EMPTY_SLOT"


@pytest.mark.parametrize("registers", [QEMU])
def test_a_unit_without_substreams_says_so(nested: Bench) -> None:
    with pytest.raises(NoPasidSupport) as raised:
        nested.iommu.bind_pgtable("p", str(ONE), pgtable="t", pasid=FEW)
    assert "IOMMU" in raised.value.because
    nested.iommu.bind_pgtable("p", str(ONE), pgtable="t")
    # S1CDMax 0: there is one CD, and S1DSS does not count.
    low, high = stream_words(nested)
    assert (low >> 59, high & 3) == (0, 0)
    assert_agrees(nested)


def test_which_words_the_kernel_is_given(nested: Bench) -> None:
    """V, Config 5, S1Fmt, S1ContextPtr, S1CDMax; S1DSS, S1CIR, S1COR, S1CSH, EATS: IHI0070 G.b section 5.2."""
    nested.iommu.bind_pgtable("p", str(ONE), pgtable="t", pasid=FEW)
    low, high = stream_words(nested)
    assert low & 0x3F == 0b00_1011
    assert low >> 59 == 6
    assert high == 1 | 1 << 2 | 1 << 4 | 3 << 6 | 1 << 28
    assert TABLES <= low & 0xF_FFFF_FFFF_FFC0 < TABLES + 0x40000
    nested.iommu.bind_pgtable("p", str(ONE), pgtable="t", pasid=MANY)
    low, high = stream_words(nested)
    assert (low >> 59, low >> 4 & 3) == (9, 1)


def test_commands_come_in_their_order_and_without_a_vmid(nested: Bench) -> None:
    iommu = nested.iommu
    iommu.bind_pgtable("p", str(ONE), pgtable="t", pasid=FEW)
    iommu.bind_pgtable("p", str(ONE), pgtable="t", pasid=FEW + 1)
    assert [command.name for command in iommu.last.commands] == ["smmuv3.cfgi-cd"]
    iommu.unbind_pgtable("p", str(ONE), pasid=FEW)
    assert [command.name for command in iommu.last.commands] == [
        "smmuv3.cfgi-cd", "smmuv3.tlbi-nh-all", "smmuv3.atc-inv",
    ]  # fmt: skip
    calls = [call for call in iommu.last.calls if call.name == "IOMMU_HWPT_INVALIDATE"]
    assert [call.fields["entry_num"] for call in calls] == [1, 1, 1]
    iommu.invalidate("p", iova=0x7F00_0000_1000, size=0x1000)
    assert [(command.name, command.fields.get("VMID", 0)) for command in iommu.last.commands] == [
        ("smmuv3.tlbi-nh-va", 0),
        ("smmuv3.atc-inv", 0),
    ]


def test_a_dry_run_shows_words_calls_and_commands_and_does_nothing(nested: Bench) -> None:
    iommu, before = nested.iommu, dict(nested.kernel.objects)
    iommu.dry_run = True
    iommu.bind_pgtable("p", str(ONE), pgtable="t", pasid=FEW)
    names = [call.name for call in iommu.last.calls]
    assert names == [
        "IOMMU_VIOMMU_ALLOC", "IOMMU_VEVENTQ_ALLOC", "IOMMU_VDEVICE_ALLOC", "IOMMU_HWPT_ALLOC",
        "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
    ]  # fmt: skip
    assert {write.memory for write in iommu.last.writes} == {"m"}
    iommu.dry_run = False
    assert nested.kernel.objects == before
    assert_agrees(nested)
    iommu.bind_pgtable("p", str(ONE), pgtable="t", pasid=FEW)
    iommu.dry_run = True
    iommu.unbind_pgtable("p", str(ONE), pasid=FEW)
    assert [command.name for command in iommu.last.commands] == ["smmuv3.tlbi-nh-all", "smmuv3.atc-inv"]


# A CD table of the guest's own


def test_a_guests_own_table_of_contexts(nested: Bench) -> None:
    iommu = nested.iommu
    root = iommu.pgtable("t").root
    written(nested, 0, context(root))
    written(nested, 64 * FEW, context(root))
    with pytest.raises(Misaligned, match="linear table"):
        iommu.bind_pgtable("p", str(ONE), addr=64, format="cd-table")
    iommu.map("p", iova=4 * MIB, size=4 * MIB, memory="m")
    iommu.bind_pgtable("p", str(ONE), addr=0x40_0000, format="cd-table")
    low, high = stream_words(nested)
    # Linear, S1CDMax is the width of the device's PASIDs, requests without one use CD 0.
    assert (low >> 4 & 3, low & 0xF_FFFF_FFFF_FFC0, low >> 59, high & 3) == (0, 0x40_0000, 16, 2)
    assert iommu.check() == []
    landing = iommu.mappings("p")[0].pa + DATA + 8
    assert [iommu.translate(ONE, 0x7F00_0000_0008, pasid=pasid).pa for pasid in (None, FEW)] == [landing] * 2
    lacking = iommu.translate(ONE, 0x7F00_0000_0008, pasid=FEW + 1).fault
    assert lacking
    assert lacking.name == "C_BAD_CD"


def test_what_does_not_go_with_it(nested: Bench) -> None:
    iommu = nested.iommu
    with pytest.raises(Unsupported, match="PASID") as raised:
        iommu.bind_pgtable("p", str(ONE), addr=0, format="cd-table", pasid=FEW)
    assert raised.value.exit == 3
    with pytest.raises(Usage, match="no pool"):
        iommu.bind_pgtable("p", str(ONE), addr=0, format="cd-table", cd_pool=POOL)
    with pytest.raises(Unsupported, match="cd-table"):
        iommu.pgtable_create("u", parent="p", pool=0x34_0000, pool_size=0x4000, format="cd-table")
    with pytest.raises(OutOfAperture):
        iommu.bind_pgtable("p", str(ONE), addr=1 << 60, format="cd-table")
    iommu.bind_pgtable("p", str(ONE), pgtable="t", pasid=FEW)
    with pytest.raises(InUse, match="guest's own") as bound:
        iommu.bind_pgtable("p", str(ONE), addr=0, format="cd-table")
    assert f"PASID {FEW}" in bound.value.because
    iommu.unbind_pgtable("p", str(ONE), pasid=FEW)
    iommu.bind_pgtable("p", str(ONE), addr=0, format="cd-table")
    with pytest.raises(CannotNest, match="PASID") as owned:
        iommu.bind_pgtable("p", str(ONE), pgtable="t", pasid=FEW)
    assert "unbind-pgtable" in owned.value.hint
    iommu.unbind_pgtable("p", str(ONE))
    assert_agrees(nested)


def test_invalidating_it_takes_all_contexts(nested: Bench) -> None:
    nested.iommu.bind_pgtable("p", str(ONE), addr=0, format="cd-table")
    nested.iommu.invalidate("p", iova=0x1000, size=0x1000)
    assert [command.name for command in nested.iommu.last.commands] == [
        "smmuv3.cfgi-cd-all", "smmuv3.tlbi-nh-all", "smmuv3.atc-inv", "smmuv3.atc-inv",
    ]  # fmt: skip


# What is told


def test_events_of_a_viommu_are_listed_once_and_stay(nested: Bench) -> None:
    nested.iommu.bind_pgtable("p", str(ONE), pgtable="t")
    event = struct.pack("<4Q", 0x10 | ONE.source_id << 32, 1 << 35 | 2 << 40, 0x5000, 0)
    assert nested.kernel.report(NODES[ONE], event)
    found = nested.iommu.faults()
    assert [(each.fault.rid, each.fault.name, each.fault.iova, each.times) for each in found.faults] == [
        (ONE, "F_TRANSLATION", 0x5000, 1)
    ]
    assert "vIOMMU of p" in found.faults[0].source
    assert nested.kernel.report(NODES[ONE], event)
    assert [each.times for each in nested.iommu.faults().faults] == [2]
    assert [each.times for each in nested.iommu.faults().faults] == [2]


def test_all_of_it_goes_with_the_devices(smmu: Bench) -> None:
    prepare(smmu, FULL)
    smmu.iommu.device_unbind(ONE, force=True)
    smmu.iommu.device_unbind(TWO, force=True)
    for name in ("p", "q", "d"):
        smmu.iommu.domain_destroy(name)
    assert smmu.kernel.objects == {}
    assert smmu.iommu.check() == []


def test_slots_that_were_lost_can_be_emptied(smmu: Bench) -> None:
    """Rows go, and nothing is asked of a kernel that knows nothing any more."""
    prepare(smmu, FULL)
    smmu.kill_keeper()
    iommu = smmu.reopen()
    for pasid in (MANY, FEW):
        iommu.unbind_pgtable("p", str(ONE), pasid=pasid)
    iommu.detach("p", str(ONE), force=True)
    assert iommu.slots() == []
    iommu.rebuild_lost()
    assert_agrees(smmu)
