# SPDX-License-Identifier: Apache-2.0
"""A command that dies, or whose disk fails, at any point leaves the old state or the new one.

Each test takes one change through one kind of trouble, at every point there is with IOMMUCTL_THOROUGH=1, else at every
ninth. What is then in the folder is seen through the same calls that a user has; it must be equal to what was there
before, or to what an undisturbed run makes.
"""

import errno
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from iommuctl import Iommu
from iommuctl.errors import IommuError
from iommuctl.plan.applying import apply
from iommuctl.plan.reading import read
from iommuctl.plan.source import Source
from tests.crash.ptrace import Fail, Kill, Outcome, Plan, Tear, Tracer, why_not
from tests.thorough import moments

KIB, MIB = 1 << 10, 1 << 20
RID = "0000:00:01.0"
PASID = 7
HOST = 0x1000_0000  # IOVA of what is mapped from the start, in both domains of the host
ADDED = 0x7_4020_0000  # IOVA that the test of map adds: it needs table pages of its own
PROCESS = 0x40_0000  # IOVA of the page table that is bound
PROBES = ((HOST, None), (ADDED, None), (ADDED + 0x2000, None), (PROCESS, PASID), (PROCESS + 0x1000, PASID))

Snapshot = dict[str, object]


# ---- What is run in the driver: the changes, each in a process of its own ----


def map_more(iommu: Iommu) -> None:
    iommu.map("host", iova=ADDED, size=0x3000, memory="buffer", offset=0x4000)


def bind(iommu: Iommu) -> None:
    iommu.bind_pgtable("guest", RID, pgtable="process", pasid=PASID)


def replace(iommu: Iommu) -> None:
    iommu.attach("spare", RID, replace=True)


def reset(iommu: Iommu) -> None:
    """Not a change of rows and tables alone: it makes a file, and removes one."""
    iommu.reset()


DOCUMENT = f"""
schema = 1
memory.more.size = "64K"

[domain.new]
mappings = [
    {{ iova = "{ADDED:#x}", size = "8K", memory = "more" }},
    {{ iova = "{HOST:#x}", size = "4K", memory = "buffer" }},
]

[domain.host]
label = "the host's own DMA"
mappings = [{{ iova = "{ADDED:#x}", size = "12K", memory = "buffer+0x4000" }}]

[pgtable.process]
parent = "guest"
pool = "256K+64K"
mappings = [{{ iova = "{PROCESS:#x}", size = "4K", gpa = "516K" }}]

[device."{RID}"]
attachments = [{{ domain = "new", label = "moved" }}, {{ pasid = {PASID}, domain = "guest" }}]
bindings = [{{ pasid = {PASID}, domain = "guest", pgtable = "process" }}]
"""
IMPOSSIBLE = DOCUMENT.replace("bindings = [", f'bindings = [{{ pasid = {PASID + 1}, domain = "guest", addr = "1T" }}, ')
IMPOSSIBLE += f"""
[device."0000:00:02.0"]
bindings = [{{ pasid = {PASID}, domain = "guest", pgtable = "process" }}]
"""


def apply_document(iommu: Iommu) -> None:
    """Adds, moves and changes several objects in one transaction."""
    source = Source("document", DOCUMENT)
    apply(iommu, source, read(source))


def apply_impossible(folder: str, change: str) -> None:
    """As far as the last step, which cannot be: the device has no PASIDs."""
    source = Source("document", IMPOSSIBLE)
    with Iommu(folder) as iommu:
        apply(iommu, source, read(source))


CHANGES = {change.__name__: change for change in (map_more, bind, replace, reset, apply_document)}


def make(folder: str, change: str) -> None:
    with Iommu(folder) as iommu:
        CHANGES[change](iommu)


def make_stubbornly(folder: str, change: str) -> None:
    """Try again at once, with the same object, when it was refused."""
    with Iommu(folder) as iommu:
        try:
            CHANGES[change](iommu)
        except IommuError:
            CHANGES[change](iommu)


# ---- The machine ----


