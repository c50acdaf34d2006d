# SPDX-License-Identifier: Apache-2.0
"""A fault that comparisons with QEMU come to, as data."""

from typing import NamedTuple


class Covered(NamedTuple):
    """The name of a case, or the number of a random configuration; and the deviations in what QEMU records there."""

    where: str | int
    deviations: str = ""
