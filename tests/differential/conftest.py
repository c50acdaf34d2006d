# SPDX-License-Identifier: Apache-2.0
"""QEMU for the tests of these folders: skipped with the reason where there is none, a failure where it is required."""

import os
from collections.abc import Iterator

import pytest

from tests.differential.architecture import Architecture
from tests.differential.qemu import REQUIRED, NoQemu
from tests.differential.report import Machines


def started(architecture: Architecture) -> Iterator[Machines]:
    """QEMU processes, which are ended after the first one was taken."""
    try:
        found = Machines(architecture)
    except NoQemu as error:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{error}, and {REQUIRED} is 1")
        pytest.skip(str(error))
    with found:
        yield found
