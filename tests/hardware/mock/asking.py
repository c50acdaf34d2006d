# SPDX-License-Identifier: Apache-2.0
"""Mock devices that ask for pages, and what the kernel says of their groups, seen from outside of any command.

The mock driver does nothing with an answer. What can be seen is that the kernel has taken one: then nobody waits by the
group's cookie any more, and a second answer is refused.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from iommuctl.iommufd import fault_queue
from iommuctl.iommufd.keeper_client import Keeper
from iommuctl.iommufd.uapi import IOMMU_PGFAULT_PERM_READ, IOMMUFD_PAGE_RESP_INVALID
from tests.hardware.mock.driver import Device, Mock

MOST = 64
"""More groups than any test leaves waiting."""


class Asking:
    """The devices of a state folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ask(self, rid: str, address: int, *, group: int = 0, pasid: int = 0) -> None:
        """A device asks to read a page, for which it waits; the kernel makes a group of it."""
        with self._keeper() as keeper:
            iommufd = keeper.get("iommufd")
            assert iommufd is not None
            record = self._rows("device")[rid]
            device = Device(record["stdev"], record["dev"], record["hwpt"])
            permissions = IOMMU_PGFAULT_PERM_READ
            Mock(iommufd).trigger_iopf(device, address, group=group, pasid=pasid, permissions=permissions)

    def queued(self) -> int:
        """How many queues hold something that was not read."""
        with self._keeper() as keeper:
            return len(fault_queue.filled(self._files(keeper)))

    def end(self) -> int:
        """How many groups waited for an answer, having been read; they are answered invalid."""
        with self._keeper() as keeper:
            return sum(
                fault_queue.answer(file, [cookie], IOMMUFD_PAGE_RESP_INVALID)
                for file in self._files(keeper)
                for cookie in range(1, MOST)
            )

    def queues(self) -> list[str]:
        """The names of the queues' files that are held."""
        with self._keeper() as keeper:
            return [name for name in keeper.names() if name.startswith("page-requests-")]

    def _files(self, keeper: Keeper) -> list[int]:
        found = [keeper.get(record["kept"]) for record in self._rows("slot").values() if "kept" in record]
        assert None not in found
        return [file for file in found if file is not None]

    def _rows(self, kind: str) -> dict[str, dict[str, Any]]:
        with closing(sqlite3.connect(self._folder / "state.db")) as connection:
            query = "SELECT key, value FROM backend_row WHERE kind = ?"
            return {key: json.loads(value) for key, value in connection.execute(query, (f"mock.{kind}",))}

    @contextmanager
    def _keeper(self) -> Iterator[Keeper]:
        keeper = Keeper.connect(self._folder)
        assert keeper is not None, "no keeper runs"
        with closing(keeper):
            yield keeper
