# SPDX-License-Identifier: Apache-2.0
"""The reference is what the program says, and leaves nothing out."""

import runpy
from functools import cache

from iommuctl import errors
from iommuctl.cli.app import COMMANDS, load
from iommuctl.errors import IommuError
from iommuctl.hookspecs import BackendSpec
from iommuctl.plugins import structures
from tests.docs.documents import ROOT


@cache
def committed() -> str:
    return (ROOT / "docs" / "reference.md").read_text("utf-8")


def test_it_is_what_the_program_says() -> None:
    printed: str = runpy.run_path(str(ROOT / "docs" / "generate.py"))["reference"]()
    assert committed() == printed, "run `python docs/generate.py > docs/reference.md`"


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
        assert f"### {name}\n" in committed()
        assert all(f" {field.name} |" in committed() for field in layout.fields)
