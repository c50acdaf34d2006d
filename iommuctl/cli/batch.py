# SPDX-License-Identifier: Apache-2.0
"""`iommuctl batch`: many command lines in one process."""

import sys
from collections.abc import Iterator
from typing import Annotated, TextIO

import typer

from iommuctl.cli.command import module_app
from iommuctl.cli.files import not_text, opened
from iommuctl.cli.session import Session, session_of
from iommuctl.errors import BadDocument, IommuError, Unsupported

EXAMPLES = """
# commands as they are typed, without `iommuctl`; `#` begins a comment
printf '%s\\n' 'domain create domain1' 'attach domain1 0000:00:01.0' | iommuctl batch -
iommuctl batch topology.txt
# one JSON document for each line that was carried out
iommuctl batch topology.txt -j
"""

LONGEST = 1 << 16
"""Characters of a line; more is no list of commands."""

app = module_app("Run many commands in one process.", EXAMPLES)


@app.command("batch")
def batch(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="File of commands; - is stdin.", show_default=False)],
) -> None:
    """Run many commands in one process.

    A line is a command as one types it, without `iommuctl`, with the quoting of a shell; `#` begins a comment. Each
    line takes effect by itself. The first that fails ends the batch, with its exit code.
    """
    from iommuctl.cli.app import execute

    session = session_of(ctx)
    if session.parent is not None:
        raise BadDocument("a batch in a batch")
    if session.dry_run:
        raise Unsupported(
            "a batch has no dry run",
            because="each line takes effect by itself, and the next one may need it",
            hint="run it in a copy: `iommuctl --state DIR batch …`",
        )
    with opened(file) as stream:
        for number, words in _lines(file, stream):
            try:
                code = execute(Session(parent=session), words)
            except IommuError as error:
                error.what = f"{file}:{number}: {error.what}"
                raise
            if code:
                if not session.json:
                    print(f"{file}:{number}: stopped, exit code {code}", file=sys.stderr)
                raise typer.Exit(code)


def _lines(file: str, stream: TextIO) -> Iterator[tuple[int, list[str]]]:
    import shlex

    number = 0
    try:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST), ""), 1):
            if len(line) == LONGEST:
                raise BadDocument(f"{file}:{number}: a line of {LONGEST} characters and more")
            words = shlex.split(line, comments=True)
            if words[:1] == ["iommuctl"]:
                words = words[1:]
            if words:
                yield number, words
    except UnicodeDecodeError as error:
        raise not_text(file, "a batch is lines of commands") from error
    except ValueError as error:
        raise BadDocument(
            f"{file}:{number}: the line cannot be split into words", because=f"{error}".lower(), hint="close the quotes"
        ) from error
