# SPDX-License-Identifier: Apache-2.0
"""The core on a machine that is real: what hooks are asked, and what is read of named memory and of rows.

Page tables lie in named memory: those that we build there, and those that a guest writes.
"""

import os
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from iommuctl import Iommu, plugins
from iommuctl.errors import DeviceNotBound, InUse, Lost, OutOfAperture, OutsideMemory, ReservedRange, Unsupported
from iommuctl.model import NO_PHYSICAL, Access, Translation
from iommuctl.requests import MemorySource
from iommuctl.translating import EMPTY, NO_ENTRY, NO_MAPPING, NO_PERMISSION, NOT_READABLE
from tests.cli.real import DIRTY_PAGE, FIRST_STAGE, INTERRUPTS, NAME, NIC, ONE, SIBLING, TWO

SIZE = 16 << 20
POOL, POOL_SIZE = 1 << 20, 256 << 10
ABOVE = 0x7F00_0000_0000
HOLE = 12 << 20
"""From here on the parent maps nothing."""
PRESENT, WRITE, USER, ACCESSED = 1, 2, 4, 32


@pytest.fixture
def iommu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Iommu]:
    """A real machine with memory `ram`: all but its end is GPA 0 and up of `vm`, to which the first device is attached.

    The last 4 KiB of these can only be read. `t` is a page table that we build there, for PASID 1 of the device.
    """
    monkeypatch.setitem(plugins.BACKENDS, NAME, "tests.cli.real")
    with Iommu(tmp_path / "state", backend=NAME) as made:
        made.device_bind(ONE)
        made.memory_create("ram", SIZE)
        made.domain_create("vm", nest_parent=True)
        made.map("vm", iova=0, size=HOLE - 0x1000, memory="ram")
        made.map("vm", iova=HOLE - 0x1000, size=0x1000, memory="ram", offset=HOLE - 0x1000, prot="r")
        made.attach("vm", ONE)
        made.pgtable_create("t", parent="vm", pool=POOL, pool_size=POOL_SIZE)
        made.bind_pgtable("vm", ONE, pgtable="t", pasid=1)
        yield made


def place(iommu: Iommu, answer: Translation) -> int | None:
    """The offset in `ram` that a translation leads to."""
    return None if answer.pa is None else answer.pa - iommu.memory("ram").pa


def code(answer: Translation) -> int | None:
    return answer.fault and answer.fault.code


def content(iommu: Iommu) -> Path:
    """The file behind `ram`."""
    return iommu.state / "named-1"


def put(iommu: Iommu, words: dict[int, int]) -> None:
    """Words that a guest writes, by their GPA, which is the offset in `ram`."""
    with open(content(iommu), "r+b") as memory:
        for address, word in words.items():
            os.pwrite(memory.fileno(), word.to_bytes(8, "little"), address)


# What a translation says of a domain


def test_a_domain_answers_by_its_rows(iommu: Iommu) -> None:
    found = iommu.translate(ONE, 0x12_3456, access="w")
    assert (place(iommu, found), found.prot, found.fault, found.steps) == (0x12_3456, "rw", None, ())
    assert found.pa is not None
    assert found.pa >= NO_PHYSICAL


@pytest.mark.parametrize(
    ("iova", "access", "fault"),
    [(HOLE, "r", NO_MAPPING), (1 << 63, "r", NO_MAPPING), (HOLE - 8, "w", NO_PERMISSION), (HOLE - 8, "r", None)],
)
def test_what_a_domain_does_not_allow(iommu: Iommu, iova: int, access: Access, fault: int | None) -> None:
    assert code(iommu.translate(ONE, iova, access=access)) == fault


def test_an_empty_slot_leads_nowhere(iommu: Iommu) -> None:
    assert code(iommu.translate(ONE, 0, pasid=2)) == EMPTY
    assert code(iommu.translate(TWO, 0)) == EMPTY


# Page tables that we build


def test_a_page_table_of_ours_is_walked(iommu: Iommu) -> None:
    iommu.pgtable_map("t", iova=ABOVE, size=0x2000, gpa=0x20_0000)
    found = iommu.translate(ONE, ABOVE + 0x1008, pasid=1, access="w")
    assert (place(iommu, found), found.prot, found.page_size) == (0x20_1008, "rw", 0x1000)
    assert [step.structure for step in found.steps] == ["vtd.first-stage-entry"] * 4
    assert all(POOL <= step.address < POOL + POOL_SIZE for step in found.steps), "their addresses are GPAs"


def test_its_entries_are_in_the_file_behind_the_memory(iommu: Iommu) -> None:
    iommu.pgtable_map("t", iova=ABOVE, size=0x1000, gpa=0x20_0000)
    step = iommu.translate(ONE, ABOVE, pasid=1).steps[-1]
    with open(content(iommu), "rb") as memory:
        assert os.pread(memory.fileno(), 8, step.address) == step.raw[0].to_bytes(8, "little")


