# SPDX-License-Identifier: Apache-2.0
"""What comes of a comparison: counts, and sentences about what is wrong."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from iommuctl.architecture import Unit
from iommuctl.errors import OutsideMemory
from iommuctl.formats.memory import PAGE, read_word
from iommuctl.model import Access, Slot
from tests.linux.snapshot import Mapped, Snapshot

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

    def content(self, unit: Unit, snapshot: Snapshot[Any]) -> None:
        """A device that reads where a program mapped memory for it must get what the program has written."""
        for mapped in snapshot.mappings:
            access: Access = "r" if "r" in mapped.prot else "w"
            for at in range(0, mapped.size, PAGE):
                iova = mapped.iova + at
                answer = unit.walk(mapped.slot, iova, access, privileged=False)
                self.counts["4 KiB with the content that the program wrote"] += 1
                try:
                    found = None if answer.pa is None else read_word(snapshot.memory, answer.pa)
                except OutsideMemory:
                    found = None
                if found != mapped.mark + at:
                    self.differences.append(f"{mapped.slot} {iova:#x} has {found}, not {mapped.mark + at}: {answer}")

    def sizes(self, mappings: Iterable[Mapped], translated: Mapping[Slot, int]) -> None:
        """What a program's devices translate, in bytes by slots, is what it mapped, and no more."""
        wanted: Counter[Slot] = Counter()
        for mapped in mappings:
            wanted[mapped.slot] += mapped.size
        for slot, size in wanted.items():
            if translated.get(slot, 0) != size:
                found = translated.get(slot, 0)
                self.differences.append(f"{slot} translates {found:#x} bytes, but {size:#x} were mapped")
