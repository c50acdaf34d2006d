# SPDX-License-Identifier: Apache-2.0
"""Imports point down, as the design draws them; looked up in the source, so that lazy imports count as well."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
TREES = {"iommuctl": ROOT / "iommuctl"} | {
    path.name: path for path in sorted((ROOT / "backends").glob("*/iommuctl_*")) if path.is_dir()
}

# Every part of the core may import what is in its own group and in those above it in this list.
LAYERS: list[set[str]] = [
    {"errors", "model", "numbers", "capabilities", "formats", "iommufd", "spelling"},
    {"architecture", "audit", "hookspecs", "page_groups", "page_requests", "recorded", "requests", "kernel"},
    {"plugins"},
    {"state", "handlers"},
    {
        "iommu",
        "objects",
        "pgtables",
        "simulation",
        "session",
        "first_use",
        "labels",
        "rules",
        "nesting",
        "slots",
        "pools",
        "cd_pools",
        "accounts",
        "demand",
        "faulting",
        "faults",
        "guest",
        "mapping",
        "handler_rules",
        "hardware",
        "named_memory",
        "page_faults",
        "translating",
    },
    {"plan", "inspect", "serving"},
    {"cli", "complete"},
    {"__main__"},
]
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
BESIDE = {"testing"}  # may use all but the command line, and nothing uses it
OF_BACKENDS = {part for parts in LAYERS[:2] for part in parts}
VENDORS = re.compile(r"\b(vt-?d|smmu(v3)?|intel|arm)\b|iommuctl_(vtd|smmuv3|sim)", re.IGNORECASE)


class Import(NamedTuple):
    """That `module` imports `target`, both by their full names, and at which line."""

    module: str
    target: str
    line: int


def modules() -> Iterator[tuple[str, Path]]:
    for name, tree in TREES.items():
        for path in sorted(tree.rglob("*.py")):
            parts = path.relative_to(tree).with_suffix("").parts
            yield ".".join((name, *(part for part in parts if part != "__init__"))), path


def imports() -> Iterator[Import]:
    known = {name for name, _ in modules()}
    for module, path in modules():
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(module, alias.name, node.lineno)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
                assert node.module
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield Import(module, whole if whole in known else node.module, node.lineno)


IMPORTS = list(imports())


def part(module: str) -> str:
    """The part of the core that a module belongs to: `iommuctl.state.books` to `state`."""
    return [*module.split("."), ""][1]


def listed(wrong: list[Import]) -> str:
    return "\n".join(f"{one.module}, line {one.line}: imports {one.target}" for one in wrong)


def test_every_module_was_looked_at() -> None:
    assert {"iommuctl", "iommuctl_sim", "iommuctl_vtd", "iommuctl_smmuv3"} <= set(TREES)
    assert {name for name, _ in modules()} >= {"iommuctl.iommu", "iommuctl.state.books", "iommuctl_vtd.driver"}
    assert Import("iommuctl.iommu", "iommuctl.session", 0)[:2] in {one[:2] for one in IMPORTS}


def test_every_part_of_the_core_has_a_place() -> None:
    """A new part is put into LAYERS, and into the design."""
    parts = {part(name) for name, _ in modules() if name.startswith("iommuctl.")}
    assert parts - {""} <= set(RANK) | BESIDE


def test_the_core_imports_downwards() -> None:
    wrong = [
        one
        for one in IMPORTS
        if one.module.split(".")[0] == one.target.split(".")[0] == "iommuctl"
        and part(one.module) in RANK
        and part(one.target) != ""
        and RANK.get(part(one.target), 99) > RANK[part(one.module)]
    ]
    assert not wrong, listed(wrong)


def test_the_package_itself_offers_the_library_and_nothing_else() -> None:
    assert {one.target for one in IMPORTS if one.module == "iommuctl" and "iommuctl" in one.target} == {
        "iommuctl.iommu"
    }


def test_the_state_knows_nothing_of_what_stands_on_it() -> None:
    wrong = [one for one in IMPORTS if part(one.module) == "state" and part(one.target) in LAYERS[4]]
    assert not wrong, listed(wrong)


def test_testing_uses_all_but_the_command_line() -> None:
    wrong = [
        one
        for one in IMPORTS
        if (part(one.module) == "testing" and one.module.startswith("iommuctl.") and part(one.target) == "cli")
        or (one.target.startswith("iommuctl.testing") and part(one.module) not in ("testing", "cli"))
    ]
    assert not wrong, listed(wrong)


def test_backends_import_the_core_up_to_the_hooks() -> None:
    wrong = [
        one
        for one in IMPORTS
        if one.module.startswith("iommuctl_")
        and one.target.split(".")[0] == "iommuctl"
        and part(one.target) not in OF_BACKENDS
    ]
    assert not wrong, listed(wrong)


def test_backends_do_not_import_each_other() -> None:
    wrong = [
        one
        for one in IMPORTS
        if one.module.startswith("iommuctl_")
        and one.target.startswith("iommuctl_")
        and one.module.split(".")[0] != one.target.split(".")[0]
    ]
    assert not wrong, listed(wrong)


def test_the_core_imports_no_backend() -> None:
    wrong = [one for one in IMPORTS if one.module.startswith("iommuctl.") and one.target.startswith("iommuctl_")]
    assert not wrong, listed(wrong)


@pytest.mark.parametrize(
    ("library", "users"),
    [("typer", {"cli"}), ("click", set()), ("rich", {"cli"}), ("pluggy", {"plugins", "hookspecs", "session"})],
)
def test_libraries_stay_where_they_belong(library: str, users: set[str]) -> None:
    wrong = [
        one
        for one in IMPORTS
        if one.target.split(".")[0] == library
        and not (one.module.startswith("iommuctl.") and part(one.module) in users)
    ]
    assert not wrong, listed(wrong)


def test_one_module_knows_rich() -> None:
    assert {one.module for one in IMPORTS if one.target.split(".")[0] == "rich"} <= {"iommuctl.cli.render"}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Names and strings of a module with their lines. Docstrings are left out: their examples are for readers."""
    tree = ast.parse(path.read_text())
    docstrings = set()
    for node in ast.walk(tree):
        for statement in node.body if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) else ():
            if isinstance(statement, ast.Expr):
                docstrings.add(statement.value)
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if node not in docstrings:
                yield node.lineno, text
            case ast.Name(id=text) | ast.Attribute(attr=text):
                yield node.lineno, text


def test_the_core_knows_no_vendor_by_name() -> None:
    """But for the table of built-in plugins, and examples in help texts."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for module, path in modules()
        if module.startswith("iommuctl.") and module != "iommuctl.plugins" and part(module) != "cli"
        for line, text in texts(path)
        if VENDORS.search(text)
    ]
    assert not wrong, "\n".join(wrong)
