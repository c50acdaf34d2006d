# SPDX-License-Identifier: Apache-2.0
"""A client of QEMU's qtest protocol: registers, ports and the clock of a machine that runs no guest.

Requests are lines of text, and each is answered by one line: `OK` with a value, or `FAIL`. QEMU may put lines about
interrupts (`IRQ …`) in between. Sending many requests before reading the answers saves most of the time, so that is
what `batch` does.
"""

import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Self

_LIMIT = 1 << 20
"""No answer to a request of ours is longer."""


class QtestError(Exception):
    """QEMU did not answer, or refused a request."""


class Qtest:
    """The client's end of a connected socket. Every call ends within `timeout` seconds, by an answer or an error."""

    def __init__(self, connection: socket.socket, *, timeout: float = 20) -> None:
        self._socket = connection
        self._socket.settimeout(timeout)
        self._received = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; QEMU goes on, and somebody has to end it."""
        self._socket.close()

    def batch(self, requests: Iterable[str]) -> list[str]:
        """Send requests at once; the words after `OK` of each answer. Raises QtestError for the first that failed."""
        lines = list(requests)
        try:
            self._socket.sendall("".join(f"{line}\n" for line in lines).encode("ascii"))
            answers = [self._answer() for _ in lines]
        except OSError as error:
            raise QtestError(f"QEMU does not answer: {error or type(error).__name__}") from error
        for line, answer in zip(lines, answers, strict=True):
            if answer.split(" ", 1)[0] != "OK":
                raise QtestError(f"{line!r} was answered with {answer!r}")
        return [answer[3:] for answer in answers]

    def read(self, address: int, size: int) -> int:
        """A register of 1, 2, 4 or 8 bytes at a physical address."""
        return int(self.batch([reading(address, size)])[0], 16)

    def write(self, address: int, value: int, size: int) -> None:
        """Store 1, 2, 4 or 8 bytes at a physical address."""
        self.batch([writing(address, value, size)])

    def port_in(self, port: int, size: int) -> int:
        """Read an I/O port of a PC."""
        return int(self.batch([f"in{_LETTERS[size]} {port:#x}"])[0], 16)

    def port_out(self, port: int, value: int, size: int) -> None:
        """Write an I/O port of a PC."""
        self.batch([f"out{_LETTERS[size]} {port:#x} {value:#x}"])

    def _answer(self) -> str:
        while True:
            end = self._received.find(b"\n")
            if end >= 0:
                line = self._received[:end].decode("ascii", "replace")
                del self._received[: end + 1]
                if not line.startswith("IRQ "):
                    return line
                continue
            if len(self._received) > _LIMIT:
                raise QtestError("QEMU sends a line without end")
            data = self._socket.recv(65536)
            if not data:
                raise QtestError("QEMU has closed the connection")
            self._received += data


_LETTERS = {1: "b", 2: "w", 4: "l", 8: "q"}


def reading(address: int, size: int) -> str:
    """The request that reads a register."""
    return f"read{_LETTERS[size]} {address:#x}"


def writing(address: int, value: int, size: int) -> str:
    """The request that writes a register."""
    return f"write{_LETTERS[size]} {address:#x} {value:#x}"


def clock_step(nanoseconds: int) -> str:
    """The request that lets the machine's time pass."""
    return f"clock_step {nanoseconds}"
