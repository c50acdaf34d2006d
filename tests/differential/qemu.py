# SPDX-License-Identifier: Apache-2.0
"""QEMU as a process: where it is, what it can do, and one that runs with its RAM in a file.

Nothing here knows an architecture or a vendor. The command is that of the environment variable IOMMUCTL_QEMU_X86_64
(words, as in a shell), or qemu-system-x86_64 of PATH; other architectures likewise.
"""

import contextlib
import errno
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from iommuctl.formats.memory import FileMemory
from tests.differential.qtest import Qtest, QtestError

REQUIRED = "IOMMUCTL_REQUIRE_LAB"
"""With this set to 1, a QEMU that is missing is a failure, not a reason to skip."""
_START = 30.0
"""Seconds until QEMU must have connected, on a slow machine."""


class NoQemu(Exception):
    """There is no QEMU that the tests can use; the text says why."""


class Installed(NamedTuple):
    """A QEMU that can be started."""

    command: tuple[str, ...]
    version: tuple[int, int, int]

    @property
    def release(self) -> tuple[int, int]:
        """What its behaviour goes by."""
        return self.version[:2]


def find(architecture: str, devices: Sequence[str], environment: Mapping[str, str] = os.environ) -> Installed:
    """The QEMU of an architecture that has these devices. Raises NoQemu."""
    variable = f"IOMMUCTL_QEMU_{architecture.upper()}"
    program = f"qemu-system-{architecture}"
    words = shlex.split(environment.get(variable, ""))
    if not words:
        if not (found := shutil.which(program, path=environment.get("PATH"))):
            raise NoQemu(f"no {program} in PATH, and {variable} is not set")
        words = [found]
    version = _version(_output([*words, "--version"]))
    listed = _output([*words, "-machine", "none", "-device", "help"])
    missing = [device for device in devices if f'name "{device}"' not in listed]
    if missing:
        raise NoQemu(f"QEMU {'.'.join(map(str, version))} has no {', '.join(missing)}")
    return Installed(tuple(words), version)


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_START, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoQemu(f"{command[0]} does not run: {error}") from None
    if done.returncode:
        raise NoQemu(f"{shlex.join(command)} failed: {done.stderr.strip()[-300:]}")
    return done.stdout


def _version(text: str) -> tuple[int, int, int]:
    words = text.split()
    try:
        numbers = words[words.index("version") + 1].split(".")
        return int(numbers[0]), int(numbers[1]), int(numbers[2])
    except (ValueError, IndexError):
        raise NoQemu(f"no version in {text[:80]!r}") from None


class Qemu:
    """A machine without a guest. `ram` is its RAM, `qtest` everything else of it."""

    def __init__(self, installed: Installed, arguments: Sequence[str], base: int, ram: int) -> None:
        """Start it with these arguments, among them `memory-backend=ram` of its machine. Raises QtestError.

        Its RAM is `ram` bytes from address `base` on.
        """
        self._exit = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iommuctl-qemu-")))
            self._ram_file = self._make_ram(stack, folder / "ram", ram)
            self.ram = FileMemory(self._ram_file, base, ram)
            self._errors = stack.enter_context(open(folder / "stderr", "w+b"))
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(folder / "qtest"))
            listener.listen(1)
            backend = f"memory-backend-file,id=ram,size={ram},mem-path={folder / 'ram'},share=on"
            command = [
                *installed.command, "-run-with", "exit-with-parent=on", "-accel", "qtest",
                "-nodefaults", "-display", "none",
                "-object", backend, "-m", f"{ram >> 20}M", "-qtest", f"unix:{folder / 'qtest'}",
                "-qtest-log", os.devnull, *arguments,
            ]  # fmt: skip
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors
            )
            stack.callback(self._end)
            self.qtest = stack.enter_context(Qtest(self._connection(listener)))
            self._exit = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, QtestError):
            error.add_note(f"QEMU's stderr: {self.complaints()}")
        self.close()

    def close(self) -> None:
        """End the process and remove its files."""
        self._exit.close()

    def written(self) -> Iterator[tuple[int, bytes]]:
        """The parts of RAM that anybody has written: address and content."""
        at = 0
        while at < self.ram.size:
            try:
                at = os.lseek(self._ram_file, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise
            end = os.lseek(self._ram_file, at, os.SEEK_HOLE)
            yield self.ram.base + at, self.ram.read(self.ram.base + at, end - at)
            at = end

    def complaints(self) -> str:
        """What QEMU has written to stderr, its end."""
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), 4000, max(0, size - 4000)).decode(errors="replace")

    @staticmethod
    def _make_ram(stack: contextlib.ExitStack, path: Path, size: int) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, descriptor)
        os.truncate(descriptor, size)
        return descriptor

    def _connection(self, listener: socket.socket) -> socket.socket:
        """QEMU's connection. A process that ends instead is noticed at once."""
        listener.settimeout(0.1)
        for _ in range(int(_START * 10)):
            try:
                return listener.accept()[0]
            except TimeoutError:
                if self._process.poll() is not None:
                    raise QtestError(f"QEMU ended with {self._process.returncode}: {self.complaints()}") from None
        raise QtestError(f"QEMU did not connect within {_START:g} s: {self.complaints()}")

    def _end(self) -> None:
        """The connection is closed by now, which makes QEMU go; one that does not is killed, by its pid."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
