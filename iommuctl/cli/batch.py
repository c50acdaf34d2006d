# SPDX-License-Identifier: Apache-2.0
"""`iommuctl batch`: many command lines in one process."""

import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Annotated, TextIO

import typer

from iommuctl.cli import failure, jsonout
from iommuctl.cli.command import module_app
from iommuctl.cli.files import not_text, opened
from iommuctl.cli.options import GLOBAL_NAMES
from iommuctl.cli.session import Session, session_of
from iommuctl.errors import BadDocument, IommuError, Unsupported, Usage

EXAMPLES = """
# commands as they are typed, without `iommuctl`; `#` begins a comment
printf '%s\\n' 'domain create domain1' 'attach domain1 0000:00:01.0' | iommuctl batch -
# all of them or none
iommuctl batch topology.txt --atomic
# one JSON document for each line, also for those that fail
iommuctl batch topology.txt --keep-going -j
# a line may also be a JSON array of words
echo '["domain", "create", "domain1", "--label", "two words"]' | iommuctl batch -
"""

_PLAIN = re.compile(r"[\w ./:=,+-]*\n?", re.ASCII)
"""A line without quotes, comments and the like."""

LONGEST = 1 << 16
"""Characters of a line; more is no list of commands."""

app = module_app("Run many commands in one process.", EXAMPLES)


@app.command("batch")
def batch(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="File of commands; - is stdin.", show_default=False)],
    *,
    atomic: Annotated[bool, typer.Option("--atomic", help="All lines take effect together, or none of them.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Go on after a line that fails.")] = False,
) -> None:
    """Run many commands in one process.

    A line is a command as one types it, without `iommuctl`, with the quoting of a shell, or a JSON array of its
    words; `#` begins a comment. Each line takes effect by itself. The first that fails ends the batch, with its exit
    code; with --keep-going it is the highest one.
    """
    session = session_of(ctx)
    if session.parent is not None:
        raise BadDocument("a batch in a batch")
    if atomic and keep_going:
        raise Usage("--atomic and --keep-going exclude each other", because="all lines take effect, or none")
    if session.dry_run and not atomic:
        raise Unsupported(
            "a batch has no dry run",
            because="each line takes effect by itself, and the next one may need it",
            hint="with --atomic it has",
        )
    together = session.iommu.transaction(dry_run=session.dry_run) if atomic else nullcontext()
    worst = 0
    with opened(file) as stream, together:
        for number, words in _lines(file, stream):
            try:
                code = _carry_out(session, f"{file}:{number}", number, words, keep_going=keep_going)
            except IommuError as error:
                if atomic:
                    error.hint = "; ".join(filter(None, (error.hint, "with --atomic nothing was changed")))
                raise
            worst = max(worst, code)
            if code and not keep_going:
                if not session.json:
                    so = ", and nothing was changed" if atomic else ""
                    print(f"{file}:{number}: stopped, exit code {code}{so}", file=sys.stderr)
                raise typer.Exit(code)
    if worst:
        raise typer.Exit(worst)


def _carry_out(session: Session, place: str, number: int, words: list[str], *, keep_going: bool) -> int:
    """Carry out one line. Returns its exit code."""
    from iommuctl.cli.app import execute

    try:
        line = Session(parent=session, line=number)
        line.is_plain = not any(word.startswith(GLOBAL_NAMES) for word in words)
        try:
            return execute(line, words)
        except OSError as error:
            if not error.filename:
                # The batch's own output, and not a file of the line.
                raise
            raise failure.from_os(error) from error
    except IommuError as error:
        error.what = f"{place}: {error.what}"
        if not keep_going:
            raise
        if session.json:
            jsonout.write([{"line": number, "error": failure.document(error)}], one_line=True)
        else:
            failure.show(error, as_json=False, color=session.color)
        return error.exit


def _lines(file: str, stream: TextIO) -> Iterator[tuple[int, list[str]]]:
    number = 0
    try:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST), ""), 1):
            if len(line) == LONGEST:
                raise BadDocument(f"{file}:{number}: a line of {LONGEST} characters and more")
            words = _words(line)
            if words[:1] == ["iommuctl"]:
                words = words[1:]
            if words:
                yield number, words
    except UnicodeDecodeError as error:
        raise not_text(file, "a batch is lines of commands") from error
    except ValueError as error:
        reason = f"{error}"
        raise BadDocument(
            f"{file}:{number}: the line cannot be split into words",
            because=reason[:1].lower() + reason[1:],
            hint="close the quotes" if reason.startswith("No closing") else "",
        ) from error


def _words(line: str) -> list[str]:
    """The words of a line. Raises ValueError."""
    if line.lstrip().startswith("["):
        return _array(line)
    if _PLAIN.fullmatch(line):
        # The same, and ten times as quick.
        return line.split()
    import shlex

    return shlex.split(line, comments=True)


def _array(line: str) -> list[str]:
    """The words of a JSON line. Raises ValueError."""
    import json

    try:
        words = json.loads(line)
    except RecursionError:
        words = None
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    if not isinstance(words, list) or not all(type(word) in (str, int) for word in words):
        raise ValueError("it is not a JSON array of strings and integers")
    return [word if isinstance(word, str) else str(word) for word in words]
