# SPDX-License-Identifier: Apache-2.0
"""The global options, which are accepted before the command and after it, at every level."""

import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperOption

from iommuctl.cli.render import COLORS, wants_color


def _store(name: str) -> Callable[..., Any]:
    def callback(ctx: typer.Context, param: Any, value: Any) -> None:
        if value == "":
            raise typer.BadParameter("it is empty.", ctx=ctx, param=param)
        if value:
            ctx.obj.set_option(name, value)

    return callback


def _color(ctx: typer.Context, param: Any, value: str | None) -> None:
    if value is None:
        return
    if value not in COLORS:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(COLORS)}.", ctx=ctx, param=param)
    ctx.color = wants_color(value, sys.stdout)
    ctx.obj.set_option("color", value)


def _version(ctx: typer.Context, _param: Any, value: bool) -> None:
    if value:
        from iommuctl import __version__

        typer.echo(f"iommuctl {__version__}")
        ctx.exit()


def _flag(*names: str, help_text: str, callback: Callable[..., Any] | None = None) -> TyperOption:
    name = names[-1].removeprefix("--").replace("-", "_")
    return TyperOption(
        param_decls=[name, *names],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        help=help_text,
        callback=callback or _store(name),
    )


def _value(name: str, metavar: str, help_text: str, callback: Callable[..., Any] | None = None) -> TyperOption:
    return TyperOption(
        param_decls=[name, f"--{name}"],
        expose_value=False,
        is_eager=True,
        metavar=metavar,
        help=help_text,
        callback=callback or _store(name),
    )


# Options hold no state, so all levels share these objects. Eager: -j must count when a later argument is wrong.
GLOBAL_OPTIONS = (
    _flag("-j", "--json", help_text="Print one JSON document; errors too, on stderr."),
    _flag("--dry-run", help_text="Change nothing; show the table words and the commands that would be written."),
    _flag("--quiet", help_text="Print no text when a change succeeds; -j still prints its document."),
    _value("backend", "BACKEND", "Backend of a new state folder (see `backend list`)."),
    _value("state", "DIR", "State folder; default $IOMMUCTL_STATE, else one of the user's own: see `man iommuctl`."),
    _value("color", "|".join(COLORS), "Colour the output.", _color),
)
GLOBAL_NAMES = (*(name for option in GLOBAL_OPTIONS for name in option.opts), "--help")
"""As a word of a command line may begin that has one of them; help shows them all."""
VERSION = _flag("--version", help_text="Print the version.", callback=_version)
