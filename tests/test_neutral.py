# SPDX-License-Identifier: Apache-2.0
"""Nothing outside the vendors' packages asks which architecture or backend it is: what is declared decides."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TREES = [ROOT / "iommuctl", *sorted((ROOT / "backends").glob("*/iommuctl_*"))]
OF_VENDORS = {"iommuctl_vtd", "iommuctl_smmuv3"}
FILES = [path for tree in TREES if tree.name not in OF_VENDORS for path in sorted(tree.rglob("*.py"))]
BUILT_IN = ROOT / "iommuctl" / "plugins.py"
"""Has the tables of built-in names."""

NAMES = re.compile(r"(arch|architecture|vendor|backend)(_name)?")
"""What holds the name of a vendor or of a backend."""
WORDS = re.compile(r"(iommuctl_)?(vtd|smmuv3|intel|arm)([.-].*)?", re.IGNORECASE)
"""Names of vendors, and of what is theirs (`vtd.pasid-entry`)."""


def decisions(tree: ast.AST) -> Iterator[ast.expr]:
    """The operands of comparisons, the patterns of `match`, the tests of prefixes, and the keys of tables."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare():
                yield from (node.left, *node.comparators)
            case ast.MatchValue():
                yield node.value
            case ast.Call(func=ast.Attribute(attr="startswith" | "endswith" | "removeprefix" | "get")):
                yield from node.args
            case ast.Dict():
                yield from filter(None, node.keys)
            case ast.Subscript():
                yield node.slice


def vendors(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Where a name of a vendor decides something."""
    for expression in decisions(tree):
        for node in ast.walk(expression):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and WORDS.fullmatch(node.value):
                yield node.lineno, node.value


def questions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Where the name of an architecture or backend is compared with a word, whichever it is."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        parts = [part for operand in (node.left, *node.comparators) for part in ast.walk(operand)]
        named = [part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", "") for part in parts]
        words = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        if words and any(map(NAMES.fullmatch, named)):
            yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize(
    "text",
    [
        "if arch == 'vtd': pass",
        "if iommu.architecture != 'x': pass",
        "if 'sim' in (backend, 1): pass",
        "x = 1 if name == 'smmuv3' else 2",
        "if name in ('vtd', 'smmuv3'): pass",
        "match name:\n case 'vtd': pass",
        "if kind.startswith('vtd.'): pass",
        "TABLE = {'smmuv3': 1}",
        "TABLE['vtd.pasid-entry']",
    ],
)
def test_what_is_looked_for_is_found(text: str) -> None:
    tree = ast.parse(text)
    assert [*vendors(tree), *questions(tree)]


@pytest.mark.parametrize("text", ["if arch == wanted: pass", "if name is None: pass", "'smmuv3 and vtd' == text"])
def test_what_is_allowed_is_not(text: str) -> None:
    tree = ast.parse(text)
    assert not [*vendors(tree), *questions(tree)]


def test_every_file_is_looked_at() -> None:
    names = {str(path.relative_to(ROOT)) for path in FILES}
    assert {"iommuctl/iommu.py", "iommuctl/cli/sim.py", "backends/sim/iommuctl_sim/system.py"} <= names
    assert not {name for name in names if "iommuctl_vtd" in name}


def test_no_vendor_decides_anything() -> None:
    trees = {path: ast.parse(path.read_text("utf-8")) for path in FILES if path != BUILT_IN}
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path, tree in trees.items()
        for line, what in (*vendors(tree), *questions(tree))
    ]
    assert not found, "\n".join(found)