def prepare(folder: Path) -> None:
    """A device on the host's domain with a warm IOTLB, a guest with a page table, a second domain to replace by."""
    with Iommu(folder, backend="sim") as iommu:
        iommu.setup(ram=(0, 4 * MIB), tables=(MIB, MIB))
        iommu.device_add(RID, ats=True, pasid_bits=8)
        iommu.memory_create("buffer", 64 * KIB)
        iommu.memory_create("ram", MIB)
        for name, offset in (("host", 0), ("spare", 0x8000)):
            iommu.domain_create(name)
            iommu.map(name, iova=HOST, size=0x4000, memory="buffer", offset=offset)
        iommu.domain_create("guest", nest_parent=True)
        iommu.map("guest", iova=0, size=MIB, memory="ram")
        iommu.pgtable_create("process", parent="guest", pool=256 * KIB, pool_size=64 * KIB)
        iommu.pgtable_map("process", iova=PROCESS, size=0x2000, gpa=512 * KIB)
        iommu.attach("host", RID)
        iommu.dma(RID, HOST, data=b"written before")
        # The next change drops the redo rows of the last one, and looking at the machine is a change.
        iommu.describe()


def snapshot(folder: Path) -> Snapshot:
    """All that can be seen in a folder: rows, every entry of every table, walks, registers, caches, contents."""
    with Iommu(folder) as iommu:
        machine = iommu.describe()
        machine["memory"] = {key: value for key, value in machine["memory"].items() if key != "file"}
        domains, pgtables, devices = iommu.domains(), iommu.pgtables(), iommu.devices()
        return {
            "machine": machine,
            "devices": devices,
            "domains": domains,
            "mappings": {domain.name: iommu.mappings(domain.name) for domain in domains},
            "page tables": pgtables,
            "slots": iommu.slots(),
            "memories": iommu.memories(),
            "entries": {domain.name: list(iommu.table_entries(domain.name)) for domain in domains},
            "leaves": {table.name: list(iommu.pgtable_mappings(table.name)) for table in pgtables},
            "walks": [
                iommu.translate(device.rid, iova, pasid=pasid, access="w")
                for device in devices
                for iova, pasid in PROBES
            ],
            "contents": {memory.name: iommu.read_memory(memory.pa, memory.size) for memory in iommu.memories()},
            "problems": iommu.check(),
        }


def memory_image(folder: Path) -> bytes:
    """The whole of RAM: table pages, queues and all."""
    with Iommu(folder) as iommu:
        return Path(iommu.describe()["memory"]["file"]).read_bytes()


def copy_folder(source: Path, target: Path) -> Path:
    """A copy whose files have holes where the originals have: the memory file is mostly hole."""
    target.mkdir(mode=0o700)
    for path in source.iterdir():
        with path.open("rb") as file, (target / path.name).open("wb") as copy:
            for start, end in data_extents(file.fileno()):
                os.copy_file_range(file.fileno(), copy.fileno(), end - start, start, start)
            copy.truncate(path.stat().st_size)
    return target


def data_extents(descriptor: int) -> Iterator[tuple[int, int]]:
    end = 0
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data after this
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def fingerprint(folder: Path) -> bytes:
    """Equal for two folders only if all their files are."""
    digest = hashlib.blake2b()
    for path in sorted(folder.iterdir()):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            for start, end in data_extents(file.fileno()):
                digest.update(f"{start}..{end}\n".encode())
                digest.update(os.pread(file.fileno(), end - start, start))
    return digest.digest()


State = Literal["old", "new"]


