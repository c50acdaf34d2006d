# SPDX-License-Identifier: Apache-2.0
"""The fleet of examples/ansible, played by ansible-core where it is installed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from iommuctl import Iommu

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
REQUIRED = "IOMMUCTL_REQUIRE_LAB"
HOSTS = ("compute1", "compute2", "storage1")


class Recap(NamedTuple):
    """What the play says of a host."""

    changed: int
    failed: int


class Fleet:
    """A copy of the example, whose documents can be changed, and the hosts' folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.example = folder / "ansible"
        shutil.copytree(ROOT / "examples/ansible", self.example)
        self.environment = {
            **os.environ, "IOMMUCTL": str(PROGRAMS / "iommuctl"), "IOMMUCTL_FLEET": str(folder / "hosts"),
            "ANSIBLE_HOME": str(folder / "home"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8",
        }  # fmt: skip

    def play(self, *options: str) -> dict[str, Recap]:
        done = subprocess.run(
            [PROGRAMS / "ansible-playbook", "-i", "inventory.yml", "playbook.yml", *options],
            cwd=self.example, env=self.environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        recap = re.findall(r"^(\w+) +: ok=\d+ +changed=(\d+) .*failed=(\d+)", done.stdout, re.MULTILINE)
        assert {host for host, _, _ in recap} == set(HOSTS), done.stdout + done.stderr
        found = {host: Recap(int(changed), int(failed)) for host, changed, failed in recap}
        assert (done.returncode == 0) == (not any(one.failed for one in found.values()))
        return found

    def domains(self, host: str) -> list[str]:
        with Iommu(self.folder / "hosts" / host) as iommu:
            return [domain.name for domain in iommu.domains()]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    if not (PROGRAMS / "ansible-playbook").exists():
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"ansible-core is not installed, and {REQUIRED} is 1")
        pytest.skip("ansible-core is not installed")
    return Fleet(tmp_path)


def test_check_changes_nothing_and_says_what_would(fleet: Fleet) -> None:
    assert fleet.play("--check") == dict.fromkeys(HOSTS, Recap(1, 0))
    assert [fleet.domains(host) for host in HOSTS] == [[], [], []]


def test_changed_once_and_ok_after_that(fleet: Fleet) -> None:
    assert fleet.play() == dict.fromkeys(HOSTS, Recap(1, 0))
    assert [fleet.domains(host) for host in HOSTS] == [["vm1", "vm2"], ["vm1", "vm2"], ["drives", "quarantine"]]
    assert fleet.play() == fleet.play("--check") == dict.fromkeys(HOSTS, Recap(0, 0))


def test_one_host_s_failure_does_not_hide_the_others(fleet: Fleet) -> None:
    document = fleet.example / "documents/compute2.toml"
    document.write_text(document.read_text().replace("pasid = 2", "pasid = 1000000"))
    assert fleet.play() == {"compute1": Recap(1, 0), "compute2": Recap(0, 1), "storage1": Recap(1, 0)}
    assert fleet.domains("compute2") == []


def test_what_a_document_does_not_name_goes_when_it_is_asked_for(fleet: Fleet) -> None:
    fleet.play()
    document = fleet.example / "documents/storage1.toml"
    text = document.read_text()
    document.write_text(
        text[: text.index("[domain.quarantine]")]
        + text[text.index('[device."0000:5e') : text.index('[device."0000:5f')]
    )
    assert fleet.play()["storage1"] == Recap(0, 0)
    assert fleet.play("-e", "iommuctl_prune=true")["storage1"] == Recap(1, 0)
    assert fleet.domains("storage1") == ["drives"]
