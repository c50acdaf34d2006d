# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin of the suites: it leaves out the tests that do not concern a backend.

Load it with `pytest_plugins = ["iommuctl.testing.plugin"]` in the topmost conftest.py.
"""

import pytest

from iommuctl.errors import IommuError
from iommuctl.testing.base import BackendSuite
from iommuctl.testing.selection import concerns


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("iommuctl").addoption(
        "--iommuctl-backend", metavar="NAME", help="the backend of suites whose class names none"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "iommuctl_needs: for backends that declare these capabilities")
    config.addinivalue_line("markers", "iommuctl_lacks: for backends that do not declare this capability")
    if name := config.getoption("--iommuctl-backend"):
        BackendSuite.backend = name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what the backend's declaration says is none of its business."""
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        (kept if _concerns(item) else dropped).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def _concerns(item: pytest.Item) -> bool:
    suite = getattr(item, "cls", None)
    marks = list(item.iter_markers())
    if suite is None or not issubclass(suite, BackendSuite) or not marks:
        return True
    try:
        return concerns(marks, suite.declared())
    except IommuError as error:
        raise pytest.UsageError(f"{suite.__name__}: the backend cannot be asked what it declares\n{error}") from error
