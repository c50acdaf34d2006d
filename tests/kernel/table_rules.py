# SPDX-License-Identifier: Apache-2.0
"""Rules of ids, tables and attachments, for rules.py."""

import errno
import struct

from tests.kernel.calling import (
    ABORT,
    BYPASS,
    DIRTY,
    FAULT,
    FIRST,
    NEST_PARENT,
    PASID,
    SECOND,
    TRANSLATE,
    Process,
    refusal,
)

_VSTE = struct.pack("<QQ", BYPASS, 0)


# GET_HW_INFO: iommufd/device.c


def the_length_is_told_and_what_fits(process: Process) -> None:
    whole, data = process.hw_info(FIRST, 48)
    assert (whole.out_data_type, whole.data_len, whole.out_max_pasid_log2) == (2, 40, 0)
    assert data[40:] == bytes(8)
    short, beginning = process.hw_info(SECOND, 12)
    assert (short.data_len, beginning) == (40, data[:12])


# Ids and DESTROY: iommufd/main.c


def the_lowest_free_id_is_given(process: Process) -> None:
    made = [process.ioas() for _ in range(4)]
    process.destroy(made[2], made[0])
    assert [process.ioas(), process.ioas()] == [made[0], made[2]]
    assert refusal(process.destroy, 99) == errno.ENOENT


def what_is_in_use_is_not_destroyed(process: Process) -> None:
    ioas = process.ioas()
    parent = process.hwpt(ioas, NEST_PARENT)
    viommu = process.viommu(parent)
    vdevice, nested = process.vdevice(viommu), process.nested(viommu, TRANSLATE)
    process.attach(FIRST, nested)
    for number in (ioas, parent, viommu, nested, process.ids[FIRST]):
        assert refusal(process.destroy, number) == errno.EBUSY
    process.detach(FIRST)
    process.destroy(nested)
    assert refusal(process.destroy, viommu) == errno.EBUSY
    process.destroy(vdevice, viommu, parent, ioas)


# HWPT_ALLOC: iommufd/hw_pagetable.c, arm_smmu_domain_alloc_paging_flags, arm_vsmmu_alloc_domain_nested


def no_nest_parent_takes_pasids_or_tells_of_writes(process: Process) -> None:
    assert refusal(process.hwpt, process.ioas(), NEST_PARENT) == 0
    assert refusal(process.hwpt, process.ioas(), PASID) == 0
    for flags in (NEST_PARENT | PASID, NEST_PARENT | DIRTY, NEST_PARENT | FAULT, 1 << 4):
        assert refusal(process.hwpt, process.ioas(), flags) == errno.EOPNOTSUPP


def payloads_and_their_types_go_together(process: Process) -> None:
    ioas = process.ioas()
    viommu = process.viommu(process.hwpt(ioas, NEST_PARENT))
    assert refusal(process.hwpt, viommu, data=_VSTE, data_type=0) == errno.EINVAL
    assert refusal(process.hwpt, viommu, data_type=2) == errno.EINVAL
    assert refusal(process.hwpt, viommu) == errno.EOPNOTSUPP
    assert refusal(process.hwpt, viommu, data=_VSTE, data_type=1) == errno.EINVAL
    assert refusal(process.hwpt, viommu, data=_VSTE + bytes(8)) == errno.EINVAL
    assert refusal(process.hwpt, ioas, data=_VSTE) == errno.EOPNOTSUPP
    assert refusal(process.hwpt, ioas, __reserved=1) == errno.EOPNOTSUPP


def what_a_table_is_made_of_must_be_there(process: Process) -> None:
    parent = process.parent()
    viommu = process.viommu(parent)
    for under in (99, process.ids[FIRST], process.nested(viommu, BYPASS)):
        assert refusal(process.hwpt, under, data=_VSTE) == errno.EINVAL
    assert refusal(process.hwpt, viommu, data=_VSTE, dev_id=parent) == errno.ENOENT


