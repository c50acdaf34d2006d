# SPDX-License-Identifier: Apache-2.0
"""A real kernel answers as the kernel in the process does, with which killed commands are tested."""

import errno
from collections.abc import Iterator
from fcntl import ioctl
from typing import Any

import pytest

from iommuctl.iommufd import drivers
from iommuctl.iommufd.session import Iommufd
from iommuctl.iommufd.sysfs import Sysfs
from iommuctl.iommufd.vfio import Cdev
from iommuctl.model import Rid
from tests.kernel.calling import FIRST, SECOND, Process
from tests.kernel.commands import BOTH, COMMANDS
from tests.kernel.rules import RULES, Rule

RIDS = {FIRST: Rid.parse("00:10.0"), SECOND: Rid.parse("00:11.0")}


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, str]]:
    """The VFIO devices of two that have no PASIDs."""
    sysfs = Sysfs()
    before = {rid: sysfs.device(rid) for rid in RIDS.values()}
    try:
        for rid in RIDS.values():
            drivers.bind_to_vfio(sysfs, rid)
        yield {name: sysfs.device(rid).cdev or "" for name, rid in RIDS.items()}
    finally:
        for rid, device in before.items():
            drivers.give_back(sysfs, rid, device.driver, device.driver_override)


@pytest.fixture
def process(nodes: dict[str, str]) -> Iterator[Process]:
    def call(descriptor: int, request: int, argument: Any) -> None:
        ioctl(descriptor, request, argument)

    made = Process(call, Iommufd.open().fd, {name: Cdev.open(node).fd for name, node in nodes.items()})
    yield made
    made.end()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rules_are_the_kernels(process: Process, rule: Rule) -> None:
    rule(process)


def test_the_commands_are_those_that_the_kernel_takes(process: Process) -> None:
    viommu = process.viommu(process.parent())
    process.vdevice(viommu)
    for which, (first, second) in COMMANDS:
        wanted = (0, 1) if which == BOTH else (errno.EIO, 0)
        assert process.invalidate(viommu, (first, second)) == wanted, f"{first:#x} {second:#x}"
