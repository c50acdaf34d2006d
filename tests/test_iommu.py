# SPDX-License-Identifier: Apache-2.0
"""The library as a program uses it, on the simulator. The rules of the generic layer are in the conformance suite."""

import contextlib
import fcntl
import inspect
import sqlite3
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import iommuctl
from iommuctl import Iommu
from iommuctl.errors import (
    BackendUnavailable,
    BadRid,
    DamagedTable,
    InUse,
    NoRoom,
    OtherBackend,
    OutOfAperture,
    OutsideMemory,
    ReservedRange,
    SlotBound,
    SlotOccupied,
    Usage,
)
from iommuctl.model import Rid
from iommuctl.session import Outcome
from iommuctl.testing.probes import refused, snapshot
from iommuctl_vtd.capability import DEFAULT_CAP
from iommuctl_vtd.registers import CAP

RID1, RID2 = "0000:00:01.0", "0000:00:02.0"
GUEST = 0x4000_0000
IOVA = 0x7F00_0000_0000


@pytest.fixture
def iommu(tmp_path: Path) -> Iterator[Iommu]:
    with Iommu(tmp_path / "state", backend="sim") as opened:
        yield opened


@pytest.fixture
def vm(iommu: Iommu) -> Iommu:
    """Two devices on a nest parent, with page tables `t` and `u` of which the first is bound in PASID 5 of both."""
    iommu.device_add(RID1, pasid_bits=20, ats=True)
    iommu.device_add(RID2, pasid_bits=20)
    iommu.domain_create("vm", nest_parent=True)
    iommu.map("vm", iova=0, size=64 << 20, pa=GUEST)
    for index, name in enumerate(("t", "u")):
        iommu.pgtable_create(name, parent="vm", pool=(1 + index) << 20, pool_size=1 << 20)
        iommu.pgtable_map(name, iova=IOVA, size=0x4000, gpa=0x200_0000 + 0x4000 * index)
    for rid in (RID1, RID2):
        iommu.attach("vm", rid)
        iommu.bind_pgtable("vm", rid, pgtable="t", pasid=5)
    return iommu


# The package


def test_the_example_in_the_docstring_runs(tmp_path: Path) -> None:
    # Python 3.13 strips a docstring's indentation by itself.
    text = inspect.getdoc(Iommu) or ""
    example = textwrap.dedent(text[text.index("    with Iommu(") :])
    assert '"/tmp/state"' in example
    names: dict[str, object] = {"Iommu": Iommu}
    exec(example.replace('"/tmp/state"', repr(str(tmp_path / "state"))), names)
    with Iommu(tmp_path / "state") as again:
        assert again.read_memory(0x200000, 5) == b"hello"


def test_what_the_package_offers() -> None:
    assert set(iommuctl.__all__) == {"Iommu", "__version__"}
    assert all(hasattr(iommuctl, name) for name in iommuctl.__all__)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = iommuctl.nothing_of_the_kind


# Folders and backends


def test_a_folder_outlives_the_object(vm: Iommu) -> None:
    assert vm.dma(RID1, IOVA, data=b"kept", pasid=5).fault is None
    before, state = snapshot(vm), vm.state
    slots, described = vm.slots(), vm.describe()
    vm.close()
    with Iommu(state) as again:
        assert (again.backend_name, again.architecture) == ("sim", "vtd")
        assert (again.slots(), again.describe()) == (slots, described)
        assert again.dma(RID1, IOVA, size=4, pasid=5).data == b"kept"
        assert again.dma(RID1, IOVA, size=4, pasid=5).hits == 1
    assert vm.slots() == slots, "a closed object opens its files again"
    assert snapshot(vm).rows["slot"] == before.rows["slot"]


def test_two_objects_on_one_folder(vm: Iommu) -> None:
    with Iommu(vm.state) as other:
        other.detach("vm", RID1)
        assert len(vm.slots()) == 3
        vm.pgtable_unmap("u", iova=IOVA, size=0x1000)
        other.pgtable_map("u", iova=IOVA, size=0x1000, gpa=0)
        assert (vm.check(), other.check()) == ([], [])


