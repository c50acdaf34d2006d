# SPDX-License-Identifier: Apache-2.0
"""The program as a whole: help, global options, usage errors, what it imports."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iommuctl.cli import app
from iommuctl.cli.command import Group

from .conftest import Run, python


def every_command() -> Iterator[str]:
    for name in app.COMMANDS:
        command = app.load(name)
        if isinstance(command, Group):
            yield from (f"{name} {each}" for each in command.entries)
        else:
            yield name


NOUNS = [name for name in app.COMMANDS if isinstance(app.load(name), Group)]


@pytest.mark.parametrize("name", app.COMMANDS)
def test_the_summaries_of_the_root_are_those_of_the_modules(name: str) -> None:
    command = app.load(name)
    first = (command.help or "").partition("\n")[0].rstrip(".")
    assert app.COMMANDS[name][1] == first


@pytest.mark.parametrize("name", ["", *NOUNS, *every_command()])
def test_help(run: Run, name: str) -> None:
    result = run(*name.split(), "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: iommuctl {name}".rstrip())
    assert "--dry-run" in result.out
    assert f"  iommuctl {name}".rstrip() in result.out.partition("Examples:\n")[2]
    assert max(map(len, result.out.splitlines())) <= 110


@pytest.mark.parametrize("name", ["", *NOUNS])
def test_a_group_alone_prints_its_help_as_a_usage_error(run: Run, name: str) -> None:
    result = run(*name.split())
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Usage: iommuctl")


def test_version(run: Run) -> None:
    result = run("--version")
    assert result.code == 0
    assert result.out.startswith("iommuctl 0.")


@pytest.mark.parametrize(
    ("line", "what", "hint"),
    [
        ("doman list", "no such command 'doman'", "did you mean domain?; see `iommuctl --help`"),
        ("domain lst", "no such command 'lst'", "did you mean list?; see `iommuctl domain --help`"),
        ("domain xyzzy", "no such command 'xyzzy'", "see `iommuctl domain --help`"),
        ("domain list --breif", "no such option: --breif", "did you mean --brief?; see `iommuctl domain list --help`"),
        ("domain create", "missing argument 'NAME'", "see `iommuctl domain create --help`"),
        ("domain map d --size 4K --pa 0", "missing option '--iova'", "see `iommuctl domain map --help`"),
        ("domain show a b", "got unexpected extra argument(s) (b)", "see `iommuctl domain show --help`"),
        ("topology --by kind", "invalid value for '--by': 'kind' is not one of 'domain', 'device'", None),
        ("domain list --color pink", "invalid value for '--color': 'pink' is not one of auto, always, never", None),
    ],
)
def test_usage_errors(run: Run, line: str, what: str, hint: str | None) -> None:
    text = run(line)
    assert text.code == 2
    assert text.err.splitlines()[0] == f"error[usage]: {what}"
    document = run(f"{line} -j")
    assert document.code == 2
    assert not document.out
    assert document.error["id"] == "usage"
    assert document.error["exit"] == 2
    assert document.error["what"] == what
    assert hint is None or document.error["hint"] == hint


def test_an_option_without_its_argument(run: Run) -> None:
    result = run("-j domain create d --width")
    assert (result.code, result.error["what"]) == (2, "option '--width' requires an argument")


@pytest.mark.parametrize("line", ["-j domain map d --iova x --size 4K", "domain map -j d --iova x --size 4K"])
def test_a_bad_number_as_json_wherever_j_stands(run: Run, line: str) -> None:
    result = run(line)
    assert result.code == 2
    assert result.error["id"] == "bad-number"
    assert result.error["what"] == "'x' is not a number"


@pytest.mark.parametrize("line", ["domain map d --size 0 --iova 0 --pa 0", "sim read 0 0"])
def test_a_size_of_zero(run: Run, line: str) -> None:
    assert run(f"{line} -j").error["id"] == "zero-size"


@pytest.mark.parametrize(
    "line", ["-j --state {0} domain list", "domain -j --state {0} list", "domain list -j --state {0}"]
)
def test_global_options_stand_anywhere(run: Run, tmp_path: Path, line: str) -> None:
    assert run(line.format(tmp_path / "elsewhere")).json == {"schema": 1, "domains": []}


def test_errors_as_text_have_a_line_for_each_part(run: Run) -> None:
    result = run("domain map d --iova 0x_1 --size 4K --pa 0")
    assert result.err.splitlines() == [
        "error[bad-number]: '0x_1' is not a number",
        "because: underscores are not part of a number",
        "hint: a number is written 0x1000, 4096, 4K, 2MiB or 1G",
    ]


def test_errors_repeat_input_without_its_control_characters(run: Run) -> None:
    result = run("domain", "show", "\x1b[31mred\x07")
    assert result.code in (2, 4)
    assert "\x1b" not in result.err
    assert "\x07" not in result.err


def test_color_never_and_always(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" not in run("domain show nothing").err
    assert "\x1b[" in run("domain show nothing --color always").err
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run("domain show nothing").err


def modules_of(line: str, state: Path) -> set[str]:
    code = (
        "import sys, json; from iommuctl.__main__ import main; "
        f"code = main({line.split()!r}); sys.stdout.flush(); "
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    result = python("-c", code)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stderr.splitlines()[-1]))


FORBIDDEN = {"numpy", "rich", "ctypes", "dataclasses", "importlib.metadata", "tomllib", "shlex", "iommuctl.cli.jsonout"}


@pytest.mark.parametrize("line", ["domain list", "device list", "memory list", "pgtable list", "topology"])
def test_a_command_that_reads_imports_little(reference: Run, state: Path, line: str) -> None:
    loaded = modules_of(line, state)
    assert not loaded & FORBIDDEN
    nouns = {f"iommuctl.cli.{module}" for module, _ in app.COMMANDS.values()}
    allowed = {f"iommuctl.cli.{line.partition(' ')[0]}"}
    if line == "device list":
        allowed.add("iommuctl.cli.topology")
    assert loaded & nouns == allowed


def test_the_help_of_the_root_imports_no_command(state: Path) -> None:
    loaded = modules_of("--help", state)
    assert not loaded & {f"iommuctl.cli.{module}" for module, _ in app.COMMANDS.values()}
    assert "iommuctl.iommu" not in loaded


def test_a_reader_that_leaves_is_no_error(state: Path) -> None:
    code = "import sys; from iommuctl.__main__ import main; sys.exit(main(['--help']))"
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run([sys.executable, "-c", code], check=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert result.returncode == 141
    assert result.stderr == b""


def test_a_noun_without_a_command_is_an_error_in_json(run: Run) -> None:
    result = run("-j domain")
    assert (result.code, result.out, result.error["id"]) == (2, "", "usage")


def test_batches_that_cannot_be(run: Run, tmp_path: Path) -> None:
    nested, endless = tmp_path / "nested", tmp_path / "endless"
    nested.write_text(f"--quiet batch {nested}\n")
    endless.write_text("#" * 100_000)
    for file in (nested, endless):
        result = run("batch", str(file))
        assert (result.code, "error[bad-document]" in result.err) == (2, True)
    closed = python("-c", "import os, sys; os.close(0); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])",
                    "-m", "iommuctl", "batch", "-")  # fmt: skip
    assert (closed.returncode, "error[bad-document]" in closed.stderr) == (2, True)


def test_output_that_cannot_be_written(state: Path, tmp_path: Path) -> None:
    """A file that may not grow stands for a full disk, which not every machine has a device for."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0));"
        "from iommuctl.__main__ import main; sys.exit(main(['--help']))"
    )
    with open(tmp_path / "full", "w", encoding="ascii") as full:
        result = subprocess.run([sys.executable, "-c", code], check=False, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 5
    assert result.stderr.startswith(b"error[system]: the output could not be written")
    assert b"Traceback" not in result.stderr


def test_closed_stdout(state: Path) -> None:
    code = "import sys; from iommuctl.__main__ import main; sys.exit(main(['domain', 'list']))"
    result = python(
        "-c", "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])", code
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_the_process_itself(state: Path) -> None:
    result = python("-m", "iommuctl", "domain", "list", "--brief")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert python("-m", "iommuctl", "domain", "show", "d").returncode == 4


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "execute", interrupt)
    assert run("domain list") == (130, "", "")


def test_the_cli_keeps_to_what_typer_publishes_and_rich_to_one_module() -> None:
    folder = Path(app.__file__).parent
    for file in folder.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(from|import) (click|typer\._click)\b", text, re.MULTILINE), file
        assert file.name == "render.py" or not re.search(r"^\s*(from|import) rich\b", text, re.MULTILINE), file


def test_arguments_that_are_not_text(run: Run) -> None:
    result = run("domain", "create", "d", "--label", "\udcff", "-j")
    assert (result.code, result.error["id"]) == (2, "usage")


@pytest.mark.parametrize("option", ["--state", "--backend"])
def test_an_empty_global_option(run: Run, option: str) -> None:
    result = run("domain", "list", option, "", "-j")
    assert (result.code, result.error["what"]) == (2, f"invalid value for '{option}': it is empty")
