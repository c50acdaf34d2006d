# SPDX-License-Identifier: Apache-2.0
"""Legacy mode driven: context entries word by word, 128-bit descriptors, and which of them each change needs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuctl import Iommu
from iommuctl.errors import DamagedTable, Unsupported, Usage
from tests.machine import SparseMemory
from tests.vtd.fault_cases import ECAP, ECAP_BITS
from tests.vtd.machine import QIE, SRTP, Machine

A, B = "0000:03:00.1", "0000:03:10.0"
WAIT = "25"


@pytest.fixture
def iommu(tmp_path: Path) -> Iterator[Iommu]:
    """Device A with ATS, device B without, domain d with one mapping."""
    with Iommu(tmp_path, backend="sim") as made:
        made.setup(options={"mode": "legacy"})
        made.device_add(A, ats=True)
        made.device_add(B)
        made.domain_create("d")
        made.map("d", iova=0x10000, size=0x10000, pa=0x100000)
        yield made


def sent(iommu: Iommu) -> list[str]:
    """The descriptors of the last change in memory order; a wait by its type alone."""
    raw = [command.raw.hex() for command in iommu.last.commands]
    assert {len(text) for text in raw} <= {32}
    return [WAIT if text.startswith(WAIT) else text for text in raw]


def test_an_attachment_is_a_context_entry(iommu: Iommu) -> None:
    iommu.attach("d", A)
    assert sent(iommu) == []
    root, context = iommu.translate(A, 0x10000).steps[:2]
    assert root.structure == "vtd.root-entry"
    assert context.structure == "vtd.context-entry"
    assert {**context.fields, "SSPTPTR": 0} == {"P": 1, "FPD": 0, "TT": 1, "SSPTPTR": 0, "AW": 2, "DID": 1}
    iommu.attach("d", B)
    assert iommu.translate(B, 0x10000).steps[1].fields["TT"] == 0
    assert iommu.check() == []


def test_detach_tells_every_cache_in_order(iommu: Iommu) -> None:
    iommu.attach("d", A)
    iommu.detach("d", A)
    # cc(device 0301, DID 1), iotlb(domain 1) with drains, wait; everything of the device TLB, wait.
    assert sent(iommu) == [
        "31000100010300000000000000000000",
        "e2000100000000000000000000000000",
        WAIT,
        "030000000103000001f0ffffffffff7f",
        WAIT,
    ]
    assert iommu.check() == []


def test_unmap_flushes_the_smallest_block(iommu: Iommu) -> None:
    iommu.attach("d", A)
    iommu.attach("d", B)
    iommu.map("d", iova=0x20000, size=0x1000, pa=0x200000)
    iommu.unmap("d", iova=0x10000, size=0x10000)
    # 16 pages at 0x10000, leaf entries alone; the device that has ATS: 64 KiB is bits 14:12 set.
    assert sent(iommu) == [
        "f2000100000000004400010000000000",
        WAIT,
        "03000000010300000170010000000000",
        WAIT,
    ]


def test_replace_brings_in_a_copy_of_the_table_with_one_store(iommu: Iommu) -> None:
    iommu.attach("d", A)
    iommu.attach("d", B)
    iommu.domain_create("e")
    iommu.dry_run = True
    iommu.attach("e", A, replace=True)
    writes = iommu.last.writes
    iommu.dry_run = False
    iommu.attach("e", A, replace=True)
    root = next(step for step in iommu.translate(A, 0).steps if step.structure == "vtd.root-entry")
    assert sum(write.address == root.address for write in writes) == 1
    assert sent(iommu)[0].startswith("11")  # context-cache, global
    assert iommu.translate(B, 0x10000).pa == 0x100000
    assert iommu.check() == []


def test_a_stale_entry_is_gone_after_unmap(iommu: Iommu) -> None:
    iommu.attach("d", B)
    assert iommu.dma(B, 0x10000, size=8).fault is None
    iommu.unmap("d", iova=0x10000, size=0x10000)
    fault = iommu.dma(B, 0x10000, size=8).fault
    assert fault
    assert (fault.code, fault.name) == (0x06, "LGN.3")


def test_present_is_written_last(iommu: Iommu) -> None:
    iommu.attach("d", A)
    iommu.dry_run = True
    iommu.attach("d", B)
    entries = [(write.address % 16, write.new & 1) for write in iommu.last.writes]
    assert entries == [(8, 0), (0, 1)]


def test_a_bus_without_a_context_table_is_damage(iommu: Iommu) -> None:
    iommu.attach("d", A)
    root = iommu.translate(A, 0x10000).steps[0].address
    iommu.write_memory(root, bytes(8))
    for change in (
        lambda: iommu.detach("d", A),
        lambda: iommu.attach("d", A, replace=True),
        lambda: iommu.device_remove(A, force=True),
        lambda: iommu.domain_destroy("d", force=True),
    ):
        with pytest.raises(DamagedTable):
            change()


def test_check_finds_what_differs(iommu: Iommu) -> None:
    iommu.attach("d", A)
    context = iommu.translate(A, 0x10000).steps[1]
    iommu.write_memory(context.address + 9, b"\x42")
    assert any("context entry of 0000:03:00.1" in problem for problem in iommu.check())


@pytest.mark.parametrize(
    ("words", "because"),
    [
        ({"pasid_bits": 8}, "no PASIDs"),
        ({"pri": True}, "page requests"),
    ],
)
def test_devices_that_legacy_mode_cannot_serve(iommu: Iommu, words: dict[str, int], because: str) -> None:
    with pytest.raises(Unsupported) as caught:
        iommu.device_add("0000:04:00.0", pasid_bits=words.get("pasid_bits", 0), pri=bool(words.get("pri")))
    assert because in caught.value.because


def test_a_device_tlb_needs_ecap_dt(tmp_path: Path) -> None:
    with Iommu(tmp_path, backend="sim") as made:
        made.setup(options={"mode": "legacy", "ecap": f"{ECAP & ~(1 << ECAP_BITS['DT']):#x}"})
        with pytest.raises(Unsupported) as caught:
            made.device_add(A, ats=True)
        assert "DT" in caught.value.because


def test_an_unknown_mode(tmp_path: Path) -> None:
    with Iommu(tmp_path, backend="sim") as made, pytest.raises(Usage, match="no mode 'modern'"):
        made.setup(options={"mode": "modern"})


@pytest.mark.parametrize(
    ("wide", "kind", "errors"),
    [(wide, kind, {0}) for wide in (False, True) for kind in (1, 2, 3, 4, 5)]
    + [(wide, kind, {3}) for wide in (False, True) for kind in (0, 10)]
    # Whether a type of scalable mode is an invalid type or an invalid width is not known.
    + [(wide, kind, {3, 5}) for wide in (False, True) for kind in (6, 7, 8, 9)],
)
def test_which_descriptors_are_legal_in_legacy_mode(wide: bool, kind: int, errors: set[int]) -> None:
    """Section 6.5.2.10. Types 1 and 2 need a granularity, here the global one; a wait needs nothing."""
    memory = SparseMemory((0, 0x10_0000))
    size = 32 if wide else 16
    memory.put({0x8000: kind | (0x10 if kind in (1, 2) else 0)})
    made = Machine(memory)
    for register, value in (("IQA", 0x8000 | wide << 11), ("GCMD", QIE), ("RTADDR", 0x1000), ("GCMD", QIE | SRTP)):
        made.unit.write_register(register, value)
    made.unit.write_register("IQT", size)
    assert made.unit.read_register("IQERCD") in errors
    assert made.unit.read_register("IQH") == (size if errors == {0} else 0)


def test_a_narrow_queue_is_refused_in_scalable_mode() -> None:
    memory = SparseMemory((0, 0x10_0000))
    memory.put({0x8000: 0x12})
    made = Machine(memory)
    for register, value in (("IQA", 0x8000), ("GCMD", QIE), ("RTADDR", 0x1400), ("GCMD", QIE | SRTP)):
        made.unit.write_register(register, value)
    made.unit.write_register("IQT", 16)
    assert made.unit.read_register("IQERCD") == 5
