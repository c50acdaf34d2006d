# SPDX-License-Identifier: Apache-2.0
"""What the kernel logs: while something is done that tells no reason itself, such as a probe, and of faults.

Source: Documentation/ABI/testing/dev-kmsg.
"""

import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple, Self

LONGEST_RECORD: Final = 8192
MOST_RECORDS: Final = 1000
LONGEST_LOG: Final = 1 << 16
"""Records that are read at once; the kernel's buffer has fewer."""
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_FACILITY = 3
"""Where the facility begins, in the number that has the priority below: 0 is the kernel's own."""
_BOOT = "/proc/sys/kernel/random/boot_id"


class Record(NamedTuple):
    """A line of the log, and its number since the machine was started."""

    sequence: int
    text: str


def boot_id() -> str:
    """What tells one start of the machine from another; "" where it cannot be read."""
    try:
        with open(_BOOT, encoding="ascii") as file:
            return file.read(64).strip()
    except OSError:
        return ""


def records_after(sequence: int, path: str = "/dev/kmsg") -> list[Record]:
    """Every line that is in the kernel's buffer and came after that one; -1 is for all. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = [_parsed(record) for record in _read(descriptor)]
    finally:
        os.close(descriptor)
    return [record for record in found if record and record.sequence > sequence]


def _read(descriptor: int, most: int = LONGEST_LOG) -> Iterator[str]:
    """The records as they are: one for each read, until there is none."""
    for _ in range(most):
        try:
            record = os.read(descriptor, LONGEST_RECORD)
        except BrokenPipeError:  # older records were overwritten, newer ones follow
            continue
        except OSError:
            return
        if not record:
            return
        yield record.decode("utf-8", "replace")


def _parsed(record: str) -> Record | None:
    head, _, rest = record.partition(";")
    numbers = head.split(",")
    if len(numbers) < 2 or not all(number.isascii() and number.isdigit() for number in numbers[:2]):
        return None
    if int(numbers[0]) >> _FACILITY:
        # Anybody's who may write to the log.
        return None
    # What cannot be printed is escaped there, a tab and a backslash too.
    text = _ESCAPED.sub(lambda escaped: chr(int(escaped[1], 16)), rest.partition("\n")[0])
    return Record(int(numbers[1]), printable(text))


def printable(text: str) -> str:
    """A line that a terminal can show; a tab is a blank."""
    return "".join(letter if letter.isprintable() else " " if letter == "\t" else "?" for letter in text[:500])


class KernelLog:
    """The log from now on, or with `old` from its beginning; silent where it cannot be read (no root, a container)."""

    def __init__(self, path: str = "/dev/kmsg", *, old: bool = False) -> None:
        self._path = path
        self._old = old
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if not self._old:
                os.lseek(self._fd, 0, os.SEEK_END)
        except OSError:
            self.__exit__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def is_read(self) -> bool:
        """Whether the log can be read."""
        return self._fd >= 0

    def records(self) -> list[Record]:
        """The kernel's own lines since the last time."""
        found = [_parsed(record) for record in _read(self._fd)] if self._fd >= 0 else []
        return [record for record in found if record]

    def last_about(self, word: str) -> str:
        """The newest message that has the word; empty if there is none."""
        found = ""
        for record in _read(self._fd, MOST_RECORDS) if self._fd >= 0 else ():
            message = record.partition(";")[2].partition("\n")[0]
            if word in message:
                found = printable(message)
        return found
