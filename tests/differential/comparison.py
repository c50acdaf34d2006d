# SPDX-License-Identifier: Apache-2.0
"""The result of asking both sides the same."""

from typing import NamedTuple

from iommuctl.model import Step
from tests.differential.outcome import Faulted, Nowhere, Outcome


class Comparison(NamedTuple):
    """One answer of each side. `explained` has the deviations between them; None means that nothing explains them.

    `event` counts the configuration's events. `outcome` is ours, and None where it was no DMA.
    """

    event: int
    ours: str
    theirs: str
    explained: tuple[str, ...] | None
    outcome: Outcome | None = None
    stale: bool = False
    detail: str = ""


def same(one: Outcome, other: Outcome) -> bool:
    """Whether nobody outside the unit can tell two outcomes apart."""
    if isinstance(one, Faulted) and isinstance(other, Faulted):
        return one.record == other.record
    return one == other or (isinstance(one, Nowhere) and isinstance(other, Nowhere))


def trace(steps: tuple[Step, ...]) -> str:
    """The entries on a way, in short."""
    return " > ".join(
        f"{step.structure.partition('.')[2]} at {step.address:#x}: {' '.join(f'{word:x}' for word in step.raw)}"
        for step in steps
    )
