# SPDX-License-Identifier: Apache-2.0
"""What only a terminal sees: tables that are drawn, colours, and no escape sequence that came with the data."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Run

LINES = """
device list
domain list
domain show domain2
pgtable list
pgtable show a1
memory list
topology
topology --by device
device show 00:01.0
translate 00:01.0 0x7f0000000000 --pasid 3
sim dma 00:01.0 1M --read --size 20
invalidate domain2
table decode vtd.pasid-entry 0x1f000a0c9 0x800004
table list
unit list
unit show sim0
backend list
backend show sim
sim show
check
domain unmap domain1 --iova 1M --size 1M --dry-run
"""
CODE = "import sys; from iommuctl.__main__ import main; sys.exit(main(sys.argv[1:]))"


def on_a_terminal(*arguments: str, code: str = CODE, **environment: str) -> tuple[int, str]:
    """Run the command line with stdout on a pseudo-terminal of 80 columns."""
    try:
        master, slave = pty.openpty()
    except OSError as error:
        pytest.skip(f"there are no pseudo-terminals here: {error}")
    variables = {**os.environ, "COLUMNS": "80", "TERM": "xterm-256color", **environment}
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=slave, stdout=slave, stderr=slave, env=variables
    ) as process:
        os.close(slave)
        output = b""
        while True:
            try:
                chunk = os.read(master, 1 << 16)
            except OSError:
                break
            if not chunk:
                break
            output += chunk
    os.close(master)
    return process.returncode, output.decode().replace("\r\n", "\n")


def without_color(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_every_command_that_looks(reference: Run, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_text(LINES, encoding="utf-8")
    code, output = on_a_terminal("batch", str(file))
    assert code == 0, output
    assert "\x1b[" in output
    plain = without_color(output)
    assert "\x1b" not in plain
    assert "no named memory" in plain
    assert re.search(r"^NAME +ID +NEST PARENT +WIDTH +PAGES +LABEL *\n─+\n *domain1", plain, re.MULTILINE)


def test_no_color(reference: Run) -> None:
    for arguments, environment in (
        (["topology", "--color", "never"], {}),
        (["topology"], {"NO_COLOR": "1"}),
        (["domain", "list"], {"NO_COLOR": "1"}),
        (["domain", "list"], {"TERM": "dumb"}),
        (["--help"], {"NO_COLOR": "1"}),
    ):
        code, output = on_a_terminal(*arguments, **environment)
        assert code == 0
        assert "\x1b" not in output, arguments


def test_color_may_be_forced_into_a_pipe_and_shortens_nothing(reference: Run) -> None:
    label = "x" * 300
    reference("domain", "create", "d4", "--label", label)
    output = reference("domain list --color always").out
    assert "\x1b[" in output
    assert label in without_color(output)


def test_a_table_folds_and_loses_nothing(reference: Run) -> None:
    label = "".join(chr(ord("a") + number % 26) for number in range(200))
    reference("domain", "create", "d4", "--label", label)
    _, output = on_a_terminal("domain", "list")
    folded = "".join(part for line in without_color(output).splitlines()[5:] for part in line.split()[-1:])
    assert folded == label


def test_data_is_neither_markup_nor_control(reference: Run) -> None:
    reference("domain", "create", "d4", "--label", "[red]x[/red] \x1b[31m \x07 \u202e end")
    for line in ("domain list", "topology", "domain show d4"):
        _, output = on_a_terminal(*line.split())
        plain = without_color(output)
        assert "[red]x[/red]" in " ".join(plain.split())
        assert "\\x1b[31m" in plain
        assert not set("\x1b\x07\u202e") & set(plain)
