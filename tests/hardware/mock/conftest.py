# SPDX-License-Identifier: Apache-2.0
"""A session on the real iommufd core, with the mock driver behind it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuctl.iommufd.session import Iommufd
from tests.hardware.mock.driver import Mock
from tests.hardware.mock.machine import PAGE, START, Machine


@pytest.fixture
def plugins() -> Path:
    """The backend `mock` is installed, as far as commands can tell."""
    return Path(__file__).parent


@pytest.fixture
def session() -> Iterator[Iommufd]:
    opened = Iommufd.open()
    with contextlib.closing(opened):
        yield opened


@pytest.fixture
def mock(session: Iommufd) -> Mock:
    return Mock(session.fd)


@pytest.fixture
def memfd() -> Iterator[int]:
    """1 MiB in a memfd."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    os.ftruncate(fd, 1 << 20)
    yield fd
    os.close(fd)


@pytest.fixture
def machine(session: Iommufd, mock: Mock, memfd: int) -> Machine:
    """With 8 KiB of the memfd mapped read-only at START."""
    ioas_id = session.ioas_alloc()
    made = Machine(session, mock, ioas_id, mock.add_device(ioas_id), memfd)
    made.map(START, 2 * PAGE)
    return made
