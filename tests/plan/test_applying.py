# SPDX-License-Identifier: Apache-2.0
"""From any state to any other, by a document."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tomli
import tomli_w
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from iommuctl import Iommu
from iommuctl.errors import IommuError, NoRoom, PlanOutdated
from iommuctl.model import Attachment, Binding, Occupant
from iommuctl.plan import applying, writing
from iommuctl.plan.applying import Plan, apply, apply_each, plan, rebuild
from iommuctl.plan.current import describe
from iommuctl.plan.document import Document, PageTableEntry
from iommuctl.plan.reading import read
from iommuctl.plan.source import Source
from iommuctl.plan.steps import Step, carry_out, steps
from iommuctl.testing.probes import snapshot
from tests.plan.random_states import PAIRS, RIDS, STATES, Call, build, lands, probes
from tests.plan.test_reading import EXAMPLE, changed, places

quick = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextmanager
def states(factory: pytest.TempPathFactory, *calls: list[Call]) -> Iterator[list[Iommu]]:
    """A folder for each list of calls."""
    folder = factory.mktemp("states")
    opened = [Iommu(folder / str(number), backend="sim") for number in range(len(calls))]
    for iommu, each in zip(opened, calls, strict=True):
        iommu.setup(ram=(0, 64 << 20), tables=(32 << 20, 8 << 20))
        build(iommu, each)
    try:
        yield opened
    finally:
        for iommu in opened:
            iommu.close()


def exported(iommu: Iommu) -> tuple[Source, Document]:
    """The state as a document that was written and read again."""
    source = Source("export", writing.text(describe(iommu)))
    wanted = read(source)
    assert wanted.objects == describe(iommu).objects
    return source, wanted


def warm(iommu: Iommu) -> None:
    """Have the caches hold what the tables say."""
    for rid, pasid, iova in probes(iommu):
        lands(iommu, rid, pasid, iova)


def check_plan(found: Plan, before: Document, after: Document) -> None:
    """The plan says what changed, and nothing else."""
    said = {change.key: change for change in found.changes}
    assert len(said) == len(found.changes)
    for key in {**before.objects, **after.objects}:
        old, new = before.objects.get(key), after.objects.get(key)
        if key in said:
            assert (said[key].old, said[key].new) == (old, new)
        else:
            assert old == new


@quick
@given(pair=PAIRS, at=st.integers(0, 100))
def test_with_prune_one_state_becomes_the_other(
    tmp_path_factory: pytest.TempPathFactory, pair: tuple[list[Call], list[Call]], at: int
) -> None:
    with states(tmp_path_factory, *pair) as (one, other):
        warm(one)
        old = probes(one)
        source, wanted = exported(other)
        before = describe(one)
        there = snapshot(one)
        fails_at(at, one, source, wanted)
        assert snapshot(one) == there
        found = plan(one, wanted, prune=True)
        assert snapshot(one) == there

        try:
            applied = apply(one, source, wanted, prune=True).plan
        except NoRoom as error:
            # A page table that changes in place gets back only later what its pool loses now.
            told = error.what
            assert snapshot(one) == there
            assume("page table's pool" not in told)
            raise
        assert applied == found
        assert describe(one).objects == wanted.objects
        assert one.check() == []
        check_plan(found, before, describe(one))
        assert [lands(one, *probe) for probe in probes(other)] == [lands(other, *probe) for probe in probes(other)]

        check_caches(one, old)
        there = snapshot(one)
        assert not apply(one, source, wanted, prune=True).plan
        assert not apply(one, source, wanted).plan
        assert snapshot(one).rows == there.rows
        assert snapshot(one).memory == there.memory


def check_caches(iommu: Iommu, old: list[tuple[str, int | None, int]]) -> None:
    """Where something was mapped before the caches have forgotten it, or hold what is there now."""
    slots = {(str(held.slot.rid), held.slot.pasid) for held in iommu.slots() if not _is_the_guests(held)}
    for rid, pasid, iova in old:
        if (rid, pasid) in slots:
            lands(iommu, rid, pasid, iova)


def _is_the_guests(held: Occupant) -> bool:
    return isinstance(held, Binding) and held.pgtable is None


def fails_at(at: int, iommu: Iommu, source: Source, wanted: Document) -> None:
    """Apply with a step that fails, if there is any."""
    left = at % max(1, len(steps(plan(iommu, wanted, prune=True).changes)))

    def failing(iommu: Iommu, step: Step) -> None:
        nonlocal left
        carry_out(iommu, step)
        if not left:
            raise NoRoom("the test says so")
        left -= 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(applying, "carry_out", failing)
        if plan(iommu, wanted, prune=True):
            with pytest.raises(NoRoom):
                apply(iommu, source, wanted, prune=True)


@quick
@given(pair=PAIRS)
def test_without_prune_nothing_goes_that_the_document_does_not_name(
    tmp_path_factory: pytest.TempPathFactory, pair: tuple[list[Call], list[Call]]
) -> None:
    with states(tmp_path_factory, *pair) as (one, other):
        warm(one)
        old = probes(one)
        source, wanted = exported(other)
        before, there = describe(one), snapshot(one)
        try:
            found = apply(one, source, wanted).plan
        except IommuError:
            # What the state has beside the document leaves no room for it.
            assert snapshot(one) == there
            return
        after = describe(one)
        check_plan(found, before, after)
        assert one.check() == []
        for key, entry in before.objects.items():
            now = after.objects[key]
            if key not in wanted.objects:
                assert now == entry
            elif isinstance(entry, PageTableEntry) and isinstance(now, PageTableEntry):
                named = wanted.objects[key]
                assert isinstance(named, PageTableEntry)
                assert pages(now) == pages(entry) | pages(named)
        assert not plan(one, wanted)
        check_caches(one, old)
        warm(one)


def pages(entry: PageTableEntry) -> dict[int, tuple[int, str]]:
    return {one.iova + at: (one.gpa + at, one.prot) for one in entry.mappings for at in range(0, one.size, 4096)}


@settings(parent=quick, max_examples=10)
@given(calls=STATES)
def test_what_was_lost_is_built_again(tmp_path_factory: pytest.TempPathFactory, calls: list[Call]) -> None:
    with states(tmp_path_factory, calls) as (iommu,):
        before = describe(iommu)
        there = [lands(iommu, *probe) for probe in probes(iommu)]
        rebuild(iommu)
        assert describe(iommu) == before
        assert writing.text(describe(iommu)) == writing.text(before)
        assert iommu.check() == []
        assert [lands(iommu, *probe) for probe in probes(iommu)] == there


MOVE = f"""
schema = 1
[domain.old]
mappings = [{{ iova = 0, size = "4K", pa = "1M" }}]
[device."{RIDS[0]}"]
pasid_bits = 4
attachments = [{{ domain = "old" }}, {{ pasid = 1, domain = "old" }}]
"""


@pytest.fixture
def iommu(tmp_path: Path) -> Iterator[Iommu]:
    with Iommu(tmp_path / "state", backend="sim") as opened:
        yield opened


def do(iommu: Iommu, text: str, **options: Any) -> Plan:
    source = Source("file", text)
    return apply(iommu, source, read(source), **options).plan


def test_attachments_leave_a_domain_that_is_removed_without_a_gap(iommu: Iommu) -> None:
    """Between any two steps the devices still get an answer."""
    do(iommu, MOVE)
    asked = 0

    def told(done: int, total: int) -> None:
        nonlocal asked
        for pasid in (None, 1):
            assert iommu.dma(RIDS[0], 0, size=8, pasid=pasid).fault is None
            asked += 1

    do(iommu, MOVE.replace("old", "new").replace("1M", "2M"), prune=True, progress=told)
    assert asked == 2 * (5 + 1)
    assert [domain.name for domain in iommu.domains()] == ["new"]
    assert all(isinstance(held, Attachment) for held in iommu.slots())


def test_progress_is_told_from_the_first_step_to_the_end(iommu: Iommu) -> None:
    told: list[tuple[int, int]] = []
    do(iommu, MOVE, progress=lambda done, total: told.append((done, total)))
    assert told == [(number, 5) for number in range(6)]


def test_a_plan_for_another_state_is_refused(iommu: Iommu) -> None:
    do(iommu, MOVE)
    source = Source("file", MOVE.replace("old", "new"))
    state = plan(iommu, read(source)).state
    iommu.relabel_domain("old", "changed")
    before = snapshot(iommu)
    with pytest.raises(PlanOutdated):
        apply(iommu, source, read(source), planned=state)
    assert snapshot(iommu) == before
    iommu.relabel_domain("old", None)
    assert apply(iommu, source, read(source), planned=state).plan


def test_each_step_by_itself(iommu: Iommu) -> None:
    source = Source("file", MOVE.replace("pasid = 1, ", "pasid = 16, "))
    done = apply_each(iommu, source, read(source))
    assert len(done.plan.changes) == 5
    (failure,) = done.failures
    assert str(failure.change.key) == f"attachment {RIDS[0]} PASID 16"
    assert failure.error.what.startswith('file:7: device."0000:00:01.0".attachments[1]: PASID 16 is too wide')
    assert len(iommu.slots()) == 1


def test_a_step_is_whole_or_not_at_all(iommu: Iommu) -> None:
    """A page table is made and filled in one step."""
    mappings = '{ iova = 0, size = "4K", gpa = 0 }, { iova = "0x8000000000000000", size = "4K", gpa = 0 }'
    text = f"""
