# SPDX-License-Identifier: Apache-2.0
"""The systemd unit of `fault run`: it types a command that there is, where the keeper is, and is confined."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REQUIRED = "IOMMUCTL_REQUIRE_LAB"
UNITS = Path(__file__).parents[2] / "examples" / "systemd"
UNIT = UNITS / "iommuctl-faults.service"


def settings(path: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return {**parser["Unit"], **parser["Service"]}


def test_the_command_is_one(tmp_path: Path) -> None:
    words = settings(UNIT)["ExecStart"].split()
    assert words[:4] == ["/usr/bin/python3", "-I", "-m", "iommuctl"]
    words[0] = sys.executable
    words[words.index("/var/lib/iommuctl")] = str(tmp_path)
    done = subprocess.run([*words, "--once"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_fits_the_keeper() -> None:
    mine, keeper = settings(UNIT), settings(UNITS / "iommuctl-keeper.service")
    for name in ("StateDirectory", "StateDirectoryMode", "UMask"):
        assert mine[name] == keeper[name]
    assert (UNITS / mine["Wants"]).exists()
    assert mine["After"] == mine["Wants"]


def test_systemd_finds_it_confined() -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        reason = "there is no systemd-analyze"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=30", "--no-pager", str(UNIT)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
