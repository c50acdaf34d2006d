# SPDX-License-Identifier: Apache-2.0
"""Where these tests run, commands on real hardware, and a machine that is as before when a test is over."""

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

from tests.hardware import machines
from tests.hardware.aftermath import give_back, holders
from tests.hardware.shell import Server, Shell

REQUIRED = "IOMMUCTL_REQUIRE_LAB"
"""With this set to 1, a machine that lacks what a test needs is a failure, not a reason to skip."""
_HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    for name, without in machines.NEEDS.items():
        reason = (without.__doc__ or "").partition(":")[0]
        config.addinivalue_line("markers", f"{name}: {reason}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test is marked with the machine that it needs: by itself, or as the folder that it lies in."""
    for item in items:
        if item.path.is_relative_to(_HERE) and not needed(item):
            item.add_marker(item.path.relative_to(_HERE).parts[0])


def needed(item: pytest.Item) -> list[str]:
    """The machines that a test is marked with."""
    return [name for name in machines.NEEDS if item.get_closest_marker(name)]


@cache
def why_not(name: str) -> str:
    return machines.without(name)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.path.is_relative_to(_HERE) and (reason := next(filter(None, map(why_not, needed(item))), "")):
        lacking(reason)


def lacking(reason: str) -> NoReturn:
    """The machine has not what the test needs, for this reason."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[Path | None], Server]]:
    """The process that forks commands, for each folder of plugins."""
    running: dict[Path | None, Server] = {}

    def server(plugins: Path | None) -> Server:
        if plugins not in running:
            running[plugins] = Server(plugins)
        return running[plugins]

    yield server
    for each in running.values():
        each.close()


@pytest.fixture
def plugins() -> Path | None:
    """A folder with the metadata of plugins that are not installed."""
    return None


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder that does not exist yet.

    When the test is over: its keeper has ended, the devices have their drivers back, and nobody holds /dev/iommu open,
    by which all of the kernel's objects are gone.
    """
    before, held = machines.drivers(), holders()
    folder = tmp_path / "state"
    yield folder
    give_back(folder, before)
    assert machines.drivers() == before, "a device did not get its driver back"
    assert holders() <= held, "somebody still holds /dev/iommu open"


@pytest.fixture
def shell(state: Path, plugins: Path | None, servers: Callable[[Path | None], Server]) -> Shell:
    """Commands in `state`, forked from a process with the modules loaded."""
    return Shell(state, plugins, servers(plugins))


@pytest.fixture
def program(state: Path, plugins: Path | None) -> Shell:
    """Commands in `state`, each started as `python -m iommuctl`: seconds each on an emulated machine."""
    return Shell(state, plugins)