def test_a_folder_is_prepared_by_its_first_change(tmp_path: Path) -> None:
    with Iommu(tmp_path / "state") as iommu:
        assert (iommu.backend_name, iommu.architecture) == (None, None)
        assert (iommu.domains(), iommu.devices(), iommu.slots(), iommu.check()) == ([], [], [], [])
        assert not (tmp_path / "state").exists()
        iommu.dry_run = True
        iommu.domain_create("d")
        assert (iommu.backend_name, iommu.domains()) == (None, [])
        iommu.dry_run = False
        iommu.domain_create("d")
        assert (iommu.backend_name, iommu.architecture) == ("sim", "vtd")
        assert iommu.last.commands == (), "what prepares the machine is not part of what was asked for"


def test_backends_that_do_not_work_here(tmp_path: Path) -> None:
    for name in ("vtd", "smmuv3", "of-nobody"):
        with Iommu(tmp_path / name, backend=name) as iommu:
            with pytest.raises(BackendUnavailable):
                iommu.domain_create("d")
            with pytest.raises(BackendUnavailable):
                iommu.capabilities()
        with Iommu(tmp_path / name) as iommu:
            assert iommu.backend_name is None
    with Iommu(tmp_path / "vtd", backend="sim") as iommu:
        iommu.domain_create("d")
    with (
        Iommu(tmp_path / "vtd", backend="vtd") as iommu,
        pytest.raises(OtherBackend, match="belongs to the backend sim"),
    ):
        iommu.domains()


