# SPDX-License-Identifier: Apache-2.0
"""A progress bar on standard error, for work that takes long, on a terminal only."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from iommuctl.cli.render import ProgressBar

PATIENCE = 1.0
"""Seconds after which work counts as long. Until then rich is not even imported."""


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Gives a function to be told how many parts are done and of how many; None where nobody would see it."""
    if not (sys.stderr and sys.stderr.isatty()):
        yield None
        return
    bar = _Told(what)
    try:
        yield bar.told
    finally:
        bar.stop()


class _Told:
    def __init__(self, what: str) -> None:
        self._what = what
        self._begun = time.monotonic()
        self._bar: ProgressBar | None = None

    def told(self, done: int, total: int) -> None:
        if self._bar is None:
            if time.monotonic() - self._begun < PATIENCE:
                return
            self._bar = ProgressBar(self._what, total)
        self._bar.update(done)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
