# SPDX-License-Identifier: Apache-2.0
"""Structures that are written while hardware looks at them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, Run, read_word, write_word
from iommuctl.iommu import Iommu
from iommuctl.model import Rid
from iommuctl_vtd.context_entry import ContextEntry
from iommuctl_vtd.legacy_tables import LegacyTables
from iommuctl_vtd.pasid_entry import PasidEntry
from iommuctl_vtd.tables import Tables
from tests.sim.sabotage import written
from tests.sim.scenarios import LOW, A, B, machine

FIRST = "had P set before the rest was written"
SEVERAL = "was changed by several stores while it was present"


def entry_at_once(tables: Any, address: int, data: bytes) -> None:
    """From the first word on, as a copy of bytes does."""
    tables._memory.write(address, data)


def context_at_once(tables: Any, rid: Rid, entry: int) -> None:
    address = tables._address(rid)
    tables._memory.write(address, ContextEntry.to_bytes(entry))


def in_place(tables: Any, rid: Rid, pasid: int, entry: int) -> Run:
    """A present PASID entry changes word by word. The run is one that is free to go."""
    address = tables.pasid_address(rid, pasid)
    for number, word in enumerate(PasidEntry.to_words(entry)):
        write_word(tables._memory, address + 8 * number, word)
    return Run(tables._memory.allocate_run(1), 1)


def context_in_place(tables: Any, rid: Rid, entry: int) -> Run:
    address = tables._address(rid)
    tables._memory.write(address, ContextEntry.to_bytes(entry))
    return Run(tables._memory.allocate_run(1), 1)


def one_word_in_place(tables: Any, rid: Rid, pasid: int, entry: int) -> Run:
    """Two domains may differ in one word alone: a single store is no mistake."""
    address = tables.pasid_address(rid, pasid)
    same = read_word(tables._memory, address)
    entry = entry & ~((1 << 64) - 1) | same
    tables._memory.write(address + 8, PasidEntry.to_bytes(entry)[8:16])
    return Run(tables._memory.allocate_run(1), 1)


def cleared_last(tables: Any, rid: Rid, pasid: int) -> None:
    """Everything but the first word goes first."""
    address = tables.pasid_address(rid, pasid)
    tables._memory.write(address + 8, bytes(56))
    write_word(tables._memory, address, read_word(tables._memory, address) & ~1)


@pytest.fixture
def warned(tmp_path: Path) -> Any:
    def play(
        mode: str, owner: object, method: str, wrong: Callable[..., Any], act: Callable[[Iommu], Any]
    ) -> list[str]:
        with Iommu(tmp_path / "state", backend="sim") as iommu:
            machine(iommu, mode)
            for name in ("d", "e"):
                iommu.domain_create(name)
                iommu.map(name, iova=LOW, size=PAGE, memory="ram")
            iommu.attach("d", A, pasid=None if mode == "legacy" else 3)
            with written(owner, method, wrong)():
                act(iommu)
            return list(iommu.last.warnings)

    return play


def test_present_before_the_rest(warned: Any) -> None:
    (warning,) = warned("scalable", Tables, "_write_entry", entry_at_once, lambda iommu: iommu.attach("d", B, pasid=3))
    assert warning.startswith("the vtd.pasid-entry of 0000:00:02.0 PASID 3 at 0x")
    assert warning.endswith(FIRST)


def test_an_entry_with_all_that_counts_in_one_word(warned: Any) -> None:
    """The other words of a context entry of scalable mode are zero, before and after."""
    new = "0000:00:03.0"
    assert warned("scalable", Tables, "_write_entry", entry_at_once, lambda iommu: iommu.device_add(new)) == []


def test_a_context_entry_of_legacy_mode(warned: Any) -> None:
    (warning,) = warned("legacy", LegacyTables, "add_context", context_at_once, lambda iommu: iommu.attach("d", B))
    assert warning.startswith("the vtd.context-entry of 0000:00:02.0 at 0x")
    assert warning.endswith(FIRST)


def test_a_change_in_place(warned: Any) -> None:
    replace = lambda iommu: iommu.attach("e", A, pasid=3, replace=True)  # noqa: E731
    (warning,) = warned("scalable", Tables, "swap_pasid", in_place, replace)
    assert warning.endswith(SEVERAL)


def test_a_change_in_place_of_legacy_mode(warned: Any) -> None:
    replace = lambda iommu: iommu.attach("e", A, replace=True)  # noqa: E731
    (warning,) = warned("legacy", LegacyTables, "swap_context", context_in_place, replace)
    assert warning.endswith(SEVERAL)


def test_one_store_is_no_mistake(warned: Any) -> None:
    replace = lambda iommu: iommu.attach("e", A, pasid=3, replace=True)  # noqa: E731
    assert warned("scalable", Tables, "swap_pasid", one_word_in_place, replace) == []


def test_an_entry_that_is_emptied_from_its_end(warned: Any) -> None:
    detach = lambda iommu: iommu.detach("d", A, pasid=3)  # noqa: E731
    (warning,) = warned("scalable", Tables, "clear_pasid", cleared_last, detach)
    assert warning.endswith(SEVERAL)


def test_a_table_that_is_freed_and_still_pointed_to(warned: Any) -> None:
    """The entry that points to the leaf table stays where it is."""
    right = radix.unmap_range

    def wrong(fmt: radix.Format, memory: Any, root: int, iova: int, size: int) -> radix.Unmapped:
        *tables, _leaf = radix.walk(fmt, memory, root, iova)
        gone = right(fmt, memory, root, iova, size)
        write_word(memory, tables[0].address, tables[0].raw)
        return gone

    unmap = lambda iommu: iommu.unmap("d", iova=LOW, size=PAGE)  # noqa: E731
    warnings = warned("scalable", radix, "unmap_range", wrong, unmap)
    assert len(warnings) == 3, "three levels became empty"
    for warning in warnings:
        assert warning.startswith("the table at 0x")
        assert warning.endswith(" was freed while another table still points to it")


def test_the_driver_as_it_is(warned: Any) -> None:
    def everything(iommu: Iommu) -> None:
        with pytest.MonkeyPatch.context() as patch:
            from iommuctl.state.transaction import Transaction

            patch.setattr(Transaction, "warn", lambda _transaction, text: pytest.fail(text))
            iommu.attach("e", A, pasid=3, replace=True)
            iommu.attach("d", A)
            iommu.attach("d", B, pasid=3)
            iommu.detach("e", A, pasid=3)
            iommu.device_remove(A, force=True)
            iommu.device_add(A)

    assert warned("scalable", Tables, "is_pointer", Tables.is_pointer, everything) == []
