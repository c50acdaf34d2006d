# SPDX-License-Identifier: Apache-2.0
"""Keepers as processes of a test, connections that say what no client would, and a service manager for them."""

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

from iommuctl.iommufd import keeper_store
from iommuctl.iommufd import keeper_wire as wire

ROOT = Path(__file__).parents[2]
KEEPER = (sys.executable, "-P", "-S", "-m", "iommuctl.iommufd.keeper")
Found = TypeVar("Found")
SECONDS = 10.0
"""For what takes milliseconds, on a machine that is busy."""


class Process:
    """A keeper in the foreground, with what it says on stderr in a file."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        passed: Mapping[str, int] | None = None,
        notify: str | None = None,
        prelude: str = "",
    ) -> None:
        """passed: descriptors by their names in LISTEN_FDNAMES. prelude: for the shell, as `ulimit -n 300`."""
        self.folder = folder
        self._said = folder.parent / f"{folder.name}.stderr"
        environment = {"PYTHONPATH": str(ROOT), **({"NOTIFY_SOCKET": notify} if notify else {})}
        names = list(passed or ())
        copies = [fcntl.fcntl((passed or {})[name], fcntl.F_DUPFD_CLOEXEC, 200) for name in names]
        if passed is not None:
            environment |= {"LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}
        command = ["/bin/sh", "-c", f'{prelude}; LISTEN_PID=$$ exec "$0" "$@"'.lstrip("; "), *KEEPER, "--state"]
        self.pid = os.posix_spawn(
            "/bin/sh",
            [*command, str(folder), *options],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                (os.POSIX_SPAWN_OPEN, 2, str(self._said), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                *((os.POSIX_SPAWN_DUP2, copy, 3 + index) for index, copy in enumerate(copies)),
            ],
        )
        self._code: int | None = None
        for copy in copies:
            os.close(copy)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._code is None:
            self.kill(signal.SIGKILL)
            self.wait()

    def kill(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code, when it has ended."""
        if self._code is None:
            ended = os.pidfd_open(self.pid)
            ready, _, _ = select.select([ended], [], [], SECONDS)
            os.close(ended)
            if not ready:
                os.kill(self.pid, signal.SIGKILL)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            assert ready, "it did not end"
        return self._code

    def said(self) -> str:
        return self._said.read_text()

    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@contextlib.contextmanager
def running(folder: Path, *options: str, prelude: str = "") -> Iterator[Process]:
    """A keeper that answers, and that nobody is connected to."""
    folder.mkdir(mode=0o700, exist_ok=True)
    with Process(folder, *options, prelude=prelude) as process:
        connect(folder).close()
        yield process


@contextlib.contextmanager
def running_for_a_client(folder: Path, *options: str) -> Iterator[tuple[Process, socket.socket]]:
    """A keeper and a client that was connected before it began, so that it cannot have been idle."""
    folder.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(folder / wire.SOCKET))
        listening.listen()
        with (
            connect(folder) as client,
            Process(folder, *options, passed={keeper_store.SOCKET_NAME: listening.fileno()}) as process,
        ):
            yield process, client


def connect(folder: Path) -> socket.socket:
    """A connection to the folder's keeper, once it listens."""
    opened = wire.open_folder(folder)
    try:
        return eventually(lambda: _connected(wire.address(opened)))
    finally:
        os.close(opened)


def _connected(address: str) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(SECONDS)
    try:
        connection.connect(address)
    except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
        connection.close()
        return None
    return connection


def eventually(look: Callable[[], Found | None]) -> Found:
    """What a look brings as soon as it brings something that is true."""
    deadline = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.002)
    return found


def ask(
    connection: socket.socket, descriptors: Sequence[int] = (), **message: object
) -> tuple[wire.Message, list[int]]:
    """A request and its answer."""
    wire.send(connection, message, descriptors)
    return wire.receive(connection)


def memory(text: bytes) -> int:
    """A descriptor to tell from others: a memfd that holds a text."""
    descriptor = os.memfd_create("test")
    os.write(descriptor, text)
    return descriptor


def text(descriptor: int) -> bytes:
    """What such a memfd holds; closes the descriptor."""
    try:
        return os.pread(descriptor, 100, 0)
    finally:
        os.close(descriptor)


class Manager:
    """A service manager's side of sd_notify(3): it keeps descriptors for services, and gives them to a new process."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)
        self.kept: dict[str, int] = {}
        self.ready = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.place)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"END", self.place)
        self._thread.join()
        self._socket.close()
        wire.close_all(list(self.kept.values()))

    def _read(self) -> None:
        while (received := socket.recv_fds(self._socket, 4096, 4))[0] != b"END":
            said = dict(line.split("=", 1) for line in received[0].decode().splitlines())
            descriptors = received[1]
            name = said.get("FDNAME", "")
            assert ":" not in name
            if "FDSTORE" in said:
                assert said["FDPOLL"] == "0"
                assert name not in self.kept
                self.kept[name] = descriptors.pop()
            elif "FDSTOREREMOVE" in said:
                wire.close_all([self.kept.pop(name)] if name in self.kept else [])
            elif "READY" in said:
                self.ready.set()
            wire.close_all(descriptors)
