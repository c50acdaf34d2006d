# SPDX-License-Identifier: Apache-2.0
"""The manual pages have every command, option, and error, and are clean troff."""

import shutil
import subprocess
from pathlib import Path

import pytest

from docs.commands import global_options, nouns
from iommuctl import errors
from iommuctl.errors import IommuError
from tests.docs.documents import ROOT

PAGES = sorted((ROOT / "docs" / "man").iterdir())


def plain(name: str) -> str:
    """A page without what is written for troff alone."""
    text = (ROOT / "docs" / "man" / f"{name}.1").read_text("utf-8")
    return text.replace("\\-", "-").replace("\\&", "").replace("\\e", "\\")


def test_every_command_and_option_has_its_lines() -> None:
    program = plain("iommuctl")
    assert all(f"\n.B {spelling}\n" in program for spelling, _ in global_options())
    for noun in nouns():
        assert f"\n.B {noun.name}\n" in program
        page = plain(f"iommuctl-{noun.name}")
        for command in noun.commands:
            assert command.usage.replace("…", "...") in page
            for spelling, text in (*command.arguments, *command.options):
                assert f"\n.B {spelling.replace('…', '...')}\n{text}" in page
            assert all(line in page for line in command.examples.splitlines())


def test_every_error_is_in_the_program_s_page() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, IommuError)]
    program = plain("iommuctl")
    for kind in kinds:
        if "id" in vars(kind) and kind is not IommuError:
            assert f"\n.B {kind.id} ({kind.exit})\n" in program


@pytest.mark.skipif(not shutil.which("groff"), reason="there is no groff")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_troff_has_nothing_to_say(page: Path) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Kutf8", "-Tutf8", "-ww", "-z", str(page)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