def test_a_large_page(iommu: Iommu) -> None:
    iommu.pgtable_map("t", iova=ABOVE, size=2 << 20, gpa=4 << 20)
    found = iommu.translate(ONE, ABOVE + 0x12_3456, pasid=1)
    assert (place(iommu, found), found.page_size, len(found.steps)) == ((4 << 20) + 0x12_3456, 2 << 20, 3)


@pytest.mark.parametrize(
    ("iova", "access", "privileged", "fault", "steps"),
    [
        (ABOVE, "r", False, None, 4),
        (ABOVE, "w", False, NO_PERMISSION, 4),
        (ABOVE + 0x1000, "r", False, NO_PERMISSION, 4),
        (ABOVE + 0x1000, "r", True, None, 4),
        (ABOVE + 0x2000, "r", False, NO_ENTRY, 4),
        (ABOVE + (1 << 30), "r", False, NO_ENTRY, 2),
        (0, "r", False, NO_ENTRY, 1),
        (1 << 47, "r", False, NO_ENTRY, 0),
        (ABOVE + 0x4000, "r", False, NO_MAPPING, 4),
        (ABOVE + 0x5000, "r", False, None, 4),
        (ABOVE + 0x5000, "w", False, NO_PERMISSION, 4),
    ],
)
def test_holes_and_permissions(
    iommu: Iommu, *, iova: int, access: Access, privileged: bool, fault: int | None, steps: int
) -> None:
    """A page to read, one for privileged requests, a hole; one beyond the parent, and one that it allows to read."""
    iommu.pgtable_map("t", iova=ABOVE, size=0x1000, gpa=0x20_0000, prot="r")
    iommu.pgtable_map("t", iova=ABOVE + 0x1000, size=0x1000, gpa=0x20_0000, privileged=True)
    iommu.pgtable_map("t", iova=ABOVE + 0x4000, size=0x1000, gpa=HOLE)
    iommu.pgtable_map("t", iova=ABOVE + 0x5000, size=0x1000, gpa=HOLE - 0x1000)
    found = iommu.translate(ONE, iova, pasid=1, access=access, privileged=privileged)
    assert (code(found), len(found.steps)) == (fault, steps)


def test_many_pages_against_a_plain_dict(iommu: Iommu) -> None:
    chosen = random.Random(4)
    model: dict[int, int] = {}
    with iommu.transaction():
        for page in chosen.sample(range(1 << 20), 40):
            target = chosen.randrange(HOLE // 0x1000 - 1)
            iommu.pgtable_map("t", iova=page * 0x1000, size=0x1000, gpa=target * 0x1000)
            model[page] = target * 0x1000
    asked = {*model, *chosen.sample(range(1 << 20), 40)}
    for page in asked:
        assert place(iommu, iommu.translate(ONE, page * 0x1000 + 8, pasid=1)) == (
            model[page] + 8 if page in model else None
        )


# Page tables that a guest writes


@pytest.fixture
def guest(iommu: Iommu) -> Iommu:
    """With a guest's page table in PASID 2, whose root is GPA 4M: one page at 0, and a table that lies nowhere."""
    flags = PRESENT | WRITE | USER | ACCESSED
    tables = [(4 << 20) + number * 0x1000 for number in range(4)]
    put(iommu, {table: below | flags for table, below in zip(tables, [*tables[1:], 0x30_0000], strict=True)})
    put(iommu, {tables[0] + 8: HOLE | flags, tables[0] + 16: (1 << 40) | flags})
    iommu.bind_pgtable("vm", ONE, addr=tables[0], format=FIRST_STAGE, pasid=2)
    return iommu


def test_a_guests_table_is_walked(guest: Iommu) -> None:
    found = guest.translate(ONE, 0x123, pasid=2, access="w")
    assert (place(guest, found), found.prot, len(found.steps)) == (0x30_0123, "rw", 4)
    put(guest, {(4 << 20) + 0x3000: 0})
    assert code(guest.translate(ONE, 0x123, pasid=2)) == NO_ENTRY


@pytest.mark.parametrize("index", [1, 2])
def test_a_guests_table_that_leads_nowhere(guest: Iommu, index: int) -> None:
    found = guest.translate(ONE, index << 39, pasid=2)
    assert (code(found), len(found.steps)) == (NOT_READABLE, 1)
    assert found.fault
    assert "is not in the memory of vm" in found.fault.reason


def test_a_file_that_was_made_shorter_is_told_by_name_and_offset(guest: Iommu) -> None:
    os.truncate(content(guest), 4 << 20)
    found = guest.translate(ONE, 0, pasid=2)
    assert (code(found), found.steps) == (NOT_READABLE, ())
    assert found.fault
    assert found.fault.reason == "stage 1: memory ram cannot be read at 0x400000+0x8"


# Memory


def test_memory_has_addresses_that_no_machine_has(iommu: Iommu) -> None:
    made = [iommu.memory_create(f"m{number}", 0x5000) for number in range(3)]
    ranges = sorted((each.pa, each.pa + each.size) for each in iommu.memories())
    assert all(each in iommu.memories() for each in made)
    assert all(first >= NO_PHYSICAL and last <= 1 << 63 for first, last in ranges)
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))
    assert all(each.pa % 0x1000 == 0 for each in made)


