# SPDX-License-Identifier: Apache-2.0
"""`iommuctl fault run`: serves the handlers of page requests in the foreground."""

import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iommuctl.cli.render import safe
from iommuctl.cli.session import Session, session_of
from iommuctl.errors import Usage

if TYPE_CHECKING:
    from iommuctl.serving.server import Served


def run(
    ctx: typer.Context,
    *,
    once: Annotated[bool, typer.Option("--once", help="Serve what waits now, then end.")] = False,
    jobs: Annotated[
        int, typer.Option("--jobs", metavar="N", min=1, max=1024, help="Programs that run at a time, at most.")
    ] = 4,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", min=0.001, max=86400, help="How long a program may run."),
    ] = 10.0,
) -> None:
    """Serve the handlers of page requests, until SIGINT or SIGTERM.

    One line for each group that was answered; why one was refused is said on stderr. Groups of a slot are answered one
    after the other, slots side by side. What waits when it ends, or is killed, waits for the next one. There is one for
    a state folder at a time. SIGTERM ends it with exit code 0.
    """
    session = session_of(ctx)
    if session.parent is not None:
        raise Usage(
            "`fault run` stands in a batch", because="it serves until it is told to end", hint="run it by itself"
        )
    if session.dry_run:
        raise Usage("`fault run` has no dry run", because="a device that was answered goes on")
    from iommuctl.serving.server import Server

    def answered(served: "Served") -> None:
        _tell(session, served)

    server = Server(session.iommu, answered=answered, warn=_warn, jobs=jobs, timeout=timeout)
    with _Signals() as signals:
        if once:
            server.serve_once(signals.came)
        else:
            server.run(signals.came)
    if signals.number == signal.SIGINT:
        raise KeyboardInterrupt


class _Signals:
    """SIGINT and SIGTERM are noted, and not obeyed in the middle of something; `number` is that of the last one."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def came(self) -> bool:
        """Whether it is time to end."""
        return self.number != 0

    def __enter__(self) -> "_Signals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        self.number = number


def _tell(session: Session, served: "Served") -> None:
    group = served.group
    if session.json:
        from iommuctl.cli import jsonout
        from iommuctl.cli.fault import page_group

        parts = {"response": served.response, "by": served.kind, "because": served.because or None}
        jsonout.write([page_group(group), parts], one_line=True)
    elif not session.quiet:
        session.out.line(
            ("", f"{group.slot}: page request group {group.id} was answered {served.response}, {served.kind}")
        )
    sys.stdout.flush()
    if served.because:
        _warn(f"page request group {group.id} of {group.slot}: {served.because}")


def _warn(text: str) -> None:
    sys.stderr.write(f"warning: {safe(text)}\n")
    sys.stderr.flush()
