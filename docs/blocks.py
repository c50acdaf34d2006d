# SPDX-License-Identifier: Apache-2.0
"""The blocks of a document: what can be typed, run, or is to be saved as a file.

`console` blocks are commands (`$ …`), each with what it prints; the lines after a command that shows nothing are none.
A block of another language is a file where the text before it ends in the file's name, as "… `host.toml`:".
Everything runs in the order of the document, in one working directory and with one state folder.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

BLOCK = re.compile(
    r"(?:`(?P<file>[\w-]+\.\w+)`:\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
EXAMPLE = re.compile(r"^\$ (?P<command>.*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)


class Block(NamedTuple):
    """One block; `file` is the name to save it under, if there is one, and `above` counts the lines above its text."""

    language: str
    text: str
    file: str | None
    above: int


class Example(NamedTuple):
    """A command, and the lines that follow it; none where the document does not show what it prints."""

    command: str
    output: str


def blocks(document: str) -> Iterator[Block]:
    """All blocks in their order."""
    for match in BLOCK.finditer(document):
        yield Block(match["language"], match["text"], match["file"], document.count("\n", 0, match.start("text")))


def texts(document: str, language: str) -> list[str]:
    """The texts of the blocks in that language."""
    return [block.text for block in blocks(document) if block.language == language]


def examples(block: str) -> list[Example]:
    """The commands of a console block. Raises ValueError for one that does not begin with a command."""
    if not block.startswith("$ "):
        raise ValueError(f"a console block begins with a command: {block[:60]!r}")
    return [Example(match["command"], match["output"]) for match in EXAMPLE.finditer(block)]


def line(command: str, code: int) -> list[str]:
    """How to run a command in a shell of its own, whose `$?` is what the command before left."""
    return ["/bin/sh", "-c", f"(exit {code}); {command}"]
