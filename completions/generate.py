# SPDX-License-Identifier: Apache-2.0
"""The part of each completion script that the program itself says: `python completions/generate.py`.

A command is its path, as `domain map`. It takes verbs, or arguments and options. An argument is described by what can
stand there: words and metavars, joined by `|`, empty where nothing can be offered. An option is `--name=WHAT`, or
`--name` where no value follows; names of one option are joined by commas, and `*` stands before one that may be
given again.
"""

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from iommuctl import Iommu
from iommuctl.cli.app import root
from iommuctl.cli.session import Session
from iommuctl.complete import QUERIES
from iommuctl.plugins import ARCHITECTURES, BACKENDS, structures

FOLDER = Path(__file__).resolve().parent
FILES = {"FILE", "DIR"}
Options = list[tuple[str, str]]
"""Options as the tables have them, each with its help."""
Words = dict[str, list[str]]
"""By their metavar."""

_PLACE = re.compile(r"(?<=^# -- generated --\n).*?(?=^# -- end --$)", re.DOTALL | re.MULTILINE)


class Command(NamedTuple):
    """A command or a group of commands. Verbs and options have their help beside them."""

    path: str
    verbs: list[tuple[str, str]]
    takes: list[str]
    options: Options


def known() -> Words:
    """The words of the metavars that depend on nothing but what is installed."""
    formats: list[str] = []
    for name in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as folder, Iommu(folder, backend="sim") as iommu:
            iommu.setup(architecture=name)
            formats += iommu.capabilities().pgtable_formats
    return {
        "ARCH": list(ARCHITECTURES),
        "BACKEND": list(BACKENDS),
        "FORMAT": formats,
        "STRUCTURE": list(structures()),
    }


def commands(words: Words) -> Iterator[Command]:
    """All commands, the program itself first."""
    program = root()
    context = program.make_context("iommuctl", ["--quiet"], obj=Session(), resilient_parsing=True)

    def visit(command: Any, path: str) -> Iterator[Command]:
        params = command.get_params(context)
        options = [(spelling(param, words), help_of(param, context)) for param in params if is_option(param)]
        takes = [what(param, words) for param in params if not is_option(param)]
        verbs = [(name, entry.summary) for name, entry in getattr(command, "entries", {}).items()]
        yield Command(path, verbs, takes, options)
        for name, _ in verbs:
            yield from visit(command.get_command(context, name), f"{path} {name}".strip())

    yield from visit(program, "")


def is_option(param: Any) -> bool:
    return bool(param.param_type_name == "option")


def help_of(param: Any, context: Any) -> str:
    """What it does, without what the usage says already."""
    text: str = param.get_help_record(context)[1]
    return re.sub(r" *\[(required|default: .*)\]$", "", text).strip()


def spelling(param: Any, words: Words) -> str:
    """An option as the tables have it."""
    names = ("*" if param.multiple else "") + ",".join([*param.opts, *param.secondary_opts])
    return names if param.is_flag else f"{names}={what(param, words)}"


def what(param: Any, words: Words) -> str:
    """What can stand for a parameter: of its metavar the small words, and the metavars that can be completed."""
    parts = re.sub(r"\[.*?\]", "", param.metavar or "").split("|")
    return "|".join(part for part in parts if part in {*QUERIES, *FILES, *words} or re.fullmatch("[a-z]+", part))


def quoted(text: str) -> str:
    """A word in bash and zsh."""
    return text if re.fullmatch(r"[\w.:,-]+", text) else "'" + text.replace("'", "'\\''") + "'"