class Scene:
    """One change, the folder that it starts from, and what there is before and after it when nothing goes wrong."""

    def __init__(self, change: str, start: Path, whole: Path, outcome: Outcome) -> None:
        self.change = change
        self.start = start
        self.old, self.new = snapshot(start), snapshot(whole)
        self.image = memory_image(whole)
        self.calls, self.writes = outcome.calls, outcome.writes
        self._verdicts: dict[bytes, State] = {}

    def judge(self, folder: Path) -> State:
        """Which state the folder is in, and whether it is fit for work. The folder is gone afterwards.

        The next command finishes or undoes what was left behind. After it most folders are, byte for byte, like one
        that has been judged already.
        """
        with Iommu(folder) as iommu:
            iommu.domains()
        key = fingerprint(folder)
        if key not in self._verdicts:
            state = self._which(folder)
            self._go_on(folder, state)
            self._verdicts[key] = state
        # Hundreds of memory files would be too much for the disk of a small machine.
        shutil.rmtree(folder)
        return self._verdicts[key]

    def _which(self, folder: Path) -> State:
        found = snapshot(folder)
        if found == self.old:
            return "old"
        if found == self.new:
            return "new"
        from_old = [key for key, value in found.items() if value != self.old[key]]
        from_new = [key for key, value in found.items() if value != self.new[key]]
        raise AssertionError(f"neither old ({', '.join(from_old)} differ) nor new ({', '.join(from_new)} differ)")

    def _go_on(self, folder: Path, state: State) -> None:
        """It works as if nothing had happened: the change can be made, and caches agree with tables."""
        if state == "old":
            make(str(folder), self.change)
            assert self._which(folder) == "new"
        assert memory_image(folder) == self.image
        with Iommu(folder) as iommu:
            for device in iommu.devices():
                for iova, pasid in PROBES:
                    walk = iommu.translate(device.rid, iova, pasid=pasid)
                    result = iommu.dma(device.rid, iova, size=8, pasid=pasid)
                    assert not result.stale
                    assert (result.fault is None) == (walk.fault is None)


@pytest.fixture(scope="module")
def tracer() -> Iterator[Tracer]:
    if reason := why_not():
        pytest.skip(reason)
    with Tracer() as tracer:
        yield tracer


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "state"
    prepare(folder)
    return folder


@pytest.fixture(scope="module", params=CHANGES)
def scene(
    request: pytest.FixtureRequest, tracer: Tracer, start: Path, tmp_path_factory: pytest.TempPathFactory
) -> Scene:
    change: str = request.param
    folder = tmp_path_factory.mktemp(change)
    warm, whole = copy_folder(start, folder / "warm"), copy_folder(start, folder / "whole")
    tracer.call(make, str(warm), change)
    outcome = tracer.run(make, str(whole), change)
    assert outcome.ended == "returned", outcome.raised
    scene = Scene(change, start, whole, outcome)
    assert scene.old != scene.new
    assert scene.old["problems"] == scene.new["problems"] == []
    return scene


Record = Callable[[str, object], None]


def sweep(
    scene: Scene, tracer: Tracer, folder: Path, plans: list[Plan], how: Callable[[str, str], None] = make
) -> Iterator[tuple[Outcome, State]]:
    """Carry each plan out in a folder of its own."""
    for plan in plans:
        copy = copy_folder(scene.start, folder / str(plan.at))
        outcome = tracer.run(how, str(copy), scene.change, plan=plan)
        try:
            state = scene.judge(copy)
            yield outcome, state
        except Exception as error:
            error.add_note(f"{scene.change} with {plan}; its last calls: {', '.join(outcome.calls[-3:])}")
            raise


def test_killed_at_every_call(scene: Scene, tracer: Tracer, tmp_path: Path, record_property: Record) -> None:
    found: Counter[State] = Counter()
    for outcome, state in sweep(scene, tracer, tmp_path, [Kill(at) for at in moments(len(scene.calls))]):
        assert outcome.ended == "killed"
        assert outcome.calls == scene.calls[: len(outcome.calls)]
        found[state] += 1
    report(scene, f"killed at {found.total()} of {len(scene.calls)} calls", found, record_property)
    assert found.total() == len(moments(len(scene.calls)))
    assert set(found) == {"old", "new"}


# A reset writes no memory, and SQLite's writes are torn in the other changes already.
@pytest.mark.parametrize("scene", ["map_more", "bind", "replace", "apply_document"], indirect=True)
def test_killed_in_the_middle_of_every_write(
    scene: Scene, tracer: Tracer, tmp_path: Path, record_property: Record
) -> None:
    found: Counter[State] = Counter()
    for outcome, state in sweep(scene, tracer, tmp_path, [Tear(at) for at in moments(len(scene.writes))]):
        assert outcome.ended == "killed"
        found[state] += 1
    report(scene, f"killed in {found.total()} of {len(scene.writes)} writes", found, record_property)
    assert found.total() == len(moments(len(scene.writes)))
    assert set(found) == {"old", "new"}


