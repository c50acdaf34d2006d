# SPDX-License-Identifier: Apache-2.0
"""The program: which module has which command, and one run from arguments to exit code."""

import os
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import typer

from iommuctl.cli import failure
from iommuctl.cli.command import AnyCommand, Entry, Group, entries_of, noun
from iommuctl.cli.options import VERSION
from iommuctl.cli.render import wants_color
from iommuctl.cli.session import Session
from iommuctl.errors import IommuError, Usage

# The summaries stand here, too, so that the help imports none of the modules; a test compares them.
COMMANDS: dict[str, tuple[str, str]] = {
    "device": ("device", "Devices: what uses I/O page tables"),
    "domain": ("domain", "Domains: kernel-managed I/O page tables"),
    "memory": ("memory", "Named memory, for mappings"),
    "pgtable": ("pgtable", "Page tables: user-managed stage 1, built in guest memory"),
    "attach": ("slots", "Attach a domain to a device or to one of its PASIDs"),
    "detach": ("slots", "Detach a domain from a device or from one of its PASIDs"),
    "bind-pgtable": ("slots", "Bind a page table to a slot, nested on its parent domain"),
    "unbind-pgtable": ("slots", "Take a page table out of a slot, which goes back to what it was"),
    "invalidate": ("slots", "Tell the caches that a bound page table changed"),
    "topology": ("topology", "Show who is attached to what"),
    "exec": ("exec", "Run a program that uses devices, with their file descriptors"),
    "translate": ("translate", "Walk the tables: where would this address go?"),
    "fault": ("fault", "Faults: requests of devices that were refused, and page requests that wait for an answer"),
    "table": ("table", "Hardware structures, and tables entry by entry"),
    "check": ("check", "Compare the tables with what they should hold"),
    "plan": ("plan", "Show what `apply` would do, and why"),
    "apply": ("plan", "Make the state what a document says: all of it, or nothing when a part fails"),
    "export": ("plan", "Print the state as a document that `apply` takes: TOML, or JSON with -j"),
    "recover": ("plan", "Build again what was lost: the kernel's objects, or damaged tables of a simulated machine"),
    "batch": ("batch", "Run many commands in one process"),
    "unit": ("unit", "IOMMU units: what each can do, and is doing"),
    "backend": ("backend", "Backends: what can drive an IOMMU here"),
    "sim": ("sim", "The simulated machine: DMA at will, memory, registers"),
    "demo": ("demo", "See it work on a simulated machine"),
    "completion": ("completion", "Completion for bash, zsh and fish"),
}

HELP = """Look at and change Linux I/O page tables.

A device uses an I/O page table, found by its RID, or by its RID and a PASID. A domain is one that the kernel manages;
a page table (pgtable) is one that its user manages, nested on a parent domain. Both are installed in slots:
(RID) or (RID, PASID)."""

EXAMPLES = """
iommuctl demo
iommuctl device add 0000:00:01.0 --ats --pasid-bits 16
iommuctl domain create domain1
iommuctl domain map domain1 --iova 0 --size 1G --pa 0x40000000
iommuctl attach domain1 0000:00:01.0
iommuctl topology
iommuctl translate 0000:00:01.0 0x1000
"""


def load(name: str) -> AnyCommand:
    """The command or noun of that name; imports its module and no other."""
    app: typer.Typer = import_module(f"iommuctl.cli.{COMMANDS[name][0]}").app
    entries = entries_of(app)
    return entries[name].build() if name in entries else noun(name, app)


@cache
def root() -> Group:
    """The command line as a whole. It has no state of a run, so the lines of a batch share it."""

    def loader(name: str) -> Callable[[], AnyCommand]:
        return lambda: load(name)

    entries = {name: Entry(summary, loader(name)) for name, (_, summary) in COMMANDS.items()}
    group = Group("iommuctl", entries, help_text=HELP, examples=EXAMPLES)
    group.params.append(VERSION)
    return group


@cache
def _above() -> Any:
    """What stands above a command in usage and help: the program's name."""
    return root().make_context("iommuctl", ["--quiet"], obj=Session(), resilient_parsing=True)


def execute(session: Session, arguments: list[str]) -> int:
    """Carry out one command line. Raises IommuError; returns the exit code."""
    settings: dict[str, Any] = {"obj": session, "color": wants_color(session.color, sys.stdout)}
    settings["max_content_width"] = 100
    try:
        if session.parent is not None and arguments[0] in root().entries:
            # Options before the command are rare in a batch, and looking for them costs as much as the command's own.
            command = root().commands[arguments[0]]
            context = command.make_context(arguments[0], arguments[1:], parent=_above(), **settings)
        else:
            context = root().make_context("iommuctl", list(arguments), **settings)
        with context as ctx:
            ctx.command.invoke(ctx)
    except typer.Exit as ended:
        return ended.exit_code
    except typer.TyperException as error:
        raise failure.from_typer(error) from error
    return 0


def run(arguments: list[str]) -> int:
    """Carry out one command line and say what went wrong. Returns the exit code."""
    # A closed stdout is None.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    session = Session()
    try:
        try:
            code = execute(session, arguments)
        finally:
            session.close()
        sys.stdout.flush()
    except IommuError as error:
        failed = error
    except BrokenPipeError:
        failure.mute(sys.stdout)
        return failure.BROKEN_PIPE
    except OSError as error:
        failed = failure.from_os(error)
        if not error.filename:
            failure.mute(sys.stdout)
    except UnicodeEncodeError as error:
        if not any("\udc80" <= char <= "\udcff" for argument in arguments for char in argument):
            raise
        failed = Usage("an argument is not text", because=f"it has bytes that are not UTF-8: {error.object!r}")
    except KeyboardInterrupt:
        return failure.INTERRUPTED
    else:
        return code
    return failure.report(failed, as_json=session.json or failure.wants_json(arguments), color=session.color)
