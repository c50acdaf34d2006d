# SPDX-License-Identifier: Apache-2.0
"""Text files that a command takes as an argument; - is stdin."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from iommuctl.errors import BadDocument


@contextmanager
def opened(file: str) -> Iterator[TextIO]:
    """The file, open for reading. Raises BadDocument."""
    if file == "-":
        if sys.stdin is None:
            raise BadDocument("- cannot be read", because="standard input is closed")
        yield sys.stdin
        return
    try:
        stream = open(file, encoding="utf-8")  # noqa: SIM115
    except PermissionError:
        raise
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", error))
        raise BadDocument(f"{file} cannot be read", because=reason[:1].lower() + reason[1:]) from error
    with stream:
        yield stream


def not_text(file: str, hint: str) -> BadDocument:
    """What to raise for a UnicodeDecodeError."""
    return BadDocument(f"{file} is not text", because="it is not UTF-8", hint=hint)
