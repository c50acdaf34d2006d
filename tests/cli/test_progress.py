# SPDX-License-Identifier: Apache-2.0
"""The progress bar: on a terminal, when it takes long."""

import sys
from pathlib import Path

import pytest

from iommuctl.cli import progress

from .conftest import python
from .test_terminal import on_a_terminal

SLOW = "import sys; from iommuctl.cli import progress; progress.PATIENCE = {}; from iommuctl.__main__ import main; "


def test_a_progress_bar_on_a_terminal_when_it_takes_long(state: Path, file: Path, tmp_path: Path) -> None:
    for patience, seen in (("0.0", True), ("60.0", False)):
        code = SLOW.format(patience) + "sys.exit(main(sys.argv[1:]))"
        folder = str(tmp_path / patience)
        exit_code, printed = on_a_terminal("apply", str(file), "--state", folder, code=code)
        assert exit_code == 0
        assert ("applying" in printed) is seen
        assert "5 added" in printed


def test_no_progress_bar_in_a_pipe(state: Path, file: Path) -> None:
    code = SLOW.format("0.0") + "code = main(sys.argv[1:]); assert 'rich' not in sys.modules; sys.exit(code)"
    done = python("-c", code, "apply", str(file))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_bar_is_taken_off_when_a_step_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bar:
        def __init__(self, what: str, total: int) -> None:
            shown.append(f"{what} {total}")

        def update(self, done: int) -> None:
            shown.append(str(done))

        def stop(self) -> None:
            shown.append("stopped")

    def fail() -> None:
        with progress.progress("working") as told:
            assert told
            told(0, 2)
            told(1, 2)
            raise ZeroDivisionError

    shown: list[str] = []
    monkeypatch.setattr(progress, "ProgressBar", Bar)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with pytest.raises(ZeroDivisionError):
        fail()
    assert shown == ["working 2", "0", "1", "stopped"]
