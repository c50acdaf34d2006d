# SPDX-License-Identifier: Apache-2.0
"""A host of files, and a device that is held open, for each test that asks for them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.iommufd.host import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def terminal() -> Iterator[int]:
    """A device that we alone hold open, by this descriptor: a pseudo-terminal."""
    ours, theirs = os.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)
