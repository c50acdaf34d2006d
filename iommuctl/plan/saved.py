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
    """A plan, or a document by itself: TOML, or JSON as `export -j` prints it. Raises BadDocument."""
    if not text.lstrip().startswith("{"):
        return SavedPlan(Source(name, text))
    body = _json(name, text)
    if "iommuctl-plan" not in body:
        return SavedPlan(Source(name, text, body))
    if body["iommuctl-plan"] != VERSION:
        raise _neither(name, f"it is no plan of version {VERSION}")
    document, of, prune, state = (body.get(key) for key in ("document", "name", "prune", "state"))
    if not (isinstance(document, str) and isinstance(of, str) and isinstance(prune, bool) and isinstance(state, str)):
        raise _neither(name, "it is not complete")
    in_json = document.lstrip().startswith("{")
    return SavedPlan(Source(of, document, _json(of, document) if in_json else None), prune, state)


def _json(name: str, text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise _neither(name, "it begins as JSON and is none")
    return body


def _neither(name: str, because: str) -> BadDocument:
    return BadDocument(
        f"{name} is neither a topology document nor a plan",
        because=because,
        hint="a document is what `iommuctl export` prints; a plan is what `iommuctl plan --out` wrote",
    )
