# SPDX-License-Identifier: Apache-2.0
"""VMs for the tests of this folder: skipped with the reason where there are none, a failure where they are required."""

import os

import pytest

from tests.differential.qemu import REQUIRED, Installed, NoQemu
from tests.differential.qemu import find as find_qemu
from tests.linux.devices import NEEDED
from tests.linux.vm import Kit, NoVm, find


@pytest.fixture(scope="session")
def parts() -> tuple[Installed, Kit]:
    """What VMs are made of."""
    try:
        return find_qemu("x86_64", NEEDED), find("x86_64")
    except (NoQemu, NoVm) as error:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{error}, and {REQUIRED} is 1")
        pytest.skip(str(error))
