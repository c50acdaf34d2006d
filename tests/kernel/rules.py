# SPDX-License-Identifier: Apache-2.0
"""The rules of iommufd on an SMMUv3 that nests, as calls and errors: what Linux 7.3 answers, by the file that says so.

They hold for any unit whose devices FIRST and SECOND have no PASIDs: the kernel in this process keeps them, and where
there is such hardware they are asked of a real one.
"""

import errno
import os
import sys
from collections.abc import Callable
from types import FunctionType

from tests.kernel import table_rules
from tests.kernel.calling import BYPASS, FIRST, NH_ALL, SECOND, SYNC, TRANSLATE, VSID, Process, refusal

Rule = Callable[[Process], None]


# VIOMMU_ALLOC, VDEVICE_ALLOC: iommufd/viommu.c, arm_smmu_get_viommu_size


def there_is_one_kind_of_viommu(process: Process) -> None:
    parent = process.parent()
    for fields in ({"flags": 1}, {"type": 0}, {"type": 2}):
        assert refusal(process.viommu, parent, **fields) == errno.EOPNOTSUPP


def a_viommu_is_over_a_nest_parent(process: Process) -> None:
    parent = process.parent()
    viommu = process.viommu(parent)
    assert refusal(process.viommu, process.hwpt(process.ioas())) == errno.EINVAL
    for other in (99, viommu, process.nested(viommu, BYPASS)):
        assert refusal(process.viommu, other) == errno.ENOENT
    assert refusal(process.viommu, parent, dev_id=parent) == errno.ENOENT


def a_device_has_one_number_and_a_number_one_device(process: Process) -> None:
    parent = process.parent()
    viommu, other = process.viommu(parent), process.viommu(parent)
    process.vdevice(viommu)
    assert refusal(process.vdevice, viommu, number=1) == errno.EEXIST
    assert refusal(process.vdevice, other) == errno.EEXIST
    assert refusal(process.vdevice, viommu, SECOND) == errno.EEXIST
    assert refusal(process.vdevice, parent, SECOND) == errno.ENOENT
    process.vdevice(other, SECOND)


def the_id_of_a_vdevice_is_dead_whose_device_is_closed(process: Process) -> None:
    viommu = process.viommu(process.parent())
    vdevice, nested = process.vdevice(viommu), process.nested(viommu, TRANSLATE)
    process.attach(FIRST, nested)
    process.close(FIRST)
    assert refusal(process.destroy, vdevice) == errno.ENOENT
    assert process.ioas() == process.ids[FIRST]
    process.destroy(nested, viommu)
    assert vdevice not in {process.ioas() for _ in range(8)}


def the_id_of_a_vdevice_is_free_that_was_destroyed(process: Process) -> None:
    viommu = process.viommu(process.parent())
    vdevice = process.vdevice(viommu)
    process.attach(FIRST, process.nested(viommu, TRANSLATE))
    process.destroy(vdevice)
    assert process.vdevice(viommu, SECOND) == vdevice
    process.close(FIRST)
    process.destroy(vdevice)


# HWPT_INVALIDATE: iommufd/hw_pagetable.c, arm_vsmmu_cache_invalidate


def the_number_that_comes_back_is_that_before_the_refused_command(process: Process) -> None:
    viommu = process.viommu(process.parent())
    assert process.invalidate(viommu, NH_ALL, NH_ALL) == (0, 2)
    for refused in (0, 62, 63, 64, 126):
        assert process.invalidate(viommu, *[NH_ALL] * refused, SYNC, NH_ALL) == (errno.EIO, refused)


def a_call_that_is_wrong_carries_nothing_out(process: Process) -> None:
    parent = process.parent()
    viommu = process.viommu(parent)
    for number, fields in (
        (errno.EOPNOTSUPP, {"__reserved": 1}),
        (errno.EINVAL, {"data_uptr": 0}),
        (errno.EINVAL, {"entry_len": 0}),
        (errno.EINVAL, {"entry_len": os.sysconf("SC_PAGE_SIZE") + 1}),
        (errno.EINVAL, {"entry_num": (1 << 19) + 1}),
        (errno.EINVAL, {"data_type": 0}),
        (errno.EINVAL, {"entry_num": 0}),
        (errno.ENOENT, {"hwpt_id": 99}),
        (errno.EINVAL, {"hwpt_id": parent}),
        (errno.EINVAL, {"hwpt_id": process.ids[FIRST]}),
        (errno.EOPNOTSUPP, {"hwpt_id": process.nested(viommu, TRANSLATE)}),
    ):
        assert process.invalidate(viommu, NH_ALL, **fields) == (number, 0), fields


def longer_entries_end_with_zeros(process: Process) -> None:
    viommu = process.viommu(process.parent())
    assert process.invalidate(viommu, NH_ALL, (0, 0), entry_num=1, entry_len=32) == (0, 1)
    assert process.invalidate(viommu, NH_ALL, (1, 0), entry_num=1, entry_len=32) == (errno.E2BIG, 0)
    assert process.invalidate(viommu, NH_ALL, entry_len=8) == (0, 1)


def a_number_is_that_of_a_device_while_it_has_a_vdevice(process: Process) -> None:
    viommu = process.viommu(process.parent())
    cfgi_cd_all = (0x06 | VSID << 32, 0)
    assert process.invalidate(viommu, cfgi_cd_all) == (errno.EIO, 0)
    vdevice = process.vdevice(viommu)
    assert process.invalidate(viommu, cfgi_cd_all) == (0, 1)
    process.destroy(vdevice)
    assert process.invalidate(viommu, cfgi_cd_all) == (errno.EIO, 0)
    process.vdevice(viommu)
    process.close(FIRST)
    assert process.invalidate(viommu, cfgi_cd_all) == (errno.EIO, 0)


# VEVENTQ_ALLOC: iommufd/eventq.c


def an_event_queue_is_of_a_type_and_a_depth(process: Process) -> None:
    viommu = process.viommu(process.parent())
    for number, fields in (
        (errno.EOPNOTSUPP, {"flags": 1}),
        (errno.EOPNOTSUPP, {"__reserved": 1}),
        (errno.EOPNOTSUPP, {"type": 0}),
        (errno.EINVAL, {"veventq_depth": 0}),
        (errno.EINVAL, {"veventq_depth": (1 << 19) + 1}),
        (errno.ENOENT, {"viommu_id": 99}),
    ):
        assert refusal(process.veventq, viommu, **fields) == number, fields


def an_event_queue_stays_while_its_file_is_open(process: Process) -> None:
    viommu = process.viommu(process.parent())
    queue, descriptor = process.veventq(viommu)
    copy = os.dup(descriptor)
    os.close(descriptor)
    assert refusal(process.veventq, viommu) == errno.EEXIST
    assert refusal(process.destroy, queue) == errno.EBUSY
    os.close(copy)
    assert refusal(process.veventq, viommu) == errno.EEXIST
    assert refusal(process.destroy, viommu) == errno.EBUSY
    process.destroy(queue)
    again, descriptor = process.veventq(viommu)
    os.close(descriptor)
    process.destroy(again, viommu)


RULES: tuple[Rule, ...] = tuple(
    one
    for module in (table_rules, sys.modules[__name__])
    for one in vars(module).values()
    if isinstance(one, FunctionType) and one.__module__ == module.__name__
)
