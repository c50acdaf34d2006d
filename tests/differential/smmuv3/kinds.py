# SPDX-License-Identifier: Apache-2.0
"""The units that are compared: which stages there are, and whether the stream table has two levels.

QEMU's unit looks a stream up in two levels for ever once it has done so, so that these are units of their own.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """One sort of unit. `stage` is QEMU's word for its stages."""

    name: str
    stage: str
    two_level: bool

    @property
    def unit(self) -> str:
        """What the kinds of one QEMU share."""
        return f"{self.stage}{' two-level' if self.two_level else ''}"

    @property
    def stages(self) -> tuple[int, ...]:
        return {"1": (1,), "2": (2,), "nested": (1, 2)}[self.stage]


KINDS = {
    kind.name: kind
    for stage, name in (("1", "stage-1"), ("2", "stage-2"), ("nested", "nested"))
    for kind in (Kind(name, stage, False), Kind(f"{name}-two-level", stage, True))
}
"""By name."""