def fish_quoted(text: str) -> str:
    """A word in fish."""
    return text if re.fullmatch(r"[\w.:,-]+", text) else "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def bash(found: list[Command], everywhere: Options, words: Words) -> Iterator[str]:
    """The tables as bash functions, without help texts: bash shows none."""
    yield "__iommuctl_command() { # PATH"
    yield "    verbs=() takes=() opts=()"
    yield "    case $1 in"
    for command in found:
        yield f"    {quoted(command.path)})"
        for name, values in (("verbs", [verb for verb, _ in command.verbs]), ("takes", command.takes)):
            if values:
                yield f"        {name}=({' '.join(map(quoted, values))})"
        if command.options:
            yield f"        opts=({' '.join(quoted(option) for option, _ in command.options)})"
        yield "        ;;"
    yield from ("    *) return 1 ;;", "    esac")
    yield from (f"    opts+=({' '.join(quoted(option) for option, _ in everywhere)})", "}", "")
    yield from ("__iommuctl_known() { # METAVAR", "    case $1 in")
    for metavar, names in words.items():
        yield f"    {metavar}) found+=({' '.join(map(quoted, names))}) ;;"
    yield from ("    *) return 1 ;;", "    esac", "}")


def zsh(found: list[Command], everywhere: Options, words: Words) -> Iterator[str]:
    """The tables as zsh functions; `verbs` is for _describe, `opts` has each option and its help."""
    yield "__iommuctl_command() { # PATH"
    yield "    verbs=() takes=() opts=()"
    yield "    case $1 in"
    for command in found:
        yield f"        ({quoted(command.path)})"
        if command.verbs:
            yield "            verbs=("
            yield from (f"                {quoted(f'{verb}:{text}')}" for verb, text in command.verbs)
            yield "            )"
        if command.takes:
            yield f"            takes=({' '.join(map(quoted, command.takes))})"
        if command.options:
            yield "            opts=("
            yield from (f"                {quoted(option)} {quoted(text)}" for option, text in command.options)
            yield "            )"
        yield "            ;;"
    yield from ("        (*) return 1 ;;", "    esac", "    opts+=(")
    yield from (f"        {quoted(option)} {quoted(text)}" for option, text in everywhere)
    yield from ("    )", "}", "", "__iommuctl_known() { # METAVAR", "    case $1 in")
    for metavar, names in words.items():
        yield f"        ({metavar}) offered+=({' '.join(map(quoted, names))}) ;;"
    yield from ("        (*) return 1 ;;", "    esac", "}")


def fish(found: list[Command], everywhere: Options, words: Words) -> Iterator[str]:
    """The tables as fish functions; `verbs` and `opts` have each word and its help."""
    yield "function __iommuctl_command --no-scope-shadowing --argument-names __path"
    yield from ("    set verbs", "    set takes", "    set opts", "    switch $__path")
    for command in found:
        yield f"        case {fish_quoted(command.path) if command.path else repr('')}"
        for verb, text in command.verbs:
            yield f"            set -a verbs {fish_quoted(verb)} {fish_quoted(text)}"
        if command.takes:
            yield f"            set takes {' '.join(map(fish_quoted, command.takes))}"
        for option, text in command.options:
            yield f"            set -a opts {fish_quoted(option)} {fish_quoted(text)}"
    yield from ("        case '*'", "            return 1", "    end")
    yield from (f"    set -a opts {fish_quoted(option)} {fish_quoted(text)}" for option, text in everywhere)
    yield from ("end", "")
    yield "function __iommuctl_known --argument-names metavar"
    yield "    switch $metavar"
    for metavar, names in words.items():
        yield f"        case {metavar}"
        yield f"            printf '%s\\n' {' '.join(map(fish_quoted, names))}"
    yield from ("        case '*'", "            return 1", "    end", "end")


SHELLS: dict[str, Callable[[list[Command], Options, Words], Iterator[str]]] = {
    "iommuctl.bash": bash,
    "_iommuctl": zsh,
    "iommuctl.fish": fish,
}


def scripts() -> dict[str, str]:
    """Each script with the tables as the program has them now, by its name in this folder."""
    words = known()
    found = list(commands(words))
    everywhere = [option for option in found[0].options if all(option in command.options for command in found)]
    own = [
        command._replace(options=[option for option in command.options if option not in everywhere])
        for command in found
    ]
    generated = {}
    for name, tables in SHELLS.items():
        text = "".join(f"{line}\n" for line in tables(own, everywhere, words))
        generated[name] = _PLACE.sub(lambda _, text=text: text, (FOLDER / name).read_text("utf-8"))
    return generated


if __name__ == "__main__":
    for name, text in scripts().items():
        (FOLDER / name).write_text(text, "utf-8")
