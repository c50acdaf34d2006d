# SPDX-License-Identifier: Apache-2.0
"""A transaction that fails, whole or in one step, leaves in the kernel what rows name, and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import pytest

from iommuctl.errors import KernelRefused
from iommuctl.iommufd import vfio_uapi as vfio
from iommuctl.iommufd.uapi import IOMMU_HWPT_ALLOC, IOMMU_IOAS_MAP_FILE, IOMMU_IOAS_MAP_READABLE
from tests.kernel.bench import PAGE, Bench
from tests.kernel.host import DRIVER, ONE, TWO
from tests.kernel.objects import Ioas, Mapped

ATTACH = vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT


class Later(Exception):
    """A later step of the transaction."""


@contextmanager
def failing(bench: Bench, error: type[Exception]) -> Iterator[None]:
    """A transaction that ends with this error."""
    with pytest.raises(error), bench.iommu.transaction():
        yield


def prepare(bench: Bench) -> None:
    """Domain `d` with a mapping, attached to the first device; `e`, which is empty."""
    iommu = bench.iommu
    iommu.device_bind(ONE)
    iommu.memory_create("m", 16 * PAGE)
    iommu.domain_create("d")
    iommu.map("d", iova=0, size=PAGE, memory="m")
    iommu.attach("d", ONE)
    iommu.domain_create("e")
    bench.assert_agrees()


@pytest.mark.parametrize("refused", [ATTACH, IOMMU_HWPT_ALLOC, IOMMU_IOAS_MAP_FILE])
def test_what_was_to_be_destroyed_is_there_after_a_rollback(bench: Bench, refused: int) -> None:
    prepare(bench)
    iommu, before = bench.iommu, deepcopy(bench.kernel.objects)
    with failing(bench, KernelRefused):
        iommu.domain_destroy("d", force=True)
        bench.kernel.refuse(refused)
        iommu.map("e", iova=0, size=PAGE, memory="m")
        iommu.attach("e", ONE)
    assert bench.kernel.objects == before
    bench.assert_agrees()


def test_a_step_that_failed_and_was_caught_spares_what_later_steps_make(bench: Bench) -> None:
    prepare(bench)
    iommu = bench.iommu
    destroyed = bench.rows("domain")[str(iommu.domain("d").id)]
    with iommu.transaction():
        iommu.domain_destroy("d", force=True)
        bench.kernel.refuse(ATTACH)
        with pytest.raises(KernelRefused):
            iommu.attach("e", ONE)
        iommu.domain_create("f")
        iommu.map("f", iova=2 * PAGE, size=PAGE, memory="m")
    bench.assert_agrees()
    assert not {destroyed["ioas"], *destroyed["hwpts"].values()} & bench.kernel.objects.keys()
    assert [one.iova for one in bench.ioas("f").mapped] == [2 * PAGE]
    assert [len(one.mapped) for one in bench.kernel.objects.values() if isinstance(one, Ioas)].count(0) == 1
    iommu.attach("f", ONE)
    bench.assert_agrees()


def test_a_slot_that_was_replaced_is_as_before_after_a_rollback(bench: Bench) -> None:
    prepare(bench)
    iommu, before = bench.iommu, deepcopy(bench.kernel.objects)
    with failing(bench, Later):
        iommu.attach("e", ONE, replace=True)
        iommu.attach("e", ONE, pasid=5)
        raise Later
    assert bench.kernel.objects == before
    bench.assert_agrees()


def test_another_mapping_at_the_same_place_is_taken_back(bench: Bench) -> None:
    iommu = bench.iommu
    iommu.memory_create("a", 16 * PAGE)
    iommu.memory_create("b", 16 * PAGE)
    iommu.domain_create("d")
    iommu.map("d", iova=0, size=PAGE, memory="a", offset=PAGE, prot="r")
    before = list(bench.ioas("d").mapped)
    with failing(bench, Later):
        iommu.unmap("d", iova=0, size=PAGE)
        iommu.map("d", iova=0, size=PAGE, memory="b")
        assert bench.ioas("d").mapped != before
        raise Later
    assert before == [Mapped(0, PAGE, "/memfd:iommuctl:a (deleted)", PAGE, IOMMU_IOAS_MAP_READABLE)]
    assert bench.ioas("d").mapped == before
    bench.assert_agrees()


def test_a_smaller_mapping_in_place_of_a_larger_is_taken_back(bench: Bench) -> None:
    iommu = bench.iommu
    iommu.memory_create("a", 16 * PAGE)
    iommu.domain_create("d")
    iommu.map("d", iova=0, size=2 * PAGE, memory="a")
    before = list(bench.ioas("d").mapped)
    with failing(bench, Later):
        iommu.unmap("d", iova=0, size=2 * PAGE)
        iommu.map("d", iova=PAGE, size=PAGE, memory="a", prot="r")
        raise Later
    assert bench.ioas("d").mapped == before
    bench.assert_agrees()


def test_the_first_transaction_of_a_folder_leaves_no_object_when_it_fails(bench: Bench) -> None:
    iommu = bench.iommu
    with failing(bench, Later):
        iommu.device_bind(ONE)
        iommu.memory_create("m", 16 * PAGE)
        iommu.domain_create("d")
        iommu.map("d", iova=0, size=PAGE, memory="m")
        iommu.attach("d", ONE)
        assert len(bench.kernel.objects) == 3
        raise Later
    assert bench.kernel.objects == {}
    assert bench.host.drivers[ONE] == (DRIVER, None)
    assert set(bench.held()) <= {"iommufd"}
    prepare(bench)


def test_a_device_that_was_bound_anew_has_the_id_that_its_row_says(bench: Bench) -> None:
    prepare(bench)
    iommu = bench.iommu
    iommu.device_bind(TWO)
    iommu.attach("d", TWO)
    iommu.attach("e", TWO, pasid=3)
    with failing(bench, Later):
        iommu.device_unbind(TWO, force=True)
        iommu.domain_create("n")
        iommu.device_bind(TWO)
        raise Later
    bench.assert_agrees()
    assert bench.device(TWO).node == "vfio1"
    assert bench.device(TWO).slots.keys() == {None, 3}
    iommu.attach("e", TWO, pasid=4)
    assert bench.device(TWO).slots[4] == bench.device(TWO).slots[3]
    bench.assert_agrees()


def test_an_object_of_a_program_outlives_an_attach_that_was_refused(bench: Bench) -> None:
    prepare(bench)
    iommu = bench.iommu
    theirs = bench.kernel.make(Ioas([Mapped(0, PAGE, "a program's", 0, 6)]))
    bench.kernel.refuse(ATTACH)
    with pytest.raises(KernelRefused):
        iommu.attach("e", ONE, pasid=1)
    assert bench.kernel.objects[theirs] == Ioas([Mapped(0, PAGE, "a program's", 0, 6)])
    bench.assert_agrees(theirs)
    bench.kernel.refuse(IOMMU_HWPT_ALLOC)
    with pytest.raises(KernelRefused):
        iommu.attach("e", ONE, pasid=1)
    bench.assert_agrees(theirs)
