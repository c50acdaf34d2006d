# SPDX-License-Identifier: Apache-2.0
"""A plan in a file: the document, and the state that it was made for. `apply` tells it from a document by itself."""

import json
from typing import Any, NamedTuple

from iommuctl.errors import BadDocument
from iommuctl.plan.source import Source

VERSION = 1


class SavedPlan(NamedTuple):
    """A document and how it is to be applied. `state` is None when it is no plan, but the document itself."""

    source: Source
    prune: bool = False
    state: str | None = None


def dump(plan: SavedPlan) -> str:
    """The plan as text."""
    body = {"document": plan.source.text, "name": plan.source.name, "prune": plan.prune, "state": plan.state}
    return json.dumps({"iommuctl-plan": VERSION, **body}, indent=1) + "\n"


def load(name: str, text: str) -> SavedPlan:
    """A plan, or a document by itself. Raises BadDocument."""
    if not text.lstrip().startswith("{"):
        return SavedPlan(Source(name, text))
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise _no_plan(name, "it is not JSON") from None
    if not isinstance(body, dict) or body.get("iommuctl-plan") != VERSION:
        raise _no_plan(name, f"it has no `iommuctl-plan` {VERSION}")
    document, of, prune, state = (body.get(key) for key in ("document", "name", "prune", "state"))
    if not (isinstance(document, str) and isinstance(of, str) and isinstance(prune, bool) and isinstance(state, str)):
        raise _no_plan(name, "it is not complete")
    return SavedPlan(Source(of, document), prune, state)


def _no_plan(name: str, because: str) -> BadDocument:
    return BadDocument(
        f"{name} is neither a topology document nor a plan",
        because=because,
        hint="a document is TOML, as `iommuctl export` prints it; a plan is what `iommuctl plan --out` wrote",
    )
