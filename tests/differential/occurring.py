# SPDX-License-Identifier: Apache-2.0
"""Whether random configurations are of every kind, looked at no longer than it takes to see it."""

from collections.abc import Iterable


def without(found: Iterable[str], kinds: Iterable[str]) -> set[str]:
    """The kinds that do not occur."""
    missing = set(kinds)
    for one in found:
        missing.discard(one)
        if not missing:
            break
    return missing
