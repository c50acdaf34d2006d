# SPDX-License-Identifier: Apache-2.0
"""What came out, in numbers for each structure, and what is wrong with it."""

from collections.abc import Iterator, Mapping, Sequence

from tests.mutants.judging import Verdict
from tests.mutants.shifting import Mutant
from tests.mutants.unlooked import ALL, smmuv3, vtd

UNLOOKED: Mapping[str, Mapping[str, Mapping[str, str]]] = {"vtd": vtd.UNLOOKED, "smmuv3": smmuv3.UNLOOKED}
"""The lists by architecture."""
_HEADINGS = ("structure", "mutants", "QEMU", "listed", "vectors", "caught")


def reason(mutant: Mutant) -> str | None:
    """Why QEMU does not look at the field, as the list has it."""
    fields = UNLOOKED[mutant.architecture].get(mutant.layout, {})
    return fields.get(mutant.field, fields.get(ALL))


def lines(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """For each structure: how many mutants, noticed by QEMU, listed, killed by vectors, and caught by either."""
    rows: list[tuple[str, ...]] = [_HEADINGS]
    for layout in dict.fromkeys(verdict.mutant.layout for verdict in verdicts):
        rows.append(_row(layout, [verdict for verdict in verdicts if verdict.mutant.layout == layout]))
    rows.append(_row("all", verdicts))
    width = max(len(row[0]) for row in rows)
    return (f"{row[0]:{width}}" + "".join(f"{cell:>9}" for cell in row[1:]) for row in rows)


def _row(name: str, verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    counts = (
        len(verdicts),
        sum(bool(one.qemu) for one in verdicts),
        sum(bool(reason(one.mutant)) for one in verdicts),
        sum(bool(one.vectors) for one in verdicts),
        sum(bool(one.qemu or one.vectors) for one in verdicts),
    )
    return (name, *map(str, counts))


def problems(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """What contradicts the list, in sentences."""
    for mutant, qemu, vectors in verdicts:
        why = reason(mutant)
        if qemu and why:
            yield f"{mutant} is listed, but QEMU tells: {qemu}"
        if not qemu and not why:
            yield f"{mutant} is not listed, but QEMU does not tell"
        if not qemu and not vectors:
            yield f"{mutant} has no vector"