def a_nested_table_is_made_of_a_viommu_alone(process: Process) -> None:
    parent = process.parent()
    assert refusal(process.nested, parent, TRANSLATE) == errno.EOPNOTSUPP
    assert refusal(process.nested, process.viommu(parent), TRANSLATE, 0x1000_00D4) == 0


def an_ste_has_no_field_that_is_not_the_guests(process: Process) -> None:
    viommu = process.viommu(process.parent())
    for first, second in ((ABORT, 0), (0, 1 << 44), (0xF80F_FFFF_FFFF_FFFB, 0x1800_00FF)):
        assert refusal(process.nested, viommu, first, second) == 0
    for first in (0x3, 0xD, 0xF, TRANSLATE | 1 << 52, TRANSLATE | 1 << 58):
        assert refusal(process.nested, viommu, first) == errno.EIO
    for second in (2 << 28, 1 << 8, 1 << 44):
        assert refusal(process.nested, viommu, TRANSLATE, second) == errno.EIO


def a_table_of_a_viommu_takes_no_pasids(process: Process) -> None:
    viommu = process.viommu(process.parent())
    for flags in (PASID, NEST_PARENT, DIRTY):
        assert refusal(process.nested, viommu, BYPASS, flags=flags) == errno.EOPNOTSUPP
    assert refusal(process.nested, viommu, BYPASS, flags=FAULT) == errno.ENOENT


# ATTACH: iommufd/device.c, arm_smmu_attach_dev_nested, arm_smmu_attach_prepare_vmaster


def what_translates_needs_a_vdevice_on_its_viommu(process: Process) -> None:
    parent = process.parent()
    viommu, other = process.viommu(parent), process.viommu(parent)
    nested = process.nested(viommu, TRANSLATE)
    assert refusal(process.attach, FIRST, nested) == errno.ENOENT
    vdevice = process.vdevice(other)
    assert refusal(process.attach, FIRST, nested) == errno.ENOENT
    process.destroy(vdevice)
    process.vdevice(viommu)
    process.attach(FIRST, nested)
    assert refusal(process.attach, SECOND, nested) == errno.ENOENT


def what_does_not_translate_needs_none(process: Process) -> None:
    viommu = process.viommu(process.parent())
    for first in (BYPASS, ABORT, 0):
        process.attach(FIRST, process.nested(viommu, first))


def an_attachment_is_replaced(process: Process) -> None:
    parent = process.parent()
    viommu = process.viommu(parent)
    process.vdevice(viommu)
    tables = [parent, process.nested(viommu, TRANSLATE), process.nested(viommu, BYPASS), process.hwpt(process.ioas())]
    for number in (*tables, *reversed(tables), parent):
        process.attach(FIRST, number)
    process.destroy(*tables[1:])
    process.detach(FIRST)
    process.detach(FIRST)


def only_a_table_is_attached(process: Process) -> None:
    viommu = process.viommu(process.parent())
    for number in (viommu, process.vdevice(viommu), process.ids[FIRST]):
        assert refusal(process.attach, FIRST, number) == errno.EINVAL
    assert refusal(process.attach, FIRST, 99) == errno.ENOENT


def pasids_and_a_nest_parent_exclude_each_other(process: Process) -> None:
    """iommufd_hwpt_pasid_compat, which is before the driver could say EBUSY: also for a device that has no PASIDs."""
    parent = process.parent()
    nested, stage1 = process.nested(process.viommu(parent), BYPASS), process.hwpt(process.ioas(), PASID)
    for number in (parent, nested, process.hwpt(process.ioas())):
        assert refusal(process.attach, FIRST, number, 1) == errno.EINVAL
        process.attach(FIRST, number)
        assert refusal(process.attach, FIRST, stage1, 1) == errno.EINVAL
        process.detach(FIRST)
    process.attach(FIRST, stage1, 1)
    assert refusal(process.destroy, stage1) == errno.EBUSY
    for number in (parent, nested):
        assert refusal(process.attach, FIRST, number) == errno.EINVAL
    process.attach(FIRST, stage1)
    process.detach(FIRST, 1)
    process.attach(FIRST, nested)
