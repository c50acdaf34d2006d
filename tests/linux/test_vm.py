# SPDX-License-Identifier: Apache-2.0
"""What a VM is made of."""

from pathlib import Path

import pytest

from tests.linux.initramfs import archive
from tests.linux.vm import NoVm, find

ZERO = b"00000000"


def test_an_archive_byte_by_byte() -> None:
    """Modes 040755 and 0100755, sizes 0 and 5, names of 4, 9 and 11 bytes with their ends; all multiples of 4."""
    folder = b"07070100000001000041ED" + ZERO * 2 + b"00000001" + ZERO * 6 + b"00000004" + ZERO
    tool = b"07070100000002000081ED" + ZERO * 2 + b"00000001" + ZERO + b"00000005" + ZERO * 4 + b"00000009" + ZERO
    end = b"070701" + ZERO * 4 + b"00000001" + ZERO * 6 + b"0000000B" + ZERO
    assert archive({"bin/tool": b"12345"}) == b"".join(
        (folder, b"bin\0\0\0", tool, b"bin/tool\0\0", b"12345\0\0\0", end, b"TRAILER!!!\0\0\0\0")
    )


def test_the_folder_is_that_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/vmlinuz-x86_64").touch()
    (tmp_path / "guest-x86_64").mkdir()
    kit = find("x86_64", {"IOMMUCTL_VM": str(tmp_path)})
    assert kit == ("x86_64", tmp_path / "images/vmlinuz-x86_64", tmp_path / "guest-x86_64")


@pytest.mark.parametrize(("environment", "why"), [({}, "not set"), ({"IOMMUCTL_VM": "/nowhere"}, "there is no")])
def test_why_there_is_no_vm(environment: dict[str, str], why: str) -> None:
    with pytest.raises(NoVm, match=why):
        find("x86_64", environment)
