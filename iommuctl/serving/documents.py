# SPDX-License-Identifier: Apache-2.0
"""What programs are asked about a group of page requests, as JSON holds it."""

from typing import Any

from iommuctl.handlers import Waiting
from iommuctl.model import Binding

SCHEMA = 1


def question(waiting: Waiting) -> dict[str, Any]:
    """A group, and the table that its slot holds, spelt as `topology -j` and `fault list -j` have them."""
    group, held = waiting.group, waiting.held
    assert held
    bound = held if isinstance(held, Binding) else None
    return {
        "schema": SCHEMA,
        "id": group.id,
        "rid": str(group.slot.rid),
        "pasid": group.slot.pasid,
        "domain": held.domain.name,
        "pgtable": f"{bound.root:#x}" if bound else None,
        "pgtable_name": bound.pgtable if bound else None,
        "kind": "bind" if bound else "attach",
        "requests": [
            {
                "iova": f"{each.iova:#x}",
                "access": "r" * each.read + "w" * each.write + "x" * each.execute,
                "privileged": each.privileged,
            }
            for each in group.requests
        ],
    }
