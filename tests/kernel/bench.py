# SPDX-License-Identifier: Apache-2.0
"""What tests do with a kernel of theirs, and how they see whether its objects are what the rows of a folder say."""

import json
import os
import select
import signal
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import pytest

from iommuctl import Iommu
from iommuctl.iommufd.keeper_client import Keeper
from iommuctl.iommufd.uapi import IOMMU_IOAS_MAP_READABLE, IOMMU_IOAS_MAP_WRITEABLE
from iommuctl.kernel.hooks import HardwareBackend
from iommuctl.model import Mapping, Rid
from tests.kernel.calls import Killed
from tests.kernel.host import NODES, Host
from tests.kernel.objects import Device, FaultQueue, Hwpt, Ioas, Mapped, Vdevice, Veventq, Viommu

BACKEND: HardwareBackend
"""That of the test that runs; plugins are found by the names of modules."""
PAGE = 4096


class Bench:
    """A kernel, a host, and one state folder, which is opened anew after each kill."""

    def __init__(self, host: Host, folder: Path, backend: str) -> None:
        self.kernel = host.kernel
        self.host = host
        self.folder = folder
        self.iommu = Iommu(folder, backend=backend)
        self._backend = backend

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.iommu.close()
        if keeper := Keeper.connect(self.folder):
            keeper.stop()
        self.kernel.close()

    def reopen(self) -> Iommu:
        """The next command."""
        self.iommu.close()
        self.kernel.next_process()
        self.iommu = Iommu(self.folder)
        return self.iommu

    def killed(self, command: Callable[[], object]) -> Iommu:
        """Have a command killed where the kernel was told to; the next one."""
        with pytest.raises(Killed):
            command()
        return self.reopen()

    def kill_keeper(self) -> None:
        """Returns when all its descriptors are closed."""
        keeper = Keeper.connect(self.folder)
        assert keeper
        ended = os.pidfd_open(keeper.pid)
        os.kill(keeper.pid, signal.SIGKILL)
        select.select([ended], [], [], 10)
        os.close(ended)
        keeper.close()

    def held(self) -> list[str]:
        """The names under which the keeper holds something."""
        keeper = Keeper.connect(self.folder)
        if keeper is None:
            return []
        with closing(keeper):
            return keeper.names()

    def rows(self, kind: str) -> dict[str, Any]:
        """The backend's rows of a kind."""
        with closing(sqlite3.connect(self.folder / "state.db")) as connection:
            found = connection.execute(
                "SELECT key, value FROM backend_row WHERE kind = ?", (f"{self._backend}.{kind}",)
            )
            return {key: json.loads(value) for key, value in found}

    def ioas(self, name: str) -> Ioas:
        """A domain's object."""
        found = self.kernel.objects[self.rows("domain")[str(self.iommu.domain(name).id)]["ioas"]]
        assert isinstance(found, Ioas)
        return found

    def device(self, rid: Rid) -> Device:
        """The object of a device that is bound."""
        found = self.kernel.objects[self.rows("device")[str(rid)]["dev_id"]]
        assert isinstance(found, Device)
        return found

    def assert_agrees(self, *strangers: int) -> None:
        """The kernel has what rows name, as they have it, and besides nothing but these `strangers`."""
        objects, iommu = self.kernel.objects, self.iommu
        named: dict[int, type] = {}
        for record in self.rows("domain").values():
            named |= {record["ioas"]: Ioas} | dict.fromkeys(record["hwpts"].values(), Hwpt)
            assert {under(objects[table]) for table in record["hwpts"].values()} <= {record["ioas"]}
        named |= dict.fromkeys((record["pt"] for record in self.rows("slot").values()), Hwpt)
        waiting: dict[int, list[int]] = {}
        queues = [record for record in self.rows("slot").values() if "queue" in record]
        for record in queues:
            named[record["queue"]] = FaultQueue
            table = objects[record["pt"]]
            assert isinstance(table, Hwpt)
            assert table.fault == record["queue"]
            queue = objects[record["queue"]]
            assert isinstance(queue, FaultQueue)
            waiting[record["queue"]] = sorted(queue.read)
        assert waiting == self._waiting(waiting)
        named |= dict.fromkeys((record["dev_id"] for record in self.rows("device").values()), Device)
        for record in self.rows("viommu").values():
            named |= {record["id"]: Viommu, record["events"]: Veventq}
        for record in self.rows("vdevice").values():
            named[record["id"]] = Vdevice
            made = objects[record["id"]]
            assert isinstance(made, Vdevice)
            assert (made.viommu, made.virt_id) == (record["viommu"], record["virt_id"])
        assert {number: type(one) for number, one in objects.items() if number not in strangers} == named
        for domain in iommu.domains():
            assert sorted(self.ioas(domain.name).mapped) == [_mapped(one) for one in iommu.mappings(domain.name)]
        slots = {(rid, None if pasid is None else int(pasid)): record["pt"] for (rid, pasid), record in self._slots()}
        nodes = {node: str(rid) for rid, node in NODES.items()}
        devices = [one for one in objects.values() if isinstance(one, Device)]
        assert {(nodes[one.node], pasid): pt for one in devices for pasid, pt in one.slots.items()} == slots
        assert set(self.held()) <= self._wanted()
        assert not (self.folder / "intents").exists() or not (self.folder / "intents").stat().st_size
        assert iommu.check() == []

    def _wanted(self) -> set[str]:
        """What the keeper may hold: the iommufd is there with the first need of it, and stays."""
        rows = [record for kind in ("memory", "viommu", "slot") for record in self.rows(kind).values()]
        kept = {record["kept"] for record in rows if "kept" in record}
        return {"iommufd"} | kept | {f"vfio-{rid}" for rid in self.rows("device")}

    def _waiting(self, queues: Iterable[int]) -> dict[int, list[int]]:
        """The cookies of the groups that rows say wait, by queue: these, and any other that rows tell of."""
        found: dict[int, list[int]] = {queue: [] for queue in queues}
        with closing(sqlite3.connect(self.folder / "state.db")) as connection:
            for (token,) in connection.execute("SELECT token FROM page_group WHERE state = 'waiting'"):
                queue, cookie = json.loads(token)
                found.setdefault(queue, []).append(cookie)
        return {queue: sorted(cookies) for queue, cookies in found.items()}

    def _slots(self) -> list[tuple[tuple[str, str | None], Any]]:
        found = []
        for key, record in self.rows("slot").items():
            rid, _, pasid = key.partition(" PASID ")
            found.append(((rid, pasid or None), record))
        return found


def under(one: object) -> int:
    """What a table was made of."""
    assert isinstance(one, Hwpt)
    return one.under


def _mapped(mapping: Mapping) -> Mapped:
    flags = {"r": IOMMU_IOAS_MAP_READABLE, "w": IOMMU_IOAS_MAP_WRITEABLE}
    file = f"/memfd:iommuctl:{mapping.memory} (deleted)"
    return Mapped(mapping.iova, mapping.size, file, mapping.offset, sum(flags[letter] for letter in mapping.prot))
