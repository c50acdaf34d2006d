# SPDX-License-Identifier: Apache-2.0
"""Text for people: tables, trees and lines, and the only place that knows rich.

On a terminal tables are drawn by rich and may fold; anywhere else they are plain columns that are never shortened.
Data never counts as markup, and control characters in it are shown, not sent to the terminal.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from iommuctl.session import Outcome

COLORS = ("auto", "always", "never")

DRAWN_ROWS = 1000
"""Longer tables are plain everywhere: rich takes a millisecond for some rows."""
PARAGRAPH_WIDTH = 100

Span = tuple[str, str]
"""A style of STYLES ("" is none) and a text."""

STYLES: dict[str, dict[str, Any]] = {
    "": {},
    "name": {"fg": "cyan", "bold": True},
    "rid": {"fg": "yellow"},
    "address": {"fg": "bright_blue"},
    "good": {"fg": "green"},
    "bad": {"fg": "red", "bold": True},
    "key": {"bold": True},
    "dim": {"dim": True},
}


class Node(NamedTuple):
    """A node of a tree: its line and what hangs below it."""

    line: Sequence[Span]
    children: Sequence["Node"] = ()


class Column(NamedTuple):
    """A column of a table."""

    title: str
    style: str = ""


def safe(text: str) -> str:
    """Text without characters that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def field_list(fields: Mapping[str, int]) -> str:
    """The fields of a structure that are not zero, on one line."""
    return " ".join(f"{name}={value:#x}" if value > 9 else f"{name}={value}" for name, value in fields.items() if value)


def memory_place(name: str, offset: int) -> str:
    """A place in named memory, as one types it."""
    return f"{name}+{offset:#x}" if offset else name


def wants_color(choice: str, stream: Any) -> bool:
    """Whether to colour what goes to `stream`: --color, NO_COLOR, a terminal."""
    if choice == "auto":
        return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()
    return choice == "always"


class Output:
    """Writes to stdout in the way that suits it."""

    def __init__(self, color: str = "auto") -> None:
        self.stream = sys.stdout
        self.terminal = self.stream.isatty()
        self.color = wants_color(color, self.stream)
        encoding = (self.stream.encoding or "ascii").lower()
        self.guides = ("├── ", "└── ", "│   ") if encoding.startswith("utf") else ("|-- ", "`-- ", "|   ")

    def line(self, *spans: Span) -> None:
        """One line."""
        self.stream.write(self._styled(spans) + "\n")

    def raw(self, text: str) -> None:
        """Text that is written for programs, as it is."""
        self.stream.write(text)

    def lines(self, texts: Iterable[str]) -> None:
        """Many lines without style."""
        for text in texts:
            self.stream.write(safe(text) + "\n")

    def paragraph(self, text: str) -> None:
        """Running text, in lines of a readable length. Words are never cut."""
        import textwrap

        lines = textwrap.wrap(safe(text), PARAGRAPH_WIDTH, break_long_words=False, break_on_hyphens=False)
        self.stream.write("".join(f"{line}\n" for line in lines))

    def pairs(self, rows: Sequence[tuple[str, str]]) -> None:
        """Names and values, aligned."""
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            self.line(("key", f"{name:<{width}}"), ("", f"  {value}"))

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]], *, empty: str = "") -> None:
        """A table. `empty` is what a terminal shows when it has no rows."""
        if not rows and empty and self.terminal:
            self.line(("dim", empty))
        elif (self.terminal or self.color) and len(rows) <= DRAWN_ROWS:
            self._drawn(columns, rows)
        else:
            self._aligned([[column.title for column in columns], *rows])

    def tree(self, nodes: Iterable[Node]) -> None:
        """Trees, one below the other."""
        for node in nodes:
            self.line(*node.line)
            self._branches(node.children, "")

    def outcome(self, outcome: "Outcome", *, dry_run: bool) -> None:
        """The commands that hardware was given; of a dry run also calls to the kernel and words of memory."""
        for command in outcome.commands:
            fields = field_list(command.fields)
            self.line(
                ("", "  command  "), ("name", command.name), ("", f"  {fields}"), ("dim", f"  {command.raw.hex()}")
            )
        for call in outcome.calls if dry_run else ():
            self.line(("", "  call     "), ("name", call.name), ("", f"  {field_list(call.fields)}"))
        for write in outcome.writes if dry_run else ():
            place = memory_place(write.memory, write.offset) if write.memory else f"{write.address:#x}"
            self.line(("", "  write    "), ("address", place), ("", f"  {write.old:#x} -> {write.new:#x}"))

    def hexdump(self, data: bytes, base: int) -> None:
        """Sixteen bytes to a line with their addresses."""
        width = len(f"{base + len(data):x}")
        for start in range(0, len(data), 16):
            row = data[start : start + 16]
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
            self.line(("address", f"0x{base + start:0{width}x}"), ("", f"  {row.hex(' '):<47}"), ("dim", f"  |{text}|"))

    def _branches(self, children: Sequence[Node], indent: str) -> None:
        fork, last, bar = self.guides
        for number, child in enumerate(children, 1):
            end = number == len(children)
            self.line(("dim", indent + (last if end else fork)), *child.line)
            self._branches(child.children, indent + ("    " if end else bar))

    def _styled(self, spans: Iterable[Span]) -> str:
        if not self.color:
            return "".join(safe(text) for _, text in spans).rstrip()
        return "".join(typer.style(safe(text), **STYLES[style]) if style else safe(text) for style, text in spans)

    def _aligned(self, rows: Sequence[Sequence[str]]) -> None:
        cells = [[safe(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            padded = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
            self.stream.write("  ".join(padded).rstrip() + "\n")

    def _drawn(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(
            file=self.stream,
            force_terminal=True if self.color else None,
            color_system="standard" if self.color else None,
            width=None if self.terminal else 1 << 16,
            markup=False,
            highlight=False,
        )
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold" if self.color else "")
        for column in columns:
            style = STYLES[column.style]
            words = [word for word in ("bold", "dim") if word in style] + [str(style.get("fg", ""))]
            table.add_column(column.title, style=" ".join(words).strip() if self.color else "", overflow="fold")
        for row in rows:
            table.add_row(*(Text(safe(cell)) for cell in row))
        console.print(table)


class ProgressBar:
    """A bar on stderr."""

    def __init__(self, what: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(what, markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._drawn = Progress(*columns, console=Console(file=sys.stderr), transient=True)
        self._task = self._drawn.add_task("", total=total)
        self._drawn.start()

    def update(self, done: int) -> None:
        """Say how much is done."""
        self._drawn.update(self._task, completed=done)

    def stop(self) -> None:
        """Take the bar off the terminal."""
        self._drawn.stop()
