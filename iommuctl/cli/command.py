# SPDX-License-Identifier: Apache-2.0
"""What all commands have in common: lazy groups, the global options, the layout of the help.

A module of commands has a `typer.Typer` named `app`. Typer would turn all its functions into commands at once, and
importing all modules would cost more than most commands; here a command is built when it is asked for.
"""

import sys
from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command_from_info

from iommuctl.cli.options import GLOBAL_OPTIONS
from iommuctl.cli.render import wants_color
from iommuctl.errors import Usage

AnyCommand = TyperCommand | TyperGroup
NO_TRACEBACKS: dict[str, Any] = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}


def module_app(help_text: str, examples: str) -> typer.Typer:
    """The `app` of a module. `examples` are shell commands, one per line, `#` begins a comment."""
    return typer.Typer(help=help_text, epilog=examples, **NO_TRACEBACKS)


class _Page:
    """Usage and help as all commands show them."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Without the global options where none was typed: in a batch, most of parsing would be theirs."""
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        return [param for param in found if param not in GLOBAL_OPTIONS] if ctx.obj.is_plain else found

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`NAME [PASID] --iova A [OPTIONS]`: what is required first."""
        pieces: list[str] = []
        for param in self.params:  # type: ignore[attr-defined]
            if param.param_type_name == "argument":
                name = param.make_metavar(ctx=ctx)
                name += "…" if param.nargs == -1 and not name.endswith("…") else ""
                pieces.append(name if param.required else f"[{name}]")
            elif param.required:
                pieces.append(f"{param.opts[-1]} {param.make_metavar(ctx=ctx)}")
        return [*pieces, "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, options and global options, each with a heading of its own."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], "Global options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if param.param_type_name == "argument":
                name = "Arguments"
            else:
                name = "Global options" if param in GLOBAL_OPTIONS or "--help" in param.opts else "Options"
            text = record[1].removesuffix("[required]").rstrip()
            sections[name].append((typer.style(record[0], fg="cyan"), text))
        for name, rows in sections.items():
            if rows:
                with formatter.section(heading(name)):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """The examples, never wrapped: they are to be copied."""
        if self.epilog:  # type: ignore[attr-defined]
            with formatter.section(heading("Examples")):
                for line in self.epilog.strip().splitlines():  # type: ignore[attr-defined]
                    formatter.write(f"  {typer.style(line, dim=True) if line.startswith('#') else line}\n")


class Command(_Page, TyperCommand):
    """A command with the global options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(GLOBAL_OPTIONS)


class Entry(NamedTuple):
    """A line of a group's help, and how to get the command when it is used."""

    summary: str
    build: Callable[[], AnyCommand]


class LazyCommands(MutableMapping[str, AnyCommand]):
    """The commands of a group by name; each is built when it is first asked for."""

    def __init__(self, entries: dict[str, Entry]) -> None:
        self.entries = entries
        self._built: dict[str, AnyCommand] = {}

    def __getitem__(self, name: str) -> AnyCommand:
        if name not in self._built:
            self._built[name] = self.entries[name].build()
        return self._built[name]

    def __setitem__(self, name: str, command: AnyCommand) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class Group(_Page, TyperGroup):
    """A group of lazily built commands, with the global options."""

    def __init__(self, name: str, entries: dict[str, Entry], *, help_text: str, examples: str) -> None:
        super().__init__(
            name=name,
            commands=LazyCommands(entries),  # type: ignore[arg-type]
            help=help_text,
            epilog=examples,
            rich_markup_mode=None,
        )
        self.entries = entries
        self.params.extend(GLOBAL_OPTIONS)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """The names, in the order of the declaration."""
        return list(self.entries)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """A group takes a command."""
        return ["COMMAND [ARGS]… [OPTIONS]"]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without any argument: the help, as a usage error."""
        if not args and ctx.obj.parent is None:
            if ctx.obj.json:
                raise Usage("a command is missing", hint=f"see `{ctx.command_path} --help`")
            typer.echo(ctx.get_help(), err=True, color=wants_color(ctx.obj.color, sys.stderr))
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """The names and their summaries, without building a command."""
        with formatter.section(heading("Commands")):
            formatter.write_dl([(typer.style(name, fg="cyan"), entry.summary) for name, entry in self.entries.items()])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Commands first: they are what one looks for."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)


def heading(text: str) -> str:
    """A heading of the help; echo() takes the style off where there is no terminal."""
    return typer.style(text, bold=True)


def entries_of(app: typer.Typer) -> dict[str, Entry]:
    """The commands and groups of a module's `app` as entries of a group."""
    entries = {}
    for info in app.registered_commands:
        function = info.callback
        assert function is not None
        assert info.name is not None
        if info.cls is None or not issubclass(info.cls, Command):
            info.cls = Command
        summary = (function.__doc__ or "").partition("\n")[0].rstrip(".")

        def build(info: Any = info) -> AnyCommand:
            info.epilog = _examples_of(info.name, str(app.info.epilog))
            built = get_command_from_info(info, pretty_exceptions_short=False, rich_markup_mode=None)
            assert isinstance(built, Command)
            return built

        entries[info.name] = Entry(summary, build)
    for group in app.registered_groups:
        inner, name = group.typer_instance, group.name
        assert inner is not None
        assert name is not None
        summary = str(inner.info.help).partition("\n")[0].rstrip(".")
        entries[name] = Entry(summary, partial(noun, name, inner))
    return entries


def _examples_of(command: str, examples: str) -> str:
    """The examples of a module that show one of its commands, with the comments before them."""
    found: list[str] = []
    comments: list[str] = []
    for line in examples.strip().splitlines():
        if line.startswith("#"):
            comments.append(line)
            continue
        if f" {command} " in f"{line} ":
            found += [*comments, line]
        comments.clear()
    return "\n".join(found)


def noun(name: str, app: typer.Typer) -> Group:
    """The group that a module's `app` stands for."""
    return Group(name, entries_of(app), help_text=str(app.info.help), examples=str(app.info.epilog))
