# SPDX-License-Identifier: Apache-2.0
"""The program on a kernel with iommufd, and how these tests run it."""

import os

from tests.hardware.machines import IOMMU, drivers
from tests.hardware.shell import Shell


def test_iommufd_opens() -> None:
    descriptor = os.open(IOMMU, os.O_RDWR | os.O_CLOEXEC)
    os.close(descriptor)


def test_a_command_is_a_process_of_its_own(program: Shell) -> None:
    """What is forked from the server answers as what is started anew."""
    listed = program.json("backend", "list")["backends"]
    assert {"vtd", "smmuv3", "sim"} <= {each["name"] for each in listed}


def test_a_forked_command(shell: Shell) -> None:
    assert {"vtd", "smmuv3", "sim"} <= {each["name"] for each in shell.json("backend", "list")["backends"]}
    error = shell.refused("domain", "show", "nobody")
    assert error["id"] == "no-such-domain"
    shell("--backend", "sim", "domain", "create", "d")
    shell.batch("domain create e\ndomain create f\n")
    assert [domain["name"] for domain in shell.json("domain", "list")["domains"]] == ["d", "e", "f"]
    assert drivers()
