# SPDX-License-Identifier: Apache-2.0
"""QEMU with its SMMUv3."""

from collections.abc import Iterator

import pytest

from tests.differential.conftest import started
from tests.differential.report import Machines
from tests.differential.smmuv3.architecture import ARCHITECTURE


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    """QEMU processes that all tests of a session share."""
    yield from started(ARCHITECTURE)
