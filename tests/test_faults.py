# SPDX-License-Identifier: Apache-2.0
"""The core and recorded faults: when queues are read, and that what was read is stored whatever becomes of it."""

from pathlib import Path

import pytest

from iommuctl import Iommu, plugins
from iommuctl.errors import NoSuchDomain, Unsupported
from iommuctl.hookspecs import hookimpl
from iommuctl.recorded import FaultList
from tests.cli import real
from tests.cli.real import NAME, QUEUE, refused_read


class Machine:
    """A real machine, whose queue is a file."""

    def __init__(self, iommu: Iommu) -> None:
        self.iommu = iommu
        self.queue = iommu.state / "events"
        iommu.domain_create("d")
        self.queue.touch()

    def refuse(self, *pages: int) -> None:
        """Devices read there, and are refused."""
        with self.queue.open("a") as queue:
            queue.writelines(f"{page << 12:#x}\n" for page in pages)

    def listed(self) -> list[tuple[int, int]]:
        """The page and the count of each fault."""
        return [((known.fault.iova or 0) >> 12, known.times) for known in self.iommu.faults().faults]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setitem(plugins.BACKENDS, NAME, "tests.cli.real")
    return Machine(Iommu(tmp_path / "state", backend=NAME))


def test_what_a_queue_holds_is_taken_and_kept(machine: Machine) -> None:
    machine.refuse(5, 6, 5)
    found = machine.iommu.faults()
    assert [(known.id, known.source, known.fault, known.times) for known in found.faults] == [
        (2, QUEUE, refused_read(0x6000), 1),
        (1, QUEUE, refused_read(0x5000), 2),
    ]
    assert machine.queue.read_text() == ""
    assert machine.iommu.faults() == found


def test_the_backend_gets_its_positions_back(machine: Machine) -> None:
    """The backend of this machine counts what it was ever asked for."""
    machine.refuse(1, 2)
    machine.iommu.faults()
    machine.refuse(3)
    machine.iommu.faults()
    with machine.iommu._read() as operation:
        assert operation.transaction.connection.execute("SELECT position FROM fault_source").fetchall() == [("3",)]


def test_a_dry_run_leaves_the_queue_alone(machine: Machine) -> None:
    machine.refuse(1)
    machine.iommu.faults()
    machine.refuse(2)
    machine.iommu.dry_run = True
    assert machine.listed() == [(1, 1)]
    machine.iommu.dry_run = False
    with machine.iommu.transaction(dry_run=True):
        assert machine.listed() == [(1, 1)]
    with machine.iommu.reading():
        assert machine.listed() == [(1, 1)]
    assert machine.listed() == [(1, 1), (2, 1)]


def test_what_was_read_outlives_a_transaction_that_is_undone(machine: Machine) -> None:
    def operations() -> None:
        machine.iommu.domain_create("e")
        assert machine.listed() == [(1, 1), (2, 1)]
        machine.iommu.domain_destroy("nobody")

    machine.refuse(1, 2)
    with pytest.raises(NoSuchDomain), machine.iommu.transaction():
        operations()
    assert [domain.name for domain in machine.iommu.domains()] == ["d"]
    assert machine.listed() == [(1, 1), (2, 1)]
    machine.refuse(2)
    assert machine.listed() == [(1, 1), (2, 2)]


def test_the_backend_has_nothing_to_repair_where_it_called_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def operations(iommu: Iommu, domain: str) -> None:
        iommu.faults()
        iommu.domain_destroy(domain)

    asked: list[object] = []
    monkeypatch.setattr(real, "iommuctl_repair", hookimpl(lambda request: asked.append(request.intents)))
    machine.refuse(1)
    with Iommu(machine.iommu.state) as iommu, pytest.raises(NoSuchDomain), iommu.transaction():
        operations(iommu, "nobody")
    assert machine.listed() == [(1, 1)]
    assert asked == []


def test_a_folder_that_was_never_used_has_none_and_is_not_made(tmp_path: Path) -> None:
    with Iommu(tmp_path / "state") as iommu:
        assert iommu.faults() == FaultList([], [])
    assert not (tmp_path / "state").exists()


def test_a_machine_without_a_queue_says_where_to_look(machine: Machine) -> None:
    machine.queue.unlink()
    with pytest.raises(Unsupported) as refusal:
        machine.iommu.faults()
    assert "journalctl" in refusal.value.hint


def list_and_fail(iommu: Iommu) -> None:
    assert len(iommu.faults().faults) == 1
    iommu.domain_destroy("nobody")


@pytest.mark.parametrize("architecture", ["vtd", "smmuv3"])
def test_a_simulated_machine_that_is_undone_has_its_records_still(tmp_path: Path, architecture: str) -> None:
    with Iommu(tmp_path / "state", backend="sim") as iommu:
        iommu.setup(architecture=architecture)
        iommu.device_add("00:01.0")
        iommu.domain_create("d")
        iommu.attach("d", "00:01.0")
        assert iommu.dma("00:01.0", 0x5000, size=1).fault
        with pytest.raises(NoSuchDomain), iommu.transaction():
            list_and_fail(iommu)
        with iommu.reading():
            assert iommu.faults().faults == []
        assert len(iommu.faults().faults) == 1
        iommu.reset()
        assert iommu.faults().faults == []
