# SPDX-License-Identifier: Apache-2.0
"""QEMU for the tests of this folder: skipped with the reason where there is none, a failure where it is required."""

import os
from collections.abc import Iterator

import pytest

from tests.differential.qemu import REQUIRED, NoQemu
from tests.differential.report import Machines


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    """QEMU processes that all tests of a session share."""
    try:
        found = Machines()
    except NoQemu as error:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{error}, and {REQUIRED} is 1")
        pytest.skip(str(error))
    with found:
        yield found
