# SPDX-License-Identifier: Apache-2.0
"""`exec`: the program that takes over has the descriptors, their numbers, and an exit of its own."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from iommuctl import plugins
from tests.cli.real import NAME

from .conftest import Run, python

PROGRAM = (
    "import sys; from iommuctl import plugins; from iommuctl.__main__ import main; "
    f"plugins.BACKENDS[{NAME!r}] = 'tests.cli.real'; sys.exit(main(sys.argv[1:]))"
)
ROOT = Path(__file__).parents[2]

Exec = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def real(ok: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As `ok`, on a real machine with two devices that are bound."""
    monkeypatch.setitem(plugins.BACKENDS, NAME, "tests.cli.real")
    for rid in ("00:10.0", "00:11.0"):
        ok(f"--backend {NAME} device bind {rid}")
    return ok


@pytest.fixture
def start(real: Run) -> Exec:
    """Run `iommuctl exec` as a process of its own."""

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return python("-c", PROGRAM, "exec", *words, cwd=ROOT)

    return call


def look(*lines: str) -> Sequence[str]:
    """A program that prints what these expressions are."""
    return [sys.executable, "-c", f"import json, os, sys; print(json.dumps([{', '.join(lines)}]))"]


READ = "os.pread(int({}), 100, 0).decode()"


def test_the_descriptors_are_there_by_placeholders_and_by_environment(start: Exec) -> None:
    done = start(
        "--device", "0000:00:10.0", "--", *look(
            READ.format("sys.argv[1]"),
            READ.format("sys.argv[2].partition('=')[2].rstrip(',x')"),
            READ.format("os.environ['IOMMUCTL_IOMMUFD']"),
            READ.format("os.environ['IOMMUCTL_VFIO_0000_00_10_0']"),
            "sys.argv[3]",
        ), "{iommufd}", "fd={vfio:00:10.0},x", '{"not": "ours"}',
    )  # fmt: skip
    assert json.loads(done.stdout) == ["iommufd", "vfio-0000:00:10.0"] * 2 + ['{"not": "ours"}'], done


@pytest.mark.parametrize("devices", ["--device 00:10.0 --device 00:11.0", "--device 00:10.0 00:11.0"])
def test_several_devices(start: Exec, devices: str) -> None:
    names = ["IOMMUCTL_VFIO_0000_00_10_0", "IOMMUCTL_VFIO_0000_00_11_0"]
    done = start(*devices.split(), "--", *look(*(READ.format(f"os.environ[{name!r}]") for name in names)))
    assert json.loads(done.stdout) == ["vfio-0000:00:10.0", "vfio-0000:00:11.0"], done


def test_nothing_of_the_state_folder_is_open_in_the_program(start: Exec, state: Path) -> None:
    (line,) = start(
        "--device", "00:10.0", "--", *look("*(os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') "
        "if int(n) > 2 and os.path.exists(f'/proc/self/fd/{n}'))"),
    ).stdout.splitlines()  # fmt: skip
    ours = [Path(name).name for name in json.loads(line) if name.startswith(str(state))]
    assert sorted(ours) == ["iommufd", "vfio-0000:00:10.0"]


def test_the_exit_code_and_the_signals_are_the_programs_own(start: Exec) -> None:
    assert start("--device", "00:10.0", "--", "sh", "-c", "exit 77").returncode == 77
    done = start("--device", "00:10.0", "--", "sh", "-c", "kill -TERM $$")
    assert done.returncode == -signal.SIGTERM
    ended = start("--device", "00:10.0", "--", "sh", "-c", "kill -PIPE $$; echo still here")
    assert (ended.returncode, ended.stdout) == (-signal.SIGPIPE, "")


def test_options_after_the_dashes_are_the_programs(start: Exec) -> None:
    done = start("--device", "00:10.0", "--", "echo", "-j", "--device", "x", "--help")
    assert done.stdout == "-j --device x --help\n"


@pytest.mark.parametrize(
    ("words", "code", "error", "what"),
    [
        ("--device 00:10.0 -- /nowhere/at-all", 5, "system", "/nowhere/at-all cannot be run"),
        ("--device 00:10.0 -- /etc/passwd", 5, "permission", "/etc/passwd cannot be run"),
        ("--device 00:10.0 -- x {vfio:00:11.0}", 2, "usage", "stands for a device that the program does not get"),
        ("--device 00:10.0 -- x {vfio:some}", 2, "bad-rid", "'some' is not a RID"),
        ("--device 00:10.0 --", 2, "usage", "missing argument"),
        ("--device 00:10.0 00:11.0 --", 2, "usage", "a program is missing"),
        ("-- true", 2, "usage", "missing option '--device'"),
        ("--device 00:1f.0 -- true", 4, "no-such-device", "no device 0000:00:1f.0"),
        ("--device 00:02.0 -- true", 1, "device-not-bound", "0000:00:02.0 is not bound"),
    ],
)
@pytest.mark.usefixtures("real")
def test_refusals(run: Run, words: str, code: int, error: str, what: str) -> None:
    told = run(f"exec -j {words}")
    assert (told.code, told.error["id"]) == (code, error)
    assert what in told.error["what"]


def test_a_placeholder_of_another_device_says_how_to_get_it(real: Run, run: Run) -> None:
    told = run("exec --device 00:10.0 -j -- x fd={vfio:00:11.0}").error
    assert (told["because"], told["hint"]) == ("the devices are 0000:00:10.0", "add --device 0000:00:11.0")


def test_a_dry_run_says_what_would_be_run(real: Run) -> None:
    document = real("exec --device 00:10.0 --dry-run -j -- driver {iommufd} x{vfio:00:10.0}").json
    first, second = document["environment"].values()
    assert document["program"] == "driver"
    assert document["arguments"] == [first, f"x{second}"]
    assert list(document["environment"]) == ["IOMMUCTL_IOMMUFD", "IOMMUCTL_VFIO_0000_00_10_0"]
    line = real("exec --device 00:10.0 --dry-run -- driver {iommufd}").out
    assert line == f"dry run: would run driver {first}\n"


def test_a_batch_cannot_become_another_program(real: Run, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("exec --device 00:10.0 -- true\n")
    told = run(f"batch {file} -j")
    assert (told.code, told.error["id"]) == (2, "usage")


def test_a_simulated_device_is_no_programs(ok: Run, run: Run) -> None:
    ok("device add 00:01.0")
    told = run("exec --device 00:01.0 -j -- true")
    assert (told.code, told.error["id"]) == (3, "unsupported")
