# SPDX-License-Identifier: Apache-2.0
"""A context that can be looked at and not changed: for asking what hardware would do, without its doing it."""

from typing import TYPE_CHECKING, Any

from iommuctl.formats.memory import TableMemory
from iommuctl.hookspecs import Context, Rows
from iommuctl.model import Command

if TYPE_CHECKING:
    from iommuctl.architecture import Architecture
    from iommuctl.formats.memory import Run


class Peek:
    """A hookspecs.Context over another one. What is written to it is forgotten at once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.memory: TableMemory = _Memory(context.memory)
        self.rows: Rows = _Rows(context.rows)

    def architecture(self, name: str) -> "Architecture":
        return self._context.architecture(name)

    def log(self, command: Command) -> None:
        """Nothing is commanded here."""

    def warn(self, text: str) -> None:
        """Nobody is there to be warned."""


class _Memory:
    def __init__(self, memory: TableMemory) -> None:
        self.read = memory.read

    def write(self, address: int, data: bytes) -> None:
        """Accessed and dirty bits."""

    def allocate(self, pages: int) -> "list[Run]":
        raise TypeError(f"{pages} pages were to be allocated in memory that is only looked at")

    def allocate_run(self, pages: int) -> int:
        raise TypeError(f"{pages} pages were to be allocated in memory that is only looked at")

    def free(self, run: "Run") -> None:
        raise TypeError(f"{run} was to be freed in memory that is only looked at")


class _Rows:
    def __init__(self, rows: Rows) -> None:
        self.get = rows.get
        self.scan = rows.scan
        self.count = rows.count

    def put(self, kind: str, key: str, value: Any) -> None:
        """Caches that would have been filled, faults that would have been recorded."""

    def delete(self, kind: str, key: str) -> None:
        """Nothing goes."""