def test_setup(iommu: Iommu) -> None:
    base, size = 0x1_0000, 64 << 20
    iommu.setup(ram=(base, size), tables=(base, 1 << 20), options={"haw": "46"})
    memory = iommu.describe()["memory"]
    assert (memory["base"], memory["size"], memory["tables"]) == (base, size, {"base": base, "size": 1 << 20})
    assert Path(memory["file"]).stat().st_size == size
    assert iommu.check() == []
    iommu.setup(ram=(0, size))
    assert iommu.describe()["memory"]["base"] == 0
    iommu.domain_create("d")
    with refused(iommu, "in-use"):
        iommu.setup()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"architecture": "of-nobody"}, BackendUnavailable),
        ({"options": {"colour": "red"}}, Usage),
        ({"options": {"haw": "wide"}}, Usage),
        ({"options": {"haw": "64"}}, Usage),
        ({"options": {"cap": "-1"}}, Usage),
        ({"ram": (0, 0)}, Usage),
        ({"ram": (0, 4097)}, Usage),
        ({"ram": (-4096, 1 << 20)}, Usage),
        ({"ram": (0, 1 << 60)}, Usage),
        ({"ram": (0, 1 << 45)}, Usage),
        ({"ram": (0, 1 << 20), "tables": (1 << 20, 1 << 20)}, Usage),
        ({"ram": (1 << 20, 1 << 20), "tables": (0, 1 << 20)}, Usage),
        ({"ram": (0, 1 << 20), "tables": (0, 4096)}, Usage),
        ({"ram": (0, 4096)}, Usage),
    ],
)
def test_setups_that_cannot_be(iommu: Iommu, arguments: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        iommu.setup(**arguments)  # type: ignore[arg-type]
    assert iommu.backend_name is None
    assert not list(iommu.state.glob("memory-*"))
    iommu.domain_create("d")


def test_reset(iommu: Iommu) -> None:
    iommu.setup(ram=(0, 16 << 20), options={"haw": "46"})
    fresh = iommu.describe()
    iommu.device_add(RID1)
    iommu.domain_create("d")
    iommu.write_memory(0x1000, b"traces")
    iommu.dry_run = True
    iommu.reset()
    iommu.dry_run = False
    assert len(iommu.domains()) == 1
    iommu.reset()
    assert (iommu.domains(), iommu.devices()) == ([], [])
    assert iommu.read_memory(0x1000, 6) == bytes(6)
    assert iommu.describe() | {"memory": 0} == fresh | {"memory": 0}
    assert iommu.check() == []


def test_reset_of_a_folder_that_was_never_used(iommu: Iommu) -> None:
    iommu.reset()
    assert iommu.backend_name == "sim"


# What an operation tells


def test_last_is_about_the_last_change(vm: Iommu) -> None:
    vm.unmap  # noqa: B018 - no call, no effect
    vm.bind_pgtable("vm", RID1, pgtable="u", pasid=6)
    assert vm.last == Outcome(), "an empty slot needs no invalidation on a unit that does not cache what is not present"
    vm.invalidate("vm")
    told = vm.last
    assert told.commands
    vm.slots()
    vm.translate(RID1, IOVA, pasid=5)
    assert vm.last == told
    with pytest.raises(SlotOccupied):
        vm.attach("vm", RID1)
    assert vm.last == Outcome()


def test_invalidation_in_commands(vm: Iommu) -> None:
    """One command for each tag and one for each device with ATS; the IOTLB before the device TLB."""
    vm.invalidate("vm", iova=IOVA, size=0x3000)
    names = [command.name for command in vm.last.commands]
    wait = "vtd.invalidation-wait"
    assert names == ["vtd.pasid-iotlb-invalidate", wait, "vtd.pasid-device-tlb-invalidate", wait]
    iotlb, _, device, _ = vm.last.commands
    assert (iotlb.fields["PASID"], iotlb.fields["ADDR"], 4096 << iotlb.fields["AM"]) == (5, IOVA, 0x4000)
    assert (device.fields["SID"], device.fields["PASID"]) == (1 << 3, 5)
    vm.bind_pgtable("vm", RID2, pgtable="u", pasid=6)
    vm.invalidate("vm")
    assert [command.name for command in vm.last.commands].count("vtd.pasid-iotlb-invalidate") == 2
    vm.invalidate("vm", device=RID2)
    assert not any("device-tlb" in command.name for command in vm.last.commands)


def test_an_invalidation_leaves_the_rest_in_the_caches(vm: Iommu) -> None:
    vm.bind_pgtable("vm", RID1, pgtable="u", pasid=6)
    for pasid in (5, 6):
        for offset in range(0, 0x4000, 0x1000):
            vm.dma(RID1, IOVA + offset, size=1, pasid=pasid)
    for name in ("t", "u"):
        vm.pgtable_unmap(name, iova=IOVA, size=0x4000)
    vm.invalidate("vm", pasid=5, iova=IOVA, size=0x1000)
    seen = [[vm.dma(RID1, IOVA + n * 0x1000, size=1, pasid=pasid).stale for n in range(4)] for pasid in (5, 6)]
    assert seen == [[False, True, True, True], [True] * 4]


def test_hints_are_commands_that_work(vm: Iommu) -> None:
    with pytest.raises(SlotBound) as caught:
        vm.detach("vm", RID1, pasid=5)
    assert f"`iommuctl unbind-pgtable vm {RID1} --pasid 5`" in caught.value.hint
    with pytest.raises(SlotOccupied) as occupied:
        vm.attach("vm", RID1)
    assert f"{RID1} is attached to vm" in occupied.value.what
    assert "--replace" in occupied.value.hint


def test_many_users_are_cut_short(iommu: Iommu) -> None:
    iommu.device_add(RID1, pasid_bits=8)
    iommu.domain_create("d")
    for _ in range(14):
        iommu.attach("d", RID1, pasid="auto")
    with pytest.raises(InUse) as caught:
        iommu.domain_destroy("d")
    assert caught.value.because.count("(attachment)") == 10
    assert caught.value.because.endswith("and 4 more")


# Limits of the machine


def test_free_pasids(iommu: Iommu) -> None:
    """`auto` goes on above the highest as long as it can, then fills the gaps."""
    iommu.device_add(RID1, pasid_bits=3)
    iommu.domain_create("d")
    iommu.attach("d", RID1, pasid=4)
    taken = [iommu.attach("d", RID1, pasid="auto").slot.pasid for _ in range(6)]
    assert taken == [5, 6, 7, 1, 2, 3]
    with refused(iommu, "no-room"):
        iommu.attach("d", RID1, pasid="auto")
    iommu.detach("d", RID1, pasid=6)
    assert iommu.attach("d", RID1, pasid="auto").slot.pasid == 6


def test_domain_ids_run_out(iommu: Iommu) -> None:
    """Each domain has one, and each pair of parent and page table: a bind that gets none undoes its attachment."""
    iommu.setup(options={"cap": hex(DEFAULT_CAP & ~CAP.ND.mask)})
    iommu.device_add(RID1, pasid_bits=20)
    iommu.domain_create("vm", nest_parent=True)
    iommu.map("vm", iova=0, size=16 << 20, pa=GUEST)
    for index in range(14):
        iommu.bind_pgtable("vm", RID1, addr=index << 12, pasid=1 + index)
    iommu.bind_pgtable("vm", RID1, addr=0, pasid=100)
    with refused(iommu, "no-room"):
        iommu.bind_pgtable("vm", RID1, addr=14 << 12, pasid=15)
    with refused(iommu, "no-room"):
        iommu.domain_create("d")
    assert iommu.translate(RID1, 0, pasid=15).fault
    iommu.unbind_pgtable("vm", RID1, pasid=1)
    with refused(iommu, "no-room"):
        iommu.domain_create("d")
    iommu.unbind_pgtable("vm", RID1, pasid=100)
    iommu.bind_pgtable("vm", RID1, addr=14 << 12, pasid=15)
    assert iommu.check() == []


def test_table_memory_runs_out(iommu: Iommu) -> None:
    iommu.setup(ram=(0, 16 << 20), tables=(0, 64 << 10))
    iommu.device_add(RID1, pasid_bits=6)
    iommu.domain_create("vm", nest_parent=True)
    iommu.map("vm", iova=0, size=4 << 20, pa=4 << 20)
    calls: dict[str, Callable[[], object]] = {
        "map": lambda: iommu.map("vm", iova=1 << 46, size=0x1000, pa=8 << 20),
        "create": lambda: iommu.domain_create("d"),
        "attach": lambda: iommu.attach("vm", RID1, pasid=1),
        "bind": lambda: iommu.bind_pgtable("vm", RID1, addr=0, pasid=2),
        "device": lambda: iommu.device_add("0000:40:00.0"),
    }
    fill = 0
    with contextlib.suppress(NoRoom):
        while True:
            iommu.domain_create(f"fill{fill}")
            fill += 1
    for name, call in calls.items():
        with refused(iommu, "no-room"):
            call()
        assert iommu.check() == [], name
    for index in range(fill):
        iommu.domain_destroy(f"fill{index}")
    for call in calls.values():
        call()
    assert iommu.check() == []


def test_ram_runs_out(iommu: Iommu) -> None:
    iommu.setup(ram=(0, 16 << 20), tables=(4 << 20, 1 << 20))
    high = iommu.memory_create("high", 11 << 20)
    low = iommu.memory_create("low", 4 << 20)
    assert (low.pa, high.pa) == (0, 5 << 20)
    with refused(iommu, "no-room"):
        iommu.memory_create("more", 0x1000)
    iommu.memory_destroy("low")
    iommu.memory_create("more", 0x1000)


def test_memory_is_aligned_for_large_pages(iommu: Iommu) -> None:
    iommu.memory_create("odd", 0x3000)
    assert iommu.memory_create("large", 2 << 20).pa % (2 << 20) == 0
    assert iommu.memory_create("huge", 1 << 30).pa % (1 << 30) == 0


def test_physical_addresses_that_no_entry_holds(iommu: Iommu) -> None:
    iommu.domain_create("d")
    for pa in (1 << 48, 1 << 52, 1 << 63, (1 << 64) - 0x1000):
        with pytest.raises(OutOfAperture):
            iommu.map("d", iova=0, size=0x1000, pa=pa)
    assert iommu.mappings("d") == []
    assert iommu.check() == []


def test_a_dma_beyond_ram(iommu: Iommu) -> None:
    """The tables allow it, so it is not a fault; and what it wrote before is undone like everything else."""
    iommu.setup(ram=(0, 16 << 20), tables=(0, 1 << 20))
    iommu.device_add(RID1)
    iommu.domain_create("d")
    iommu.map("d", iova=0, size=0x2000, pa=(16 << 20) - 0x1000)
    iommu.attach("d", RID1)
    before = snapshot(iommu)
    with pytest.raises(OutsideMemory, match="where there is no memory"):
        iommu.dma(RID1, 0, data=b"x" * 0x2000)
    assert snapshot(iommu) == before


# Looking after the tables


def test_check_finds_what_was_damaged(vm: Iommu) -> None:
    """Another program may write to RAM. Each damage is told, and mended memory is well again."""
    steps = {step.structure: step for step in reversed(vm.translate(RID1, IOVA, pasid=5).steps)}
    (leaf,) = vm.translate(RID1, 0x300_0000).steps[-1:]
    for step, bit, named in (
        (leaf, 21, "vm"),  # another page
        (leaf, 1, "vm"),  # not writable
        (steps["vtd.pasid-entry"], 12, f"{RID1} PASID 5"),  # another table
        (steps["vtd.pasid-entry"], 0, f"{RID1} PASID 5"),  # not present
        (steps["vtd.scalable-context-entry"], 2, RID1),  # no ATS
        (steps["vtd.first-stage-entry"], 7, "page table t"),  # reserved there
    ):
        old = vm.read_memory(step.address, 8)
        vm.write_memory(step.address, (int.from_bytes(old, "little") ^ 1 << bit).to_bytes(8, "little"))
        problems = vm.check()
        assert any(named in problem for problem in problems), (step, bit, problems)
        vm.write_memory(step.address, old)
        assert vm.check() == []


def test_check_finds_pages_that_are_lost(vm: Iommu) -> None:
    import sqlite3

    with sqlite3.connect(vm.state / "state.db") as connection:
        connection.execute("UPDATE extent SET address = address + 4096, pages = pages - 1 WHERE pool = 'tables'")
    connection.close()
    (problem,) = vm.check()
    assert "1 pages of table memory" in problem
    assert "lost" in problem


# What reviewers' changes to the code had left unnoticed


def test_reading_is_of_one_moment_and_changes_nothing(vm: Iommu) -> None:
    with vm.reading():
        before = vm.domains(), vm.devices(), vm.slots()
        with pytest.raises(Usage):
            vm.domain_create("late")
        with vm.reading():
            assert (vm.domains(), vm.devices(), vm.slots()) == before
        # The block holds the lock, so that whoever wants to change something waits for its end.
        with (vm.state / "lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(Usage):
            vm.domain_create("late")
    vm.domain_create("late")


def test_a_rid_that_cannot_be(iommu: Iommu) -> None:
    for rid in (Rid(0, -1, 0, 0), Rid(0, 300, 0, 0), Rid(0, 0, 32, 0), Rid(0, 0, 0, 8)):
        with pytest.raises(BadRid):
            iommu.device_add(rid)
    assert iommu.devices() == []


def test_an_offset_belongs_to_named_memory(iommu: Iommu) -> None:
    iommu.domain_create("d")
    with pytest.raises(Usage):
        iommu.map("d", iova=0, size=0x1000, pa=0x1000, offset=0x1000)


def test_an_access_that_is_none(vm: Iommu) -> None:
    with pytest.raises(Usage):
        vm.translate(RID1, 0, access="z")  # type: ignore[arg-type]


def test_the_edges_of_the_reserved_range(iommu: Iommu) -> None:
    iommu.domain_create("d")
    for iova in (0xFEDFF000, 0xFEF00000):
        iommu.map("d", iova=iova, size=0x1000, pa=0x1000)
    for iova in (0xFEE00000, 0xFEEFF000):
        with pytest.raises(ReservedRange):
            iommu.map("d", iova=iova, size=0x1000, pa=0x1000)


def test_page_tables_translate_the_lower_half(iommu: Iommu) -> None:
    guest(iommu)
    iommu.pgtable_map("t", iova=(1 << 47) - 0x1000, size=0x1000, gpa=0x200000)
    for iova in (1 << 47, (1 << 48) - 0x1000):
        with pytest.raises(OutOfAperture) as caught:
            iommu.pgtable_map("t", iova=iova, size=0x1000, gpa=0x200000)
        assert "page table t" in caught.value.what
        assert caught.value.because.endswith(" translate 0x0..0x7fffffffffff")


def test_page_tables_whose_addresses_are_not_canonical_translate_all_their_bits(tmp_path: Path) -> None:
    """TTB1 has the upper addresses of SMMUv3, so that the table of TTB0 is all for the lower ones."""
    with Iommu(tmp_path / "smmuv3", backend="sim") as iommu:
        iommu.setup(architecture="smmuv3")
        guest(iommu)
        iommu.device_add(RID1)
        iommu.attach("p", RID1)
        iommu.bind_pgtable("p", RID1, pgtable="t")
        last = (1 << 48) - 0x1000
        iommu.pgtable_map("t", iova=last, size=0x1000, gpa=0x200000)
        assert iommu.translate(RID1, last).pa == 0x10200000
        with pytest.raises(OutOfAperture) as caught:
            iommu.pgtable_map("t", iova=last + 0x1000, size=0x1000, gpa=0x200000)
        assert caught.value.because.endswith(" translate 0x0..0xffffffffffff")
        iommu.pgtable_unmap("t", iova=last, size=0x1000)


def guest(iommu: Iommu) -> None:
    """Parent p with 16 MiB, and page table t in a pool of 16 pages."""
    iommu.domain_create("p", nest_parent=True)
    iommu.map("p", iova=0, size=16 << 20, pa=0x10000000)
    iommu.pgtable_create("t", parent="p", pool=0x100000, pool_size=0x10000)


def test_a_pool_gets_its_pages_back(iommu: Iommu) -> None:
    guest(iommu)
    for number in range(40):
        iova = number << 30
        iommu.pgtable_map("t", iova=iova, size=0x1000, gpa=0x200000)
        iommu.pgtable_unmap("t", iova=iova, size=0x1000)
    assert iommu.pgtable_mappings("t") == []
    assert iommu.check() == []


def test_a_pool_goes_with_its_table(iommu: Iommu) -> None:
    guest(iommu)
    iommu.pgtable_destroy("t")
    with contextlib.closing(sqlite3.connect(iommu.state / "state.db")) as rows:
        assert rows.execute("SELECT count(*) FROM extent WHERE pool LIKE 'pgtable-%'").fetchone() == (0,)


def test_a_guest_that_bends_its_table_reaches_no_other(iommu: Iommu) -> None:
    """An entry of t's root is made to point to the tables of u: they are not taken for pages of t's pool."""
    guest(iommu)
    iommu.pgtable_create("u", parent="p", pool=0x200000, pool_size=0x10000)
    for name in "tu":
        iommu.pgtable_map(name, iova=0x40000000, size=0x1000, gpa=0x300000)
    theirs = iommu.read_memory(0x10200000, 8)
    iommu.write_memory(0x10100000, theirs)
    assert any("not in the pool" in problem for problem in iommu.check())
    with pytest.raises(DamagedTable, match="has a table at GPA 0x20"):
        iommu.pgtable_unmap("t", iova=0x40000000, size=0x1000)
    iommu.write_memory(0x10100000, bytes(8))
    iommu.pgtable_map("t", iova=0x40000000, size=0x1000, gpa=0x400000)
    assert [leaf.pa for leaf in iommu.pgtable_mappings("u")] == [0x300000]


def test_the_first_change_of_a_folder_tells_its_own_commands(iommu: Iommu) -> None:
    iommu.domain_create("d")
    assert iommu.last.commands == ()


def test_check_finds_pages_held_twice_and_pages_lost(iommu: Iommu) -> None:
    for name in "de":
        iommu.domain_create(name)
        iommu.map(name, iova=0, size=0x1000, pa=0x1000)
    tables = iommu.describe()["memory"]["tables"]
    iommu.close()
    with contextlib.closing(sqlite3.connect(iommu.state / "state.db")) as rows, rows:
        rows.execute("UPDATE extent SET pages = pages - 3 WHERE pool = 'tables'")
    assert any("3 pages" in problem and "lost" in problem for problem in iommu.check())
    with contextlib.closing(sqlite3.connect(iommu.state / "state.db")) as rows, rows:
        rows.execute("UPDATE extent SET pages = pages + 3 WHERE pool = 'tables'")
        rows.execute("INSERT INTO extent VALUES ('tables', ?, 1)", (tables["base"],))
    assert any("is held by" in problem for problem in iommu.check())


def test_stale_is_said_of_a_dma_that_goes_on_well(iommu: Iommu) -> None:
    guest(iommu)
    iommu.device_add(RID1, pasid_bits=8)
    iommu.pgtable_map("t", iova=0x40000000, size=0x2000, gpa=0x200000)
    iommu.bind_pgtable("p", RID1, pgtable="t", pasid=1)
    iommu.dma(RID1, 0x40000000, size=0x1000, pasid=1)
    iommu.pgtable_unmap("t", iova=0x40000000, size=0x1000)
    both = iommu.dma(RID1, 0x40000000, size=0x2000, pasid=1)
    assert (both.stale, both.hits, both.misses) == (True, 1, 1)
    # The pages continue each other in memory, too, so the DMA went to one place.
    assert [(piece.pa, piece.size) for piece in both.pieces] == [(0x10200000, 0x2000)]


def test_a_signal_during_the_commit_loses_no_machine(iommu: Iommu, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit is done when the signal's exception is raised: the new memory file is the one that rows name."""
    iommu.domain_create("d")

    class Interrupted:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> object:
            return getattr(self._connection, name)

        def execute(self, statement: str, *values: object) -> object:
            done = self._connection.execute(statement, *values)  # type: ignore[arg-type]
            if statement == "COMMIT":
                raise KeyboardInterrupt
            return done

    store = iommu._store
    real = store._connect
    with monkeypatch.context() as patch:
        patch.setattr(store, "_connect", lambda: Interrupted(real()))
        with pytest.raises(KeyboardInterrupt):
            iommu.reset()
    assert iommu.domains() == []
    iommu.domain_create("e")
    assert iommu.check() == []
