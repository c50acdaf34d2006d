# SPDX-License-Identifier: Apache-2.0
"""VMs for the tests of this folder: skipped with the reason where there are none, a failure where they are required."""

import os
from collections.abc import Callable

import pytest

from tests.differential.qemu import REQUIRED, Installed, NoQemu
from tests.differential.qemu import find as find_qemu
from tests.linux.architecture import Architecture
from tests.linux.vm import Kit, NoVm, find


@pytest.fixture(scope="session")
def parts() -> Callable[[Architecture], tuple[Installed, Kit]]:
    """What VMs of an architecture are made of."""

    def found(architecture: Architecture) -> tuple[Installed, Kit]:
        try:
            return find_qemu(architecture.processor, architecture.needed), find(architecture.processor)
        except (NoQemu, NoVm) as error:
            if os.environ.get(REQUIRED) == "1":
                pytest.fail(f"{error}, and {REQUIRED} is 1")
            pytest.skip(str(error))

    return found
