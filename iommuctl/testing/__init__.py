# SPDX-License-Identifier: Apache-2.0
"""The conformance suite: what every backend must do, as tests that a backend's author runs against it.

In `conftest.py` at the top of the author's tests:

    pytest_plugins = ["iommuctl.testing.plugin"]

and in a test file, one class for each suite and configuration:

    from iommuctl.capabilities import Capabilities
    from iommuctl.testing import DomainSuite, SlotSuite

    class Mine:
        backend = "mine"
        declares = Capabilities(simulates=True, physical_addresses=True, pasid_bits=20)

    class TestDomains(Mine, DomainSuite): ...
    class TestSlots(Mine, SlotSuite): ...

`python -m iommuctl.testing.run mine` runs all suites as they are. BackendSuite has the attributes that can be set.

What the backend declares selects the tests: what is declared must work, what is not must be refused. Each test that
needs a capability has a counterpart for backends that lack it. The others are deselected; a backend that declares less
than its author thinks is found by `declares`, which must equal what it says.
"""

import pytest

_SUITES = """base context_tables declaration domains hitless invalidation machine nesting
one_parent probes refusals refusals_nested slots topology undo"""
pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in _SUITES.split()))

from iommuctl.testing.base import BackendSuite  # noqa: E402
from iommuctl.testing.context_tables import ContextTableSuite  # noqa: E402
from iommuctl.testing.declaration import DeclarationSuite  # noqa: E402
from iommuctl.testing.domains import DomainSuite  # noqa: E402
from iommuctl.testing.hitless import HitlessSuite  # noqa: E402
from iommuctl.testing.invalidation import InvalidationSuite  # noqa: E402
from iommuctl.testing.nesting import NestingSuite  # noqa: E402
from iommuctl.testing.one_parent import OneParentSuite  # noqa: E402
from iommuctl.testing.refusals import RefusalSuite  # noqa: E402
from iommuctl.testing.refusals_nested import NestedRefusalSuite  # noqa: E402
from iommuctl.testing.selection import lacks, needs  # noqa: E402
from iommuctl.testing.slots import SlotSuite  # noqa: E402
from iommuctl.testing.stateful import StatefulSuite  # noqa: E402
from iommuctl.testing.topology import TopologySuite  # noqa: E402
from iommuctl.testing.undo import UndoSuite  # noqa: E402

__all__ = [
    "BackendSuite",
    "ContextTableSuite",
    "DeclarationSuite",
    "DomainSuite",
    "HitlessSuite",
    "InvalidationSuite",
    "NestedRefusalSuite",
    "NestingSuite",
    "OneParentSuite",
    "RefusalSuite",
    "SlotSuite",
    "StatefulSuite",
    "TopologySuite",
    "UndoSuite",
    "lacks",
    "needs",
]
