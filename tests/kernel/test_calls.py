# SPDX-License-Identifier: Apache-2.0
"""The kernel in this process keeps the rules, and those that need more than hardware without PASIDs and one unit."""

import errno
import os
import select
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from iommuctl.iommufd import uapi
from tests.kernel.calling import (
    BYPASS,
    DIRTY,
    FIRST,
    NEST_PARENT,
    NH_ALL,
    PASID,
    SECOND,
    SYNC,
    TRANSLATE,
    VSID,
    Process,
    refusal,
)
from tests.kernel.calls import Kernel, Killed
from tests.kernel.commands import BOTH, COMMANDS, RICH
from tests.kernel.objects import Dead, Hwpt, Vdevice, Veventq
from tests.kernel.rules import RULES, Rule
from tests.kernel.smmuv3_unit import QEMU, SUBSTREAMS, Smmuv3Unit
from tests.kernel.tables import Invalidated
from tests.kernel.units import Place

OTHER = "other"
"""A device behind a unit of its own."""


@contextmanager
def running(**places: Place) -> Iterator[tuple[Kernel, Process]]:
    kernel = Kernel(places)
    process = Process(kernel.ioctl, kernel.open(), {name: kernel.open(name) for name in places})
    yield kernel, process
    process.end()
    assert kernel.objects == {}
    kernel.close()


@pytest.fixture
def rich() -> Iterator[tuple[Kernel, Process]]:
    """FIRST has PASIDs, of more bits than the unit."""
    unit = Smmuv3Unit.of(SUBSTREAMS)
    other = Smmuv3Unit.of(SUBSTREAMS, "unit1")
    with running(first=Place(unit, 20), second=Place(unit, 0), other=Place(other)) as made:
        yield made


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rules_are_kept(rule: Rule) -> None:
    unit = Smmuv3Unit.of(QEMU)
    with running(first=Place(unit, 0), second=Place(unit, 0)) as (_, process):
        rule(process)


# What a unit tells and takes: arm_smmu_hw_info, arm_smmu_domain_alloc_paging_flags, arm_smmu_get_viommu_size


def test_the_registers_of_the_unit_are_told(rich: tuple[Kernel, Process]) -> None:
    argument, data = rich[1].hw_info(FIRST, 40)
    assert argument.out_max_pasid_log2 == 16
    assert struct.unpack("<10I", data) == (0, 0, 0x0D4C141B, 0x02730410, 0, 0x1414, 0, 0x74, 0, 1)


def test_a_unit_without_substreams_leaves_a_device_no_pasids() -> None:
    with running(first=Place(Smmuv3Unit.of(QEMU), 16)) as (_, process):
        assert process.hw_info(FIRST, 0)[0].out_max_pasid_log2 == 0
        assert refusal(process.attach, FIRST, process.hwpt(process.ioas(), PASID), 1) == errno.EINVAL


def test_a_unit_with_stage_2_alone_has_neither_nest_parents_nor_pasids() -> None:
    with running(first=Place(Smmuv3Unit.of(SUBSTREAMS | {"IDR0": SUBSTREAMS["IDR0"] & ~2}))) as (_, process):
        flags = (0, NEST_PARENT, PASID, DIRTY)
        answers = [refusal(process.hwpt, process.ioas(), each) for each in flags]
        assert answers == [0, *3 * [errno.EOPNOTSUPP]]


@pytest.mark.parametrize(
    ("forces_write_back", "coherent", "number"), [(0, False, errno.EOPNOTSUPP), (0, True, 0), (1, False, 0)]
)
def test_a_viommu_needs_devices_that_are_coherent_or_a_stage_2_that_makes_them(
    forces_write_back: int, coherent: bool, number: int
) -> None:
    registers = QEMU | {"IDR3": QEMU["IDR3"] | forces_write_back << 8}
    with running(first=Place(Smmuv3Unit.of(registers, coherent=coherent))) as (_, process):
        assert refusal(process.viommu, process.parent()) == number


