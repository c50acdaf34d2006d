# SPDX-License-Identifier: Apache-2.0
"""A bench for each test: a kernel in this process, a keeper in one of its own, and a state folder over both."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iommuctl import plugins
from iommuctl.iommufd import drivers
from iommuctl.kernel import machine, vfio_devices
from iommuctl.session import Session
from iommuctl.state.intents import IntentLog
from tests.kernel import bench as made
from tests.kernel.bench import Bench
from tests.kernel.calls import Kernel, Killed
from tests.kernel.host import NAME, FakeBackend, Host, opening


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    kernel = Kernel()
    host = Host(kernel, tmp_path)
    iommufd, cdev = opening(kernel)
    for module in ("session", "vfio", "evidence"):
        monkeypatch.setattr(f"iommuctl.iommufd.{module}.ioctl", kernel.ioctl)
    monkeypatch.setattr(machine, "Iommufd", iommufd)
    monkeypatch.setattr(vfio_devices, "Cdev", cdev)
    monkeypatch.setattr(drivers, "bind_to_vfio", host.bind_to_vfio)
    monkeypatch.setattr(drivers, "give_back", host.give_back)
    monkeypatch.setattr(made, "BACKEND", FakeBackend(host), raising=False)
    monkeypatch.setitem(plugins.BACKENDS, NAME, "tests.kernel.bench:BACKEND")
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
    with Bench(kernel, host, tmp_path / "state") as found:
        yield found
