# SPDX-License-Identifier: Apache-2.0
"""Messages of the kernel about a device, out of a file that stands for /dev/kmsg."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from iommuctl.iommufd.kernel_log import KernelLog, records_after

RID = "0000:00:13.0"


def records(*answers: str | type[OSError]) -> Callable[[int, int], bytes]:
    left: list[str | type[OSError]] = [*answers, BlockingIOError]

    def read(fd: int, length: int) -> bytes:
        answer = left.pop(0)
        if isinstance(answer, str):
            return answer.encode()
        raise answer

    return read


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ((), ""),
        (("6,1,2,-;other 0000:00:14.0: text\n",), ""),
        (
            (
                f"6,1,2,-;vfio-pci {RID}: first\n",
                f"4,2,3,-;{RID}: probe failed\n SUBSYSTEM=pci\n",
                "6,3,4,-;later\n",
            ),
            f"{RID}: probe failed",
        ),
        ((BrokenPipeError, f"6,1,2,-;{RID}: after what was overwritten\n"), f"{RID}: after what was overwritten"),
        ((f"6,1,2,-;{RID} \x1b[2J; and more\n",), f"{RID} ?[2J; and more"),
        ((f"6,1,2,-;{RID} " + "x" * 8000,), f"{RID} " + "x" * (499 - len(RID))),
    ],
)
def test_the_newest_message_about_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: Sequence[str | type[OSError]], message: str
) -> None:
    (tmp_path / "kmsg").touch()
    with KernelLog(str(tmp_path / "kmsg")) as log:
        monkeypatch.setattr("iommuctl.iommufd.kernel_log.os.read", records(*answers))
        assert log.last_about(RID) == message


def test_what_was_logged_before_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "kmsg"
    file.write_text(f"6,1,2,-;{RID}: before\n")
    with KernelLog(str(file)) as log:
        assert log.last_about(RID) == ""
        with file.open("a") as more:
            more.write(f"6,1,2,-;{RID}: now\n")
        assert log.last_about(RID) == f"{RID}: now"


def test_a_log_that_never_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kmsg").touch()
    with KernelLog(str(tmp_path / "kmsg")) as log:
        monkeypatch.setattr("iommuctl.iommufd.kernel_log.os.read", lambda *_: f"6,1,2,-;{RID}\n".encode())
        assert log.last_about(RID) == RID


def test_a_log_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "nothing", tmp_path / "pipe"):
        with KernelLog(str(path)) as log:
            assert log.last_about(RID) == ""


def test_records_after_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tab is escaped there: Documentation/ABI/testing/dev-kmsg."""
    (tmp_path / "kmsg").touch()
    answers = (
        "6,41,2,-;old\n",
        BrokenPipeError,
        "3,42,2,-;unit: \\x090x0000000000000010\n SUBSYSTEM=platform\n",
        "rubbish\n",
        "3,x,2,-;no number\n",
        "12,44,2,-;from a program\n",
        "3,43,5,c;a \\x1b[2J b \\x5c\n",
    )
    for last, found in ((41, [42, 43]), (-1, [41, 42, 43]), (43, [])):
        monkeypatch.setattr("iommuctl.iommufd.kernel_log.os.read", records(*answers))
        got = records_after(last, str(tmp_path / "kmsg"))
        assert [record.sequence for record in got] == found
    monkeypatch.setattr("iommuctl.iommufd.kernel_log.os.read", records(*answers))
    assert [record.text for record in records_after(41, str(tmp_path / "kmsg"))] == [
        "unit:  0x0000000000000010",
        "a ?[2J b \\",
    ]


def test_records_of_no_log(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        records_after(-1, str(tmp_path / "kmsg"))
