# SPDX-License-Identifier: Apache-2.0
"""A progress bar on standard error, for work that takes long, on a terminal only."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 1.0
"""Seconds after which work counts as long. Until then rich is not even imported."""


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Gives a function to be told how many parts are done and of how many; None where nobody would see it."""
    if not (sys.stderr and sys.stderr.isatty()):
        yield None
        return
    bar = _Bar(what)
    try:
        yield bar.told
    finally:
        bar.stop()


class _Bar:
    def __init__(self, what: str) -> None:
        self._what = what
        self._begun = time.monotonic()
        self._drawn: Any = None
        self._task: Any = None

    def told(self, done: int, total: int) -> None:
        if self._drawn is None:
            if time.monotonic() - self._begun < PATIENCE:
                return
            self._start(total)
        self._drawn.update(self._task, completed=done)

    def stop(self) -> None:
        if self._drawn is not None:
            self._drawn.stop()

    def _start(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(self._what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._drawn = Progress(*columns, console=Console(file=sys.stderr), transient=True)
        self._drawn.start()
        self._task = self._drawn.add_task(self._what, total=total)