@pytest.mark.parametrize("scene", ["apply_document"], indirect=True)
def test_a_document_that_cannot_be_applied_killed_at_every_call(
    scene: Scene, tracer: Tracer, tmp_path: Path, record_property: Record
) -> None:
    """Whether it comes to the last step, which fails, or not: nothing of it takes effect."""
    refused = tracer.run(apply_impossible, str(copy_folder(scene.start, tmp_path / "refused")), scene.change)
    assert refused.raised
    assert refused.raised.kinds[0] == "NoPasidSupport"
    assert scene.judge(tmp_path / "refused") == "old"
    plans: list[Plan] = [Kill(at) for at in moments(len(refused.calls))]
    found = Counter(state for _, state in sweep(scene, tracer, tmp_path, plans, apply_impossible))
    report(scene, f"impossible, killed at {len(plans)} of {len(refused.calls)} calls", found, record_property)
    assert found == {"old": len(plans)}


FAILURES = {
    "ENOSPC": Fail(1, errno.ENOSPC),
    "EIO": Fail(1, errno.EIO),
    "EIO from then on": Fail(1, errno.EIO, lasting=True),
}


@pytest.mark.parametrize(
    ("scene", "failure"),
    # A reset and a document have the most writes, most of them SQLite's: a disk that fails in other ways, or does not
    # recover, shows nothing new in them.
    [
        (change, failure)
        for change in CHANGES
        for failure in FAILURES
        if failure == "ENOSPC" or (change != "apply_document" and (change != "reset" or "then on" not in failure))
    ],
    indirect=["scene"],
)
def test_every_write_fails(scene: Scene, tracer: Tracer, tmp_path: Path, failure: str, record_property: Record) -> None:
    """An error leaves the old state, success the new one. The disk is well again when the next command comes."""
    found: Counter[State] = Counter()
    plans: list[Plan] = [FAILURES[failure]._replace(at=at) for at in moments(len(scene.writes))]
    for outcome, state in sweep(scene, tracer, tmp_path, plans):
        if outcome.raised:
            assert "IommuError" in outcome.raised.kinds, outcome.raised.traceback
        assert state == ("old" if outcome.raised else "new"), outcome.raised
        found[state] += 1
    report(scene, f"{failure} at {found.total()} of {len(scene.writes)} writes", found, record_property)
    assert found.total() == len(moments(len(scene.writes)))
    assert found["old"] > 0


@pytest.mark.parametrize("scene", ["map_more", "reset"], indirect=True)
def test_the_same_process_can_go_on_after_a_failure(
    scene: Scene, tracer: Tracer, tmp_path: Path, record_property: Record
) -> None:
    """A library's user has the open object still. What it holds of the failed attempt must not harm the next one."""
    found: Counter[State] = Counter()
    plans: list[Plan] = [Fail(at, errno.ENOSPC) for at in moments(len(scene.writes))]
    for outcome, state in sweep(scene, tracer, tmp_path, plans, make_stubbornly):
        assert outcome.ended == "returned", outcome.raised
        found[state] += 1
    report(scene, f"ENOSPC at {found.total()} of {len(scene.writes)} writes, and tried again", found, record_property)
    assert found == {"new": len(plans)}


def report(scene: Scene, what: str, found: Counter[State], record_property: Record) -> None:
    record_property(f"{scene.change}, {what}", f"{found['old']} old, {found['new']} new")


def test_a_reset_that_was_only_tried_does_not_outlive_it(tmp_path: Path) -> None:
    """The memory file that a dry run makes and removes has the name that the next reset gives to its own."""
    with Iommu(tmp_path / "state", backend="sim") as iommu:
        iommu.setup(ram=(0, 4 * MIB), tables=(MIB, MIB))
        iommu.dry_run = True
        iommu.reset()
        iommu.dry_run = False
        iommu.reset()
        iommu.device_add(RID)
        iommu.domain_create("host")
        iommu.map("host", iova=HOST, size=0x1000, pa=3 * MIB)
        iommu.attach("host", RID)
    with Iommu(tmp_path / "state") as iommu:
        assert iommu.translate(RID, HOST).pa == 3 * MIB
        assert iommu.check() == []