def test_a_pasid_is_as_wide_as_the_unit_has_them(rich: tuple[Kernel, Process]) -> None:
    """iommu_attach_device_pasid, drivers/iommu/iommu.c."""
    _, process = rich
    stage1 = process.hwpt(process.ioas(), PASID)
    assert refusal(process.attach, FIRST, stage1, 0x1_0000) == errno.EINVAL
    assert refusal(process.attach, SECOND, stage1, 0x1_0000) == 0
    process.attach(FIRST, stage1, 0xFFFF)


def test_units_share_nothing(rich: tuple[Kernel, Process]) -> None:
    _, process = rich
    parent = process.parent()
    viommu = process.viommu(parent)
    nested = process.nested(viommu, BYPASS)
    assert refusal(process.nested, viommu, BYPASS, name=OTHER) == errno.EINVAL
    assert refusal(process.viommu, parent, OTHER) == errno.EINVAL
    assert refusal(process.vdevice, viommu, OTHER) == errno.EINVAL
    assert refusal(process.attach, OTHER, parent) == errno.EINVAL
    assert refusal(process.attach, OTHER, nested) == errno.EINVAL


def test_what_is_kept_of_a_nested_table(rich: tuple[Kernel, Process]) -> None:
    kernel, process = rich
    viommu = process.viommu(process.parent())
    valid = process.nested(viommu, TRANSLATE, 0x1000_00D4)
    assert kernel.objects[valid] == Hwpt(viommu, "unit0", nested=True, data=struct.pack("<QQ", TRANSLATE, 0x1000_00D4))
    invalid = process.nested(viommu, 0xE, 1 << 44)
    assert kernel.objects[invalid] == Hwpt(viommu, "unit0", nested=True, data=bytes(16))


# What tests see of invalidations


@pytest.fixture
def viommu(rich: tuple[Kernel, Process]) -> int:
    found = rich[1].viommu(rich[1].parent())
    rich[1].vdevice(found)
    return found


def test_commands_are_noted_call_by_call(rich: tuple[Kernel, Process], viommu: int) -> None:
    kernel, process = rich
    cfgi_cd = (0x05 | VSID << 32 | 3 << 12, 1)
    process.invalidate(viommu, cfgi_cd, NH_ALL)
    process.invalidate(viommu, NH_ALL)
    first, second = struct.pack("<QQ", *cfgi_cd), struct.pack("<QQ", *NH_ALL)
    assert kernel.invalidated == [Invalidated(viommu, (first, second)), Invalidated(viommu, (second,))]


@pytest.mark.parametrize(("refused", "sent"), [(0, 0), (62, 0), (63, 63), (64, 63), (126, 126)])
def test_what_precedes_a_refused_command_in_its_batch_of_63_is_not_sent(
    rich: tuple[Kernel, Process], viommu: int, refused: int, sent: int
) -> None:
    """arm_vsmmu_cache_invalidate: no caller can see it in a real kernel."""
    kernel, process = rich
    process.invalidate(viommu, *[NH_ALL] * refused, SYNC, NH_ALL)
    assert kernel.invalidated == [Invalidated(viommu, (struct.pack("<QQ", *NH_ALL),) * sent, struct.pack("<QQ", *SYNC))]


@pytest.mark.parametrize("registers", [QEMU, SUBSTREAMS], ids=["qemu", "substreams"])
def test_only_the_guests_commands_and_their_fields(registers: dict[str, int]) -> None:
    unit = Smmuv3Unit.of(registers)
    taken = {BOTH, RICH} if registers is SUBSTREAMS else {BOTH}
    for which, command in COMMANDS:
        assert unit.refuses(struct.pack("<2Q", *command), {VSID}) == (which not in taken), f"{command[0]:#x}"