def test_memory_keeps_its_source(iommu: Iommu, tmp_path: Path) -> None:
    sources = [
        MemorySource(),
        MemorySource(path=str(tmp_path / "file")),
        MemorySource(fd=(12, 3)),
        MemorySource(dma_buf=(TWO, 2)),
        MemorySource(hugepages=True),
    ]
    for number, source in enumerate(sources):
        iommu.memory_create(f"m{number}", 0x1000, source=source)
    assert [iommu.memory_source(f"m{number}") for number in range(len(sources))] == sources


def test_a_page_table_lies_in_a_file_of_ours(iommu: Iommu, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(1 << 20))
    iommu.memory_create("file", 1 << 20, source=MemorySource(path=str(file)))
    iommu.domain_create("other", nest_parent=True)
    iommu.map("other", iova=0, size=1 << 20, memory="file")
    iommu.pgtable_create("u", parent="other", pool=0x1_0000, pool_size=0x1_0000)
    iommu.pgtable_map("u", iova=0, size=0x1000, gpa=0)
    assert any(file.read_bytes()[0x1_0000:0x2_0000])
    assert not any(file.read_bytes()[:0x1_0000])


def test_no_page_table_can_be_built_in_a_device(iommu: Iommu) -> None:
    iommu.memory_create("bar", 1 << 20, source=MemorySource(dma_buf=(TWO, 2)))
    iommu.domain_create("other", nest_parent=True)
    iommu.map("other", iova=0, size=1 << 20, memory="bar")
    with pytest.raises(Unsupported, match="bar cannot be read"):
        iommu.pgtable_create("u", parent="other", pool=0, pool_size=0x1_0000)
    assert [table.name for table in iommu.pgtables()] == ["t"]


def test_a_dry_run_tells_where_in_named_memory_it_would_write(iommu: Iommu) -> None:
    iommu.pgtable_map("t", iova=ABOVE, size=0x2000, gpa=0)
    before = content(iommu).read_bytes()
    iommu.dry_run = True
    iommu.pgtable_unmap("t", iova=ABOVE, size=0x1000)
    (write,) = iommu.last.writes
    assert (write.memory, write.new) == ("ram", 0)
    assert write.old == int.from_bytes(before[write.offset : write.offset + 8], "little") != 0
    assert write.address == iommu.memory("ram").pa + write.offset
    assert content(iommu).read_bytes() == before


def test_a_transaction_that_fails_leaves_the_tables_alone(iommu: Iommu) -> None:
    iommu.pgtable_map("t", iova=ABOVE, size=0x1000, gpa=0)
    before = content(iommu).read_bytes()

    def both() -> None:
        with iommu.transaction():
            iommu.pgtable_map("t", iova=ABOVE + 0x1000, size=0x1000, gpa=0)
            iommu.attach("vm", NIC)

    with pytest.raises(DeviceNotBound):
        both()
    assert content(iommu).read_bytes() == before
    assert iommu.check() == []


# Devices, ranges, dirty tracking, descriptors


def test_devices(iommu: Iommu) -> None:
    shown = {device.rid: device for device in iommu.devices()}
    assert (shown[ONE].bound, shown[ONE].driver) == (True, "vfio-pci")
    nic = shown[NIC]
    assert (nic.bound, nic.driver, nic.owner, nic.siblings) == (False, "e1000e", "DMA-FQ", (SIBLING,))
    with pytest.raises(InUse):
        iommu.device_unbind(ONE)
    assert not iommu.device_unbind(ONE, force=True).bound
    assert iommu.slots() == []


def test_ranges(iommu: Iommu) -> None:
    aperture, reserved = iommu.ranges("vm")
    assert reserved == (INTERRUPTS,)
    assert aperture == ((0, INTERRUPTS[0] - 1), (INTERRUPTS[1] + 1, (1 << 48) - 1))
    with pytest.raises(ReservedRange):
        iommu.map("vm", iova=INTERRUPTS[1] - 0xFFF, size=0x2000, memory="ram")
    with pytest.raises(OutOfAperture):
        iommu.map("vm", iova=1 << 48, size=0x1000, memory="ram")
    with pytest.raises(OutsideMemory):
        iommu.map("vm", iova=HOLE, size=0x2000, memory="ram", offset=SIZE - 0x1000)


