# SPDX-License-Identifier: Apache-2.0
"""What comes of a comparison: counts, and sentences about what is wrong."""

from collections import Counter
from collections.abc import Iterable

_SHOWN = 20


class Report:
    """`counts` tells how much was compared, `findings` what is wrong with the tables, `differences` what with us.

    There should be neither findings nor differences.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.findings: list[str] = []
        self.differences: list[str] = []

    def lines(self) -> list[str]:
        """Counts, and the first of what is wrong."""
        wrong = [*self.findings, *self.differences]
        return [
            *(f"  {count:6} {name}" for name, count in sorted(self.counts.items())),
            f"  {len(self.findings):6} findings, {len(self.differences)} differences",
            *wrong[:_SHOWN],
            *([f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []),
        ]

    def both(self, theirs: Iterable[object], ours: Iterable[object], what: str) -> None:
        """Note what the kernel has more often than the tables, and the reverse."""
        one, other = Counter(theirs), Counter(ours)
        self.differences += [f"only the kernel has {what} {item}" for item in (one - other).elements()]
        self.differences += [f"only the tables have {what} {item}" for item in (other - one).elements()]
