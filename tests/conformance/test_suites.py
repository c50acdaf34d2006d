# SPDX-License-Identifier: Apache-2.0
"""The suites find what they are for: backends with one mistake each, and declarations that are wrong."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from iommuctl.capabilities import Capabilities
from iommuctl.testing import lacks, needs
from iommuctl.testing.selection import concerns
from iommuctl_vtd import tags
from iommuctl_vtd.scalable_driver import ScalableDriver as Driver
from iommuctl_vtd.tables import Tables
from tests.conformance.test_sim import Default

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def outcome(pytester: pytest.Pytester) -> Callable[..., dict[str, int]]:
    """How many tests of a suite passed and failed on a backend, in this very process."""

    def run(suite: str, keyword: str = "", *, declares: Capabilities | None = None) -> dict[str, int]:
        pytester.makepyfile(
            test_it=f"""
            from iommuctl.capabilities import Capabilities
            from iommuctl.testing import {suite}

            class TestIt({suite}):
                backend = "sim"
                declares = {declares}
            """
        )
        result = pytester.inline_run("-p", "iommuctl.testing.plugin", "-p", "no:cacheprovider", "-k", keyword)
        counts = zip(("passed", "skipped", "failed"), result.countoutcomes(), strict=True)
        return {name: count for name, count in counts if count}

    return run


def without_flush(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Have a method of the driver send nothing to the unit."""
    original = getattr(Driver, method)

    def mistaken(self: Driver, *arguments: Any, **options: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(self, "_submit", lambda *_ignored: None)
            original(self, *arguments, **options)

    monkeypatch.setattr(Driver, method, mistaken)


@pytest.mark.parametrize(
    ("method", "suite", "keyword"),
    [
        ("unmap", "DomainSuite", "unmapped"),
        ("unmap", "TopologySuite", "stale"),
        ("install", "SlotSuite", "comes_back"),
        ("install", "InvalidationSuite", "takes_a_table_off"),
        ("invalidate", "InvalidationSuite", "serves or ends"),
    ],
)
def test_a_flush_that_is_missing(
    outcome: Callable[..., dict[str, int]], monkeypatch: pytest.MonkeyPatch, method: str, suite: str, keyword: str
) -> None:
    without_flush(monkeypatch, method)
    assert outcome(suite, keyword).get("failed")


def test_tags_that_alias(outcome: Callable[..., dict[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "_pair", lambda binding: f"{binding.domain.id} {binding.format}")
    assert outcome("TopologySuite", "on_one_parent") == {"failed": 1}
    assert outcome("TopologySuite", "on_two_parents") == {"passed": 1}


def test_one_invalidation_that_reaches_one_slot(
    outcome: Callable[..., dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Driver.invalidate
    monkeypatch.setattr(
        Driver, "invalidate", lambda self, bindings, span, *, leaf: original(self, bindings[:1], span, leaf=leaf)
    )
    assert outcome("TopologySuite", "one_invalidation") == {"failed": 1}


def test_a_replacement_that_blocks(outcome: Callable[..., dict[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    original = Tables.swap_pasid

    def swap(self: Tables, rid: Any, pasid: int, entry: int) -> Any:
        self.clear_pasid(rid, pasid)
        return original(self, rid, pasid, entry)

    monkeypatch.setattr(Tables, "swap_pasid", swap)
    assert outcome("HitlessSuite") == {"failed": 3}
    assert outcome("SlotSuite", "replace") == {"passed": 2}


def declare(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    original = Driver.capabilities
    monkeypatch.setattr(Driver, "capabilities", lambda self: original(self)._replace(**changes))


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"execute_permission": True}, "test_execute_permission"),
        ({"widths": (39, 47, 48, 57)}, "test_every_width"),
        ({"page_sizes": (4096, 1 << 16)}, "test_every_page_size"),
        ({"nesting": "none"}, "makes_sense"),
    ],
)
def test_a_declaration_that_does_not_hold(
    outcome: Callable[..., dict[str, int]], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], failed: str
) -> None:
    declare(monkeypatch, **changes)
    assert outcome("DeclarationSuite", failed).get("failed") == 1


def test_a_capability_that_was_forgotten(
    outcome: Callable[..., dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tests are left out, so what the author meant to declare is compared with what the backend declares."""
    declare(monkeypatch, hitless_replace=False)
    assert outcome("HitlessSuite") == {}
    assert outcome("DeclarationSuite", "is_meant") == {"passed": 1}
    assert outcome("DeclarationSuite", "is_meant", declares=Default.declares) == {"failed": 1}


def test_what_a_declaration_selects() -> None:
    def selected(decorator: pytest.MarkDecorator, declared: Capabilities) -> bool:
        return concerns([decorator.mark], declared)

    nothing, all_of_it = Capabilities(), Default.declares
    assert [selected(needs("nesting"), declared) for declared in (nothing, all_of_it)] == [False, True]
    assert [selected(lacks("nesting"), declared) for declared in (nothing, all_of_it)] == [True, False]
    assert [selected(needs(nesting="slot"), declared) for declared in (nothing, all_of_it)] == [False, True]
    assert [selected(needs(nesting="device"), declared) for declared in (nothing, all_of_it)] == [False, False]
    assert not selected(needs("simulates", "dirty_tracking"), all_of_it)
    assert selected(pytest.mark.parametrize, nothing)
    with pytest.raises(AttributeError):
        selected(needs("nestings"), nothing)


def test_every_capability_has_tests_from_both_sides() -> None:
    """A flag that no test needs, or whose absence no test looks at, would be one that means nothing."""
    from iommuctl import testing

    seen: dict[str, set[str]] = {"iommuctl_needs": set(), "iommuctl_lacks": set()}
    for name in testing.__all__:
        suite = getattr(testing, name)
        for holder in (suite, *vars(suite).values()) if isinstance(suite, type) else ():
            for mark in getattr(holder, "pytestmark", []):
                if mark.name in seen:
                    seen[mark.name] |= {*mark.args, *mark.kwargs}
    flags = set(Capabilities().flags())
    assert seen["iommuctl_needs"] - {"pasid_bits"} == flags
    # Replacing must work whether it is hitless or not: nothing is to be refused.
    assert seen["iommuctl_lacks"] - {"pasid_bits"} == flags - {"hitless_replace"}


def test_the_ready_command() -> None:
    command = [sys.executable, "-m", "iommuctl.testing.run"]
    good = subprocess.run([*command, "sim", "-k", "makes_sense", "-q"], check=False, text=True, capture_output=True)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "1 passed" in good.stdout
    bad = subprocess.run([*command, "of-nobody"], check=False, text=True, capture_output=True)
    assert bad.returncode == 1
    assert "there is no backend 'of-nobody'" in bad.stderr + bad.stdout
