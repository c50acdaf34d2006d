# SPDX-License-Identifier: Apache-2.0
"""How much of what takes long: all of it with IOMMUCTL_THOROUGH=1, as in CI, else a part."""

import os

THOROUGH = os.environ.get("IOMMUCTL_THOROUGH") == "1"
_STRIDE = 9


def share(whole: int) -> int:
    """How many of so many random walks."""
    return whole if THOROUGH else -(-whole // _STRIDE)


def moments(last: int) -> list[int]:
    """At which of the moments 1..last something is to happen: the first and the last always."""
    return list(range(1, last + 1)) if THOROUGH else sorted({*range(1, last + 1, _STRIDE), last})
