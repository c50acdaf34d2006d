# SPDX-License-Identifier: Apache-2.0
"""Markdown of lists and tables."""

from collections.abc import Iterable


def listing(records: Iterable[tuple[str, str]]) -> str:
    """Options and what they do."""
    return "\n".join(f"* `{spelling}` {text}".rstrip() for spelling, text in records)


def table(titles: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """A Markdown table without the columns in which nothing stands."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    used = [number for number in range(len(titles)) if any(row[number] for row in cells)]
    lines = [
        [titles[number] for number in used],
        ["---"] * len(used),
        *([row[number] for number in used] for row in cells),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
