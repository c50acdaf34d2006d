# SPDX-License-Identifier: Apache-2.0
"""What one command knows: the global options, the Iommu that it works on, where its answer goes."""

import sys
from typing import TYPE_CHECKING, Any

import typer

from iommuctl.cli.render import Output, safe
from iommuctl.errors import Usage

if TYPE_CHECKING:
    from iommuctl.iommu import Iommu


class Session:
    """The global options of one command line, and what follows from them.

    The lines of a batch have a session each, with the line's number, and share the `parent`'s Iommu.
    """

    def __init__(self, *, parent: "Session | None" = None, line: int = 0) -> None:
        self.json: bool = parent.json if parent else False
        self.dry_run: bool = parent.dry_run if parent else False
        self.quiet: bool = parent.quiet if parent else False
        self.color: str = parent.color if parent else "auto"
        self.backend: str | None = None
        self.state: str | None = None
        self.parent = parent
        self.is_plain = False
        """Whether the command line has no global options: so far for lines of a batch only."""
        self._line = line
        self._iommu: Iommu | None = None
        self._out: Output | None = None

    def set_option(self, name: str, value: Any) -> None:
        """Store a global option. Raises Usage for one that a line of a batch cannot have."""
        if self.parent is not None and name in ("state", "backend"):
            raise Usage(
                f"--{name} stands in a batch",
                because="all its lines work on one state folder",
                hint="give it to `batch`",
            )
        setattr(self, name, value)

    @property
    def iommu(self) -> "Iommu":
        """The state folder, opened when it is first needed."""
        if self.parent is not None:
            iommu = self.parent.iommu
        else:
            if self._iommu is None:
                from iommuctl.iommu import Iommu

                self._iommu = Iommu(self.state, backend=self.backend)
            iommu = self._iommu
        iommu.dry_run = self.dry_run
        return iommu

    @property
    def out(self) -> Output:
        """Text for stdout."""
        if self._out is None:
            self._out = Output(self.color)
        return self._out

    def simulate(self) -> None:
        """In a folder that has no backend yet, take the simulator even where hardware is usable."""
        if self.parent is not None:
            self.parent.simulate()
        elif self.backend is None and self.iommu.backend_name is None:
            self.iommu.require_backend("sim")

    def close(self) -> None:
        """Let go of the state folder."""
        if self._iommu is not None:
            self._iommu.close()
            self._iommu = None

    def document(self, *parts: Any) -> None:
        """Print the one JSON document of this command: its parts are mappings and objects of the model, merged."""
        from iommuctl.cli import jsonout

        if self.parent is None:
            jsonout.write(parts)
        else:
            jsonout.write([{"line": self._line}, *parts], one_line=True)

    def changed(self, line: str, *parts: Any, commands: bool = False) -> None:
        """Report a change that was made: `line` as text, `parts` as JSON.

        A dry run shows what would have been written; `commands` shows the commands in any case.
        """
        self.warn()
        shown = self.dry_run or commands
        if self.json:
            extra: list[Any] = [{"dry_run": True}] if self.dry_run else []
            if self.iommu.last.warnings:
                extra.append({"warnings": self.iommu.last.warnings})
            if shown:
                from iommuctl.cli import jsonout

                extra.append(jsonout.outcome(self.iommu.last))
            self.document(*parts, *extra)
            return
        if self.quiet:
            return
        self.out.line(("dim", "dry run: " if self.dry_run else ""), ("", line))
        if shown:
            self.out.outcome(self.iommu.last, dry_run=self.dry_run)

    def warn(self) -> None:
        """Say on stderr what the backend noted about the last operation."""
        for text in self.iommu.last.warnings:
            sys.stderr.write(f"warning: {safe(text)}\n")


def session_of(ctx: typer.Context) -> Session:
    """The session that a command runs in."""
    session = ctx.obj
    assert isinstance(session, Session)
    return session
