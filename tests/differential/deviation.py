# SPDX-License-Identifier: Apache-2.0
"""A place where QEMU differs from a specification, as data."""

from typing import NamedTuple


class Deviation(NamedTuple):
    """One place. `section` is of the architecture's specification, `release` the QEMU in which it was seen last.

    With `free`, the specification leaves it to the unit.
    """

    section: str
    what: str
    free: bool = False
    release: tuple[int, int] = (11, 1)
