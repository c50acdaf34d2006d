# SPDX-License-Identifier: Apache-2.0
"""Finding QEMU, starting it and ending it, with shell scripts in its place."""

from pathlib import Path

import pytest

from tests.differential import qemu
from tests.differential.qemu import Installed, NoQemu, Qemu, find
from tests.differential.qtest import QtestError

_LIST = 'name "edu", bus PCI\nname "other", bus PCI, desc "edu too"'


def script(folder: Path, body: str, name: str = "qemu-system-toy") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return path


def answering(folder: Path, version: str = "QEMU emulator version 11.1.3 (Debian)") -> Path:
    return script(folder, f"case $* in *--version) echo '{version}';; *) echo '{_LIST}';; esac")


def test_a_variable_names_a_command_with_words(tmp_path: Path) -> None:
    path = answering(tmp_path)
    found = find("toy", ["edu"], {"IOMMUCTL_QEMU_TOY": f"sh {path}", "PATH": ""})
    assert found == Installed(("sh", str(path)), (11, 1, 3))
    assert found.release == (11, 1)


def test_path_is_searched_without_the_variable(tmp_path: Path) -> None:
    path = answering(tmp_path)
    assert find("toy", ["edu", "other"], {"PATH": str(tmp_path)}).command == (str(path),)


def test_no_qemu(tmp_path: Path) -> None:
    with pytest.raises(NoQemu, match="no qemu-system-toy in PATH, and IOMMUCTL_QEMU_TOY is not set"):
        find("toy", [], {"PATH": str(tmp_path)})


def test_a_device_is_missing(tmp_path: Path) -> None:
    answering(tmp_path)
    with pytest.raises(NoQemu, match=r"QEMU 11\.1\.3 has no intel-iommu, ed$"):
        find("toy", ["intel-iommu", "edu", "ed"], {"PATH": str(tmp_path)})


@pytest.mark.parametrize("version", ["no number", "version eleven.1.3", "version 11"])
def test_a_version_that_cannot_be_read(version: str, tmp_path: Path) -> None:
    answering(tmp_path, version)
    with pytest.raises(NoQemu, match="no version in"):
        find("toy", [], {"PATH": str(tmp_path)})


def test_a_command_that_fails(tmp_path: Path) -> None:
    script(tmp_path, "echo not today >&2; exit 3")
    with pytest.raises(NoQemu, match="--version failed: not today"):
        find("toy", [], {"PATH": str(tmp_path)})
    with pytest.raises(NoQemu, match="does not run"):
        find("toy", [], {"IOMMUCTL_QEMU_TOY": str(tmp_path / "nothing")})


def test_a_qemu_that_ends_at_once_is_explained(tmp_path: Path) -> None:
    path = script(tmp_path, "echo no such machine >&2; exit 1")
    with pytest.raises(QtestError, match="QEMU ended with 1: no such machine"):
        Qemu(Installed((str(path),), (0, 0, 0)), [], 0, 1 << 20)


def test_a_qemu_that_never_connects_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "_START", 0.3)
    path = script(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    with pytest.raises(QtestError, match=r"did not connect within 0\.3 s"):
        Qemu(Installed((str(path),), (0, 0, 0)), [], 0, 1 << 20)
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()
