# SPDX-License-Identifier: Apache-2.0
"""Which processes hold a device node open, by a look through /proc/*/fd.

Descriptors on their way through a socket, and mappings of a file whose descriptor was closed, are not seen.
"""

import os
from itertools import islice
from typing import Final, NamedTuple

MOST_DESCRIPTORS: Final = 1 << 20
"""Of all processes together; the look ends there."""


class Holder(NamedTuple):
    """A process by its id and its command name."""

    pid: int
    command: str


class Holders(NamedTuple):
    """The processes that have the node open. `unreadable` processes do not let this user look."""

    found: tuple[Holder, ...]
    unreadable: int

    def __str__(self) -> str:
        said = [f"process {pid} ({command})" for pid, command in self.found] or ["no process that can be seen"]
        if self.unreadable:
            said.append(f"{self.unreadable} processes do not show what they hold")
        return ", ".join(said)


def holders(*numbers: int, proc: str = "/proc") -> Holders:
    """Who holds a device open that has one of these numbers (`st_rdev`)."""
    if not numbers:
        return Holders((), 0)
    found = []
    unreadable = 0
    left = MOST_DESCRIPTORS
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdigit()):
        folder = os.path.join(proc, str(pid), "fd")
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in islice(entries, left)]
        except PermissionError:
            unreadable += 1
            continue
        except OSError:  # the process has ended
            continue
        left -= len(names)
        if any(_device_number(os.path.join(folder, name)) in numbers for name in names):
            found.append(Holder(pid, _command(proc, pid)))
    return Holders(tuple(found), unreadable)


def node_numbers(*nodes: str) -> tuple[int, ...]:
    """The device numbers of those of the nodes that exist."""
    numbers = []
    for node in nodes:
        try:
            numbers.append(os.stat(node).st_rdev)
        except OSError:
            continue
    return tuple(numbers)


def _device_number(link: str) -> int:
    """Of what a descriptor has open, 0 if it is no device. A file elsewhere is not touched: its server may hang."""
    try:
        return os.stat(link).st_rdev if os.readlink(link).startswith("/dev/") else 0
    except OSError:
        return 0


def _command(proc: str, pid: int) -> str:
    try:
        with open(os.path.join(proc, str(pid), "comm"), "rb") as file:
            name = file.read(64).decode("utf-8", "replace").strip()
    except OSError:
        return "?"
    return "".join(letter if letter.isprintable() else "?" for letter in name)
