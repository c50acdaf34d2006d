# SPDX-License-Identifier: Apache-2.0
"""Every command as the program declares it, for the reference and the manual pages."""

from collections.abc import Iterator
from inspect import cleandoc
from typing import Any, NamedTuple

from iommuctl.cli.app import COMMANDS, root
from iommuctl.cli.options import GLOBAL_OPTIONS
from iommuctl.cli.session import Session

Records = list[tuple[str, str]]
"""Arguments or options as they are spelt, and what they do."""


class Command(NamedTuple):
    """One command: its words without the program's name, how it is called, its help, what it takes, its examples."""

    words: str
    usage: str
    text: str
    arguments: Records
    options: Records
    examples: str


class Noun(NamedTuple):
    """A noun with its commands, or a command that stands by itself."""

    name: str
    summary: str
    text: str
    commands: list[Command]


def nouns() -> Iterator[Noun]:
    """All of the command line, in the order of the help."""
    for name, (_, summary) in COMMANDS.items():
        found: Any = root().get_command(_context(), name)
        if hasattr(found, "list_commands"):
            yield Noun(name, summary, cleandoc(found.help or ""), list(_inside(found, name)))
        else:
            yield Noun(name, summary, "", [_command(found, name)])


def global_options() -> Records:
    """The options that every command takes."""
    return [_record(param, _context()) for param in GLOBAL_OPTIONS]


def _context() -> Any:
    return root().make_context("iommuctl", ["--quiet"], obj=Session(), resilient_parsing=True)


def _inside(group: Any, words: str) -> Iterator[Command]:
    """The commands of a noun, and of the groups in it."""
    for name in group.list_commands(_context()):
        found = group.get_command(_context(), name)
        if hasattr(found, "list_commands"):
            yield from _inside(found, f"{words} {name}")
        else:
            yield _command(found, f"{words} {name}")


def _command(found: Any, words: str) -> Command:
    context = type(_context())(found, info_name=f"iommuctl {words}", parent=None, obj=Session())
    pieces = " ".join(found.collect_usage_pieces(context)).removesuffix("[OPTIONS]").strip()
    own = [param for param in found.params if param not in GLOBAL_OPTIONS]
    by_kind: dict[str, Records] = {"argument": [], "option": []}
    for param in own:
        if record := _record(param, context):
            by_kind[param.param_type_name].append(record)
    examples = cleandoc(found.epilog or "")
    usage = f"iommuctl {words} {pieces}".strip()
    return Command(words, usage, cleandoc(found.help or ""), by_kind["argument"], by_kind["option"], examples)


def _record(param: Any, context: Any) -> tuple[str, str]:
    spelling, text = param.get_help_record(context)
    return spelling, text.removesuffix("[required]").strip().replace("  [", " [")
