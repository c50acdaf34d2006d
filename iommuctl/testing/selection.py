# SPDX-License-Identifier: Apache-2.0
"""Which tests concern a backend: those that need what it declares, and those about what it does not declare."""

from collections.abc import Iterable

import pytest

from iommuctl.capabilities import Capabilities


def needs(*flags: str, nesting: str | None = None) -> pytest.MarkDecorator:
    """The test is for backends that declare all of these members of Capabilities, and this value of `nesting`."""
    return pytest.mark.iommuctl_needs(*flags, **({"nesting": nesting} if nesting else {}))


def lacks(flag: str) -> pytest.MarkDecorator:
    """The test is for backends that do not declare this member of Capabilities."""
    return pytest.mark.iommuctl_lacks(flag)


def concerns(marks: Iterable[pytest.Mark], declared: Capabilities) -> bool:
    """Whether a test with these marks is for a backend that declares this."""
    for mark in marks:
        if mark.name == "iommuctl_needs":
            if not all(_has(declared, flag) for flag in mark.args):
                return False
            if any(getattr(declared, name) != value for name, value in mark.kwargs.items()):
                return False
        elif mark.name == "iommuctl_lacks" and any(_has(declared, flag) for flag in mark.args):
            return False
    return True


def _has(declared: Capabilities, flag: str) -> bool:
    return getattr(declared, flag) not in (False, 0, (), "none")