@pytest.mark.parametrize(
    ("register", "bit", "command", "without", "with_it"),
    [
        ("IDR0", 12, (0x11 | 0x100 << 48, 0), True, False),  # ASID16
        ("IDR3", 10, (0x12 | 1 << 12, 0x1400), True, False),  # RIL
        ("IDR3", 10, (0x12, 0x1000), False, False),
        ("IDR5", 7, (0x12 | 1 << 25, 0x1400), True, False),  # DS
        ("IDR5", 7, (0x12, 0x1900), True, False),
    ],
)
def test_fields_of_a_feature_need_it(
    register: str, bit: int, command: tuple[int, int], without: bool, with_it: bool
) -> None:
    for value, refused in ((SUBSTREAMS[register] & ~(1 << bit), without), (SUBSTREAMS[register] | 1 << bit, with_it)):
        unit = Smmuv3Unit.of(SUBSTREAMS | {register: value})
        assert unit.refuses(struct.pack("<2Q", *command), ()) == refused


# What tests see of vDEVICEs, and of processes that end


def test_a_vdevice_goes_with_its_device(rich: tuple[Kernel, Process], viommu: int) -> None:
    kernel, process = rich
    vdevice = next(number for number, one in kernel.objects.items() if isinstance(one, Vdevice))
    process.close(FIRST)
    assert kernel.objects[vdevice] == Dead()
    assert process.ids[FIRST] not in kernel.objects


def test_what_a_killed_process_was_given_is_closed(rich: tuple[Kernel, Process], viommu: int) -> None:
    kernel, process = rich
    kernel.kill(uapi.IOMMU_VEVENTQ_ALLOC, made=True)
    with pytest.raises(Killed):
        process.veventq(viommu)
    queue = next(number for number, one in kernel.objects.items() if isinstance(one, Veventq))
    kernel.next_process()
    process.destroy(queue)


def test_an_open_event_queue_keeps_its_iommufd(rich: tuple[Kernel, Process], viommu: int) -> None:
    kernel, process = rich
    queue, descriptor = process.veventq(viommu)
    process.end()
    assert {queue, viommu} <= kernel.objects.keys()
    os.close(descriptor)
    assert kernel.objects == {}


# Events: iommufd/{eventq,driver}.c, arm_vmaster_report_event

EVENT = struct.pack("<4Q", 0x10 | 0x88 << 32, 0x1, 0x2, 0x3)
"""F_TRANSLATION of the stream that the unit knows as 0x88."""


def told(sequence: int) -> bytes:
    return struct.pack("<2I4Q", 0, sequence, 0x10 | VSID << 32, 0x1, 0x2, 0x3)


def test_events_come_with_the_number_of_the_device_while_it_is_nested(
    rich: tuple[Kernel, Process], viommu: int
) -> None:
    kernel, process = rich
    process.attach(FIRST, process.nested(viommu, TRANSLATE))
    assert not kernel.report(FIRST, EVENT), "nobody is told without a queue"
    _, descriptor = process.veventq(viommu)
    assert select.select([descriptor], [], [], 0)[0] == []
    assert [kernel.report(FIRST, EVENT), kernel.report(FIRST, EVENT)] == [True, True]
    assert select.select([descriptor], [], [], 0)[0] == [descriptor]
    assert os.read(descriptor, 4096) == told(0) + told(1)
    assert not kernel.report(SECOND, EVENT)
    process.attach(FIRST, process.parent())
    assert not kernel.report(FIRST, EVENT)
    os.close(descriptor)


def test_a_full_queue_tells_once_that_events_were_lost(rich: tuple[Kernel, Process], viommu: int) -> None:
    kernel, process = rich
    _, descriptor = process.veventq(viommu, veventq_depth=2)
    process.attach(FIRST, process.nested(viommu, TRANSLATE))
    for _ in range(4):
        kernel.report(FIRST, EVENT)
    lost = struct.pack("<2I", uapi.IOMMU_VEVENTQ_FLAG_LOST_EVENTS, 2)
    assert os.read(descriptor, 4096) == told(0) + told(1) + lost
    kernel.report(FIRST, EVENT)
    assert os.read(descriptor, 4096) == told(4)
    os.close(descriptor)
