# SPDX-License-Identifier: Apache-2.0
"""Errors as the user sees them: text or JSON on stderr, and the exit code."""

import errno
import os
import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

import typer

from iommuctl.cli.render import safe, wants_color
from iommuctl.errors import IommuError, PermissionRefused, SystemFailed, Usage

BROKEN_PIPE = 141
"""What a shell reports for a program that SIGPIPE ended."""
INTERRUPTED = 130

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_GUESS = re.compile(r"\.? Did you mean (.*)\?$")


def from_os(error: OSError) -> IommuError:
    """An error of the operating system as one of ours."""
    place = f"{error.filename}: " if error.filename else ""
    reason = error.strerror or str(error)
    what = f"{place}{reason[:1].lower()}{reason[1:]}"
    if error.errno in _REFUSED:
        return PermissionRefused(what, because="the operating system does not let this user do it")
    if not error.filename:
        return SystemFailed(
            "the output could not be written", because=what, hint="what the command changed stays changed: look before"
        )
    return SystemFailed(what)


def from_typer(error: typer.TyperException) -> IommuError:
    """A command line that does not parse, with what is near to it as the hint."""
    message = error.format_message().rstrip()
    context = getattr(error, "ctx", None)
    hints = []
    if near := getattr(error, "possibilities", None):
        message = str(error)
        hints.append(did_you_mean(near))
    elif guess := _GUESS.search(message):
        message = message[: guess.start()]
        hints.append(did_you_mean(re.findall("'([^']*)'", guess[1])))
    message = re.sub(r"\n\t| *\n *", " ", message).rstrip(".")
    if context is not None:
        hints.append(f"see `{context.command_path} --help`")
    return Usage(message[:1].lower() + message[1:], hint="; ".join(hints))


def did_you_mean(near: Iterable[str]) -> str:
    """The hint that names what is near to what was typed."""
    return f"did you mean {' or '.join(near)}?"


def wants_json(arguments: list[str]) -> bool:
    """Whether -j was given, for a command line that could not be parsed."""
    plain = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "-j" in plain or "--json" in plain


def report(error: IommuError, *, as_json: bool, color: str = "auto") -> int:
    """Print an error and return its exit code, also where nobody can be told."""
    if sys.stderr is not None:
        try:
            show(error, as_json=as_json, color=color)
            sys.stderr.flush()
        except OSError:
            mute(sys.stderr)
    return error.exit


def document(error: IommuError) -> dict[str, Any]:
    """An error as JSON holds it."""
    return {
        "id": error.id,
        "what": error.what,
        "because": error.because,
        "hint": error.hint,
        "exit": error.exit,
    }


def show(error: IommuError, *, as_json: bool, color: str) -> None:
    """Print an error to stderr."""
    if as_json:
        import json

        print(json.dumps({"schema": 1, "error": document(error)}), file=sys.stderr)
        return
    style: dict[str, Any] = {"fg": "red", "bold": True} if wants_color(color, sys.stderr) else {}
    head = f"error[{error.id}]:"
    print(typer.style(head, **style) if style else head, safe(error.what), file=sys.stderr)
    for name, text in (("because", error.because), ("hint", error.hint)):
        if text:
            name_shown = typer.style(f"{name}:", bold=True) if style else f"{name}:"
            print(name_shown, safe(text), file=sys.stderr)


def mute(stream: TextIO) -> None:
    """What could not be written goes nowhere: Python would try again at exit, and choose the exit code by that."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)
