# SPDX-License-Identifier: Apache-2.0
"""A bench for each test: a kernel in this process, a keeper in one of its own, and a state folder over both."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iommuctl import plugins
from iommuctl.iommufd import drivers
from iommuctl.kernel import machine, vfio_devices
from iommuctl.kernel.hooks import HardwareBackend
from iommuctl.session import Session
from iommuctl.state.intents import IntentLog
from tests.kernel import bench as made
from tests.kernel import smmuv3_host as smmuv3
from tests.kernel.bench import Bench
from tests.kernel.calls import Kernel, Killed
from tests.kernel.host import NAME, FakeBackend, Host, opening
from tests.kernel.smmuv3_unit import SUBSTREAMS


@pytest.fixture
def bench(tmp_path: Path, bench_of: Callable[[Host, HardwareBackend, str], Bench]) -> Iterator[Bench]:
    """Devices behind a unit as VT-d's."""
    host = Host(Kernel(), tmp_path)
    with bench_of(host, FakeBackend(host), NAME) as found:
        yield found


@pytest.fixture
def registers() -> dict[str, int]:
    """Those of the SMMUv3."""
    return SUBSTREAMS


@pytest.fixture
def smmu(
    tmp_path: Path, bench_of: Callable[[Host, HardwareBackend, str], Bench], registers: dict[str, int]
) -> Iterator[Bench]:
    """Devices behind an SMMUv3."""
    host = smmuv3.SmmuHost(registers, tmp_path)
    with bench_of(host, smmuv3.SmmuBackend(host), smmuv3.NAME) as found:
        yield found


@pytest.fixture
def bench_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Host, HardwareBackend, str], Bench]:
    """The bench of a host, which has a backend of that name."""

    def bench(host: Host, backend: HardwareBackend, name: str) -> Bench:
        _put_in_place(host, monkeypatch)
        monkeypatch.setattr(made, "BACKEND", backend, raising=False)
        monkeypatch.setitem(plugins.BACKENDS, name, "tests.kernel.bench:BACKEND")
        return Bench(host, tmp_path / "state", name)

    return bench


def _put_in_place(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host in the place of this machine."""
    kernel = host.kernel
    iommufd, cdev = opening(kernel)
    for module in ("session", "vfio", "evidence"):
        monkeypatch.setattr(f"iommuctl.iommufd.{module}.ioctl", kernel.ioctl)
    monkeypatch.setattr("iommuctl.iommufd.fault_queue.read", kernel.read)
    monkeypatch.setattr("iommuctl.iommufd.fault_queue.write", kernel.write)
    monkeypatch.setattr(machine, "Iommufd", iommufd)
    monkeypatch.setattr(vfio_devices, "Cdev", cdev)
    monkeypatch.setattr(drivers, "bind_to_vfio", host.bind_to_vfio)
    monkeypatch.setattr(drivers, "give_back", host.give_back)
    repair = Session.repair

    def repair_if_alive(self: Session, *arguments: Any) -> None:
        """What is killed repairs nothing: the next command does."""
        if kernel.dead:
            raise Killed
        repair(self, *arguments)

    note = IntentLog.add

    def note_if_alive(self: IntentLog, *arguments: Any) -> None:
        """Nor does it note what it would have noted next."""
        if kernel.dead:
            raise Killed
        note(self, *arguments)

    monkeypatch.setattr(Session, "repair", repair_if_alive)
    monkeypatch.setattr(IntentLog, "add", note_if_alive)