schema = 1
[domain.vm]
nest_parent = true
mappings = [{{ iova = 0, size = "4M", pa = 0 }}]
[pgtable.t]
parent = "vm"
pool = "1M+1M"
mappings = [{mappings}]
"""
    source = Source("file", text)
    (failure,) = apply_each(iommu, source, read(source)).failures
    assert failure.error.id == "out-of-aperture"
    assert iommu.pgtables() == []
    assert iommu.check() == []


def test_what_was_taken_down_was_changed_though_nothing_came_after_it(iommu: Iommu) -> None:
    do(iommu, MOVE)
    iommu.map("old", iova=0x8000, size=4096, pa=0)
    source = Source("file", MOVE.replace("4K", "64K"))
    done = apply_each(iommu, source, read(source))
    assert [failure.error.id for failure in done.failures] == ["overlap"]
    assert done.changed
    assert [mapping.iova for mapping in iommu.mappings("old")] == [0x8000]
    assert not apply_each(iommu, source, read(source)).changed


def test_what_could_not_be_taken_down_is_not_made_either(iommu: Iommu, monkeypatch: pytest.MonkeyPatch) -> None:
    do(iommu, MOVE)

    def carried_out(iommu: Iommu, step: Step) -> None:
        if step.verb == "take down":
            raise NoRoom("the test says so")
        carry_out(iommu, step)

    monkeypatch.setattr(applying, "carry_out", carried_out)
    source = Source("file", MOVE.replace("1M", "2M"))
    done = apply_each(iommu, source, read(source))
    assert [failure.error.what[-16:] for failure in done.failures] == ["the test says so"]
    assert not done.changed


EXTREMES = (0, 1, 4095, 1 << 20, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1)
NUMBERS = [
    *EXTREMES,
    *map(hex, EXTREMES),
    "0+16777215T",
    "0xfffffffffffff000+4K",
    "vm1+0x7ffffffffffff000",
    "vm1",
    "d",
    "4K",
]


@settings(parent=quick, max_examples=60)
@given(data=st.data())
def test_whatever_is_read_is_applied_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Numbers at the ends of what can be written, in every place."""
    table = tomli.loads(EXAMPLE)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from([path for path in places(table) if len(path) > 2]))
        table = changed(table, at, "value", data.draw(st.sampled_from(NUMBERS)))
    source = Source("file", tomli_w.dumps(table))
    with Iommu(tmp_path_factory.mktemp("state"), backend="sim") as iommu:
        iommu.dry_run = True
        try:
            wanted = read(source)
            apply(iommu, source, wanted)
        except IommuError as error:
            told = error.what
        else:
            told = "file:"
        assert told.startswith("file:")
        assert iommu.backend_name is None


MACHINE = """
schema = 1
[machine]
ram = "0+64M"
tables = "32M+8M"
options = { haw = 46 }
[domain.d]
"""


def test_the_machine_is_made_with_what_is_in_it(iommu: Iommu) -> None:
    found = do(iommu, MACHINE)
    assert found.machine
    assert not do(iommu, MACHINE)
    machine = iommu.machine()
    assert machine
    assert (machine.ram, machine.tables, machine.options) == ((0, 64 << 20), (32 << 20, 8 << 20), {"haw": "46"})
    before = snapshot(iommu)
    with pytest.raises(IommuError, match=r"file:3: machine: the state folder .* has objects"):
        do(iommu, MACHINE.replace("64M", "65M"))
    assert snapshot(iommu) == before


def test_a_machine_that_cannot_be_leaves_no_folder_behind(iommu: Iommu) -> None:
    with pytest.raises(IommuError, match="file:3: machine: "):
        do(iommu, MACHINE.replace("haw", "nope"))
    assert iommu.backend_name is None
    assert not list(iommu.state.glob("memory-*"))
