# SPDX-License-Identifier: Apache-2.0
"""The order in which changes are carried out."""

from iommuctl.plan.steps import steps
from tests.plan.test_diff import RID, STATE, found


def order(old: str, new: str) -> list[str]:
    return [f"{step.verb} {step.change.key}" for step in steps(found(old, new, prune=True))]


def test_what_is_needed_is_made_first_and_taken_down_last() -> None:
    expected = [
        "memory m", "memory other", "domain vm", "domain host", "mapping 0x0 of vm", "mapping 0x400000 of vm",
        "pgtable t", f"device {RID}", f"attachment {RID}", f"attachment {RID} PASID 1", f"attachment {RID} PASID 2",
        f"binding {RID}", f"binding {RID} PASID 3",
    ]  # fmt: skip
    assert order("schema = 1", STATE) == [f"make {name}" for name in expected]
    # Mappings go with their domain.
    down = [f"take down {name}" for name in reversed(expected) if "mapping" not in name]
    later = [name for name in down if any(kind in name for kind in ("device", "domain", "memory"))]
    assert order(STATE, "schema = 1") == [*(name for name in down if name not in later), *later]


def test_an_attachment_leaves_a_domain_before_it_goes() -> None:
    base = "schema = 1\n[domain.old]\n[device.'00:01.0']\nattachments = [{ domain = 'old' }]\n"
    assert order(base, base.replace("old", "new")) == [
        "make domain new", f"alter attachment {RID}", "take down domain old",
    ]  # fmt: skip


def test_memory_that_is_replaced_is_free_of_a_domain_that_is_removed() -> None:
    base = "schema = 1\nmemory.m.size = '4K'\n"
    domain = "[domain.d]\nmappings = [{ iova = 0, size = '4K', memory = 'm' }]"
    assert order(base + domain, base.replace("4K", "8K")) == [
        "take down mapping 0x0 of d", "take down memory m", "make memory m", "take down domain d",
    ]  # fmt: skip