def test_dirty_tracking_hands_the_mappings_over(iommu: Iommu) -> None:
    iommu.domain_create("tracked", dirty=True)
    for iova in (0, 1 << 30):
        iommu.map("tracked", iova=iova, size=0x2000, memory="ram")
    iommu.dirty_tracking("tracked", on=True)
    assert iommu.read_dirty("tracked") == (((0, DIRTY_PAGE), (1 << 30, DIRTY_PAGE)), DIRTY_PAGE)
    assert iommu.read_dirty("tracked").ranges == ()
    with pytest.raises(Unsupported):
        iommu.read_dirty("vm")


def test_descriptors_are_open_until_the_folder_is_closed(iommu: Iommu) -> None:
    found = iommu.descriptors([ONE])
    assert list(found) == ["iommufd", f"vfio:{ONE}"]
    assert [os.pread(descriptor, 100, 0).decode() for descriptor in found.values()] == ["iommufd", f"vfio-{ONE}"]
    assert iommu.descriptors([ONE]) == found
    iommu.close()
    for descriptor in found.values():
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    with pytest.raises(DeviceNotBound):
        iommu.descriptors([ONE, NIC])


# What is lost


def test_what_is_lost_is_made_again(iommu: Iommu) -> None:
    assert iommu.lost() == ""
    assert not iommu.forget_lost()
    (iommu.state / "lost").write_text("gone")
    assert iommu.lost() == "gone"
    with pytest.raises(Lost):
        iommu.attach("vm", ONE, pasid=7)
    with pytest.raises(Lost):
        iommu.translate(ONE, 0, pasid=1)
    with pytest.raises(Lost):
        iommu.translate(ONE, 0)
    assert iommu.rebuild_lost() == ["memory ram is empty: no file was behind it"]
    assert iommu.lost() == ""
    iommu.attach("vm", ONE, pasid=7)


def test_a_page_table_whose_memory_came_back_empty_begins_anew(iommu: Iommu) -> None:
    """Or its pool would run out: what its rows hold stands for tables that are no more."""
    root = iommu.pgtable("t").root
    iommu.pgtable_map("t", iova=0, size=0x1000, gpa=0x1000)
    (iommu.state / "lost").write_text("gone")
    content(iommu).write_bytes(bytes(SIZE))
    assert iommu.rebuild_lost()[1:] == ["page table t maps nothing any more"]
    assert iommu.check() == []
    assert iommu.pgtable("t").root == root
    iommu.pgtable_map("t", iova=0, size=0x1000, gpa=0x1000)
    assert place(iommu, iommu.translate(ONE, 0x10, pasid=1)) == 0x1010


def test_a_page_table_whose_memory_is_there_stays(iommu: Iommu) -> None:
    iommu.pgtable_map("t", iova=0, size=0x1000, gpa=0x1000)
    (iommu.state / "lost").write_text("gone")
    assert len(iommu.rebuild_lost()) == 1
    assert place(iommu, iommu.translate(ONE, 0x10, pasid=1)) == 0x1010


def test_what_is_lost_is_forgotten(iommu: Iommu) -> None:
    (iommu.state / "lost").write_text("gone")
    iommu.dry_run = True
    assert iommu.forget_lost()
    iommu.dry_run = False
    assert iommu.slots()
    assert iommu.forget_lost()
    assert (iommu.backend_name, iommu.architecture, iommu.is_real) == (NAME, "vtd", True)
    assert [iommu.memories(), iommu.domains(), iommu.pgtables(), iommu.slots()] == [[], [], [], []]
    (iommu.state / "lost").unlink()
    iommu.memory_create("ram", SIZE)
    iommu.domain_create("vm")
    iommu.map("vm", iova=0, size=SIZE, memory="ram")


def test_a_simulator_has_nothing_of_it(tmp_path: Path) -> None:
    with Iommu(tmp_path / "state", backend="sim") as iommu:
        assert not iommu.is_real, "nor would it be"
        assert iommu.lost() == ""
        iommu.device_add(ONE)
        iommu.domain_create("d", width=39)
        assert iommu.ranges("d") == (((0, (1 << 39) - 1),), (INTERRUPTS,))
        assert not iommu.is_real
        assert iommu.lost() == ""
        for refused in (
            lambda: iommu.device_bind(ONE),
            lambda: iommu.device_unbind(ONE),
            lambda: iommu.dirty_tracking("d", on=True),
            lambda: iommu.read_dirty("d"),
            lambda: iommu.descriptors([ONE]),
            lambda: iommu.memory_create("m", 0x1000, source=MemorySource(hugepages=True)),
            iommu.rebuild_lost,
            iommu.forget_lost,
        ):
            with pytest.raises(Unsupported):
                refused()
