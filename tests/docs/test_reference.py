# SPDX-License-Identifier: Apache-2.0
"""The reference and the pages of structures are what the program says, and leave nothing out."""

import re
import runpy
import subprocess
import sys
from functools import cache

import pytest

from iommuctl import errors
from iommuctl.cli.app import COMMANDS, load
from iommuctl.errors import IommuError
from iommuctl.hookspecs import BackendSpec
from iommuctl.plugins import ARCHITECTURES, structures
from tests.docs.documents import ROOT
from tests.fidelity import JUDGES, judged

FOLDERS = ("structures", "man")


@cache
def committed() -> str:
    return (ROOT / "docs" / "reference.md").read_text("utf-8")


def test_it_is_what_the_program_says() -> None:
    generated: dict[str, str] = runpy.run_path(str(ROOT / "docs" / "generate.py"))["documents"]()
    pages = {f"{path.parent.name}/{path.name}" for folder in FOLDERS for path in (ROOT / "docs" / folder).iterdir()}
    assert pages | {"reference.md", "fidelity.md", "topology.schema.json"} == set(generated), (
        "run `python docs/generate.py`"
    )
    for name, text in generated.items():
        assert (ROOT / "docs" / name).read_text("utf-8") == text, f"run `python docs/generate.py`: {name} differs"


def test_it_names_every_command() -> None:
    for name in COMMANDS:
        command = load(name)
        for path in [f"{name} {sub}" for sub in command.commands] if hasattr(command, "commands") else [name]:
            assert f"`iommuctl {path}" in committed()


def test_it_names_every_error_id() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, IommuError)]
    assert len(kinds) > 30
    for kind in kinds:
        if "id" in vars(kind) and kind is not IommuError:
            assert f"| {kind.exit} | `{kind.id}` |" in committed()


def test_it_names_every_hook_and_structure() -> None:
    for name in vars(BackendSpec):
        if name.startswith("iommuctl_"):
            assert f"| `{name.removeprefix('iommuctl_')}(" in committed()
    for name, layout in structures().items():
        assert f"| [{name}](structures/{name}.md) |" in committed()
        page = (ROOT / "docs" / "structures" / f"{name}.md").read_text("utf-8")
        for other in (layout, *layout.revisions.values()):
            assert all(f" {field.name} |" in page for field in other.fields)


def test_every_structure_has_a_page_that_tells_where_it_is_declared_and_what_is_checked() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "iommuctl", "table", "list", "--brief"], check=True, capture_output=True, text=True
    ).stdout.split()
    pages = ROOT / "docs" / "structures"
    assert listed
    assert {path.stem for path in pages.iterdir()} == set(listed)
    for name in listed:
        layout = structures()[name]
        page = (pages / f"{name}.md").read_text("utf-8")
        package, module = layout.__module__.split(".")
        (link,) = re.findall(r" Declared in \[(.*?)\]\((.*?)\)\.$", page, re.MULTILINE)
        assert link[0] == f"{package}/{module}.py"
        assert re.search(rf'\b(name|variant)="{re.escape(name)}"', (pages / link[1]).read_text("utf-8"))
        for check in layout.checks:
            assert f"\n* {check.field.name} {check.demand}.\n" in page


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_judges_of_fidelity_are_there(name: str) -> None:
    """Each subject says by which tests it is held, or what is missing."""
    for subject in judged(name).SUBJECTS:
        assert set(subject.judged) <= set(JUDGES)
        assert all((ROOT / path).exists() for path in subject.judged.values()), subject.name
        assert subject.judged or subject.left, subject.name
