# SPDX-License-Identifier: Apache-2.0
"""The scripts are what the program says, and nothing that could be completed is forgotten."""

import re
import runpy
from collections.abc import Iterator
from typing import Any

from iommuctl.cli.app import COMMANDS, load
from tests.completion.shells import ROOT, SCRIPTS

FREE = {
    *(
        "A",
        "A+S",
        "BITS",
        "GPA",
        "HEX",
        "HEX…",
        "ID",
        "IOVA",
        "KEY=VALUE",
        "N",
        "NAME",
        "NEW-RID",
        "PA",
        "PID:FD",
        "RID:BAR",
        "SECONDS",
    ),
    *("PROGRAM…", "S", "SIZE", "TEXT", "UNIT", "4K,2M,1G"),
}
"""Metavars of what has to be typed."""


def generator() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "completions" / "generate.py"))


def with_inner(command: Any) -> Iterator[Any]:
    """A command, and all that a group of commands has in it."""
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from with_inner(inner)


def test_they_are_what_the_program_says() -> None:
    generated: dict[str, str] = generator()["scripts"]()
    assert set(generated) == set(SCRIPTS.values())
    for name, text in generated.items():
        assert (ROOT / "completions" / name).read_text("utf-8") == text, "run `python completions/generate.py`"


def test_every_metavar_is_one_that_is_completed_or_one_that_is_typed() -> None:
    """A new metavar that nobody completes is put into FREE, and one that is misspelt is found."""
    parts = generator()
    known = {*parts["QUERIES"], *parts["FILES"], *parts["known"]()}
    met = set()
    for name in COMMANDS:
        command: Any = load(name)
        for each in with_inner(command):
            for param in each.params:
                met |= set(re.sub(r"\[.*?\]", "", param.metavar or "").split("|"))
    words = {part for part in met if re.fullmatch("[a-z]*", part)}
    assert met - words - known == FREE
    assert known - met == set()
