# SPDX-License-Identifier: Apache-2.0
"""The client of the keeper, the process that holds file descriptors between two commands.

A command that makes kernel objects puts the descriptors that hold them; the next command gets them back by name. The
boot id tells whether they are still the same objects: rows that name another one tell of objects that are gone.
"""

import array
import contextlib
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Self

from iommuctl.errors import IommuError, Lost, NoRoom, PermissionRefused, SystemFailed, Usage
from iommuctl.iommufd import keeper_wire as wire

IDLE_SECONDS = 60
"""After which a keeper that was started on demand ends, if it holds nothing and nobody is connected."""

_START_SECONDS = 30.0
_CLOSE_SECONDS = 60.0
"""For an answer. Closing an iommufd with much memory mapped takes the kernel seconds, and the keeper with it."""
_ERRORS: dict[str, type[IommuError]] = {one.id: one for one in (NoRoom, PermissionRefused, Usage)}
_NOT_FOR_THE_KEEPER = ("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET")
_LAST_WORDS = 4096


class Keeper:
    """A connection to the keeper of a state folder. Not for several threads, nor for both sides of a fork.

    All methods but `close` raise Lost when the keeper has died and no other one has come up with the same descriptors,
    and SystemFailed when it does not answer.
    """

    def __init__(self, folder: Path, connection: socket.socket) -> None:
        """For `connect`."""
        self._folder = folder
        self._connection = connection
        self._copies: dict[str, int] = {}
        answer, _ = self._converse({"ask": "hello"})
        self.boot = str(answer["boot"])
        """Random, made when a keeper starts with nothing: another one means that all earlier objects are gone."""
        self.pid = int(str(answer["pid"]))

    @classmethod
    def connect(cls, folder: Path) -> Self | None:
        """Connect to the keeper of a state folder; None where none runs. It starts none, but systemd may.

        Raises PermissionRefused: the folder is not private to this user, or the keeper is another user's.
        """
        try:
            opened = wire.open_folder(folder)
        except FileNotFoundError:
            return None
        except wire.NotPrivate as why:
            raise PermissionRefused(
                f"{folder} is not private",
                because=f"{why}: who can write there can take the place of the process that hands out devices",
                hint=f"chmod 0700 {folder}, or another folder",
            ) from None
        except OSError as failure:
            _failed(folder, failure)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Without a timeout of Python's, which would have `connect` fail at once where many are waiting.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, array.array("l", [int(_START_SECONDS), 0]))
        try:
            connection.connect(wire.address(opened))
            connection.settimeout(_START_SECONDS)
            keeper = cls(folder, connection)
        except (FileNotFoundError, ConnectionError, EOFError):
            connection.close()
            return None
        except BaseException as failure:
            connection.close()
            if isinstance(failure, OSError):
                _failed(folder, failure)
            raise
        finally:
            os.close(opened)
        connection.settimeout(_CLOSE_SECONDS)
        return keeper

    @classmethod
    def start(cls, folder: Path) -> Self:
        """Connect, or start a keeper in the background first: it outlives this process, and the shell.

        Makes the folder (0700) where there is none. Raises PermissionRefused as `connect` does, SystemFailed with the
        keeper's own last words when it does not come up within 30 seconds.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as failure:
            _failed(folder, failure)
        deadline = time.monotonic() + _START_SECONDS
        pause = 0.005
        while (keeper := cls.connect(folder)) is None:
            words = _spawn(folder, deadline)
            if (keeper := cls.connect(folder)) is not None:
                break
            # One that another command started is about to listen, or one that was idle is about to end.
            if time.monotonic() + pause > deadline:
                raise SystemFailed(f"the keeper of {folder} does not come up", because=words)
            time.sleep(pause)
            pause *= 2
        return keeper

    def is_there(self) -> bool:
        """Whether the keeper still has its end of the connection. Asks nothing of it."""
        poll = select.poll()
        poll.register(self._connection, 0)
        return not poll.poll(0)

    def put(self, name: str, fd: int) -> None:
        """Have a copy of `fd` held under a name, in place of what it held. The caller's own stays the caller's.

        name: 1 to 255 characters of [A-Za-z0-9:._-]. Raises Usage (no such name can be), NoRoom (the keeper is full).
        systemd's store of descriptors keeps an open file once: under a second name, it does not survive a restart.
        """
        self._ask({"ask": "put", "name": name}, (fd,))
        self._close_copy(name)

    def get(self, name: str) -> int | None:
        """A copy of the descriptor held under a name, or None; programs that are run do not inherit it.

        It belongs to this object: the same one at each call, closed by `put` and `drop` of the name, and by `close`.
        Another client's `put` of the name is not noticed.
        """
        if name not in self._copies:
            _, descriptors = self._ask({"ask": "get", "names": [name]})
            if not descriptors:
                return None
            self._copies[name] = descriptors[0]
        return self._copies[name]

    def drop(self, name: str) -> None:
        """Have the keeper close what it holds under a name, if anything; our copy from `get` is closed before.

        A copy in systemd's store is taken out of it, too; since version 254 systemd closes it some moments later.
        """
        self._close_copy(name)
        self._ask({"ask": "drop", "name": name})

    def names(self) -> list[str]:
        """The names under which something is held, sorted."""
        names: list[str] = []
        more = True
        while more:
            answer, _ = self._ask({"ask": "list", "after": names[-1] if names else ""})
            page = answer["names"]
            assert isinstance(page, list)
            names += page
            more = bool(answer["more"])
        return names

    def stop(self) -> None:
        """Have the keeper close all that it holds and end, and close this connection.

        Returns when another keeper can be started.
        """
        try:
            self._converse({"ask": "stop"})
            wire.receive(self._connection)
        except (EOFError, ConnectionError):
            pass
        except OSError as failure:
            _failed(self._folder, failure)
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection and all descriptors that `get` gave."""
        wire.close_all(list(self._copies.values()))
        self._copies.clear()
        self._connection.close()

    def _close_copy(self, name: str) -> None:
        if name in self._copies:
            os.close(self._copies.pop(name))

    def _ask(self, message: wire.Message, descriptors: Sequence[int] = ()) -> tuple[wire.Message, list[int]]:
        """An answer: by this keeper, or by its successor if systemd brought one up with the same descriptors.

        All requests can be made twice.
        """
        try:
            return self._converse(message, descriptors)
        except (EOFError, ConnectionError):
            pass
        except OSError as failure:
            _failed(self._folder, failure)
        successor = type(self).connect(self._folder)
        if successor is None or successor.boot != self.boot:
            if successor:
                successor.close()
            raise Lost(
                f"the keeper of {self._folder} has died",
                because="the kernel's objects lived as long as the descriptors that it held",
                hint="`iommuctl recover` builds them again from what the state folder says",
            )
        self._connection.close()
        self._connection, self.pid = successor._connection, successor.pid
        return self._converse(message, descriptors)

    def _converse(self, message: wire.Message, descriptors: Sequence[int] = ()) -> tuple[wire.Message, list[int]]:
        """Raises the error of an answer that tells one, EOFError, OSError."""
        # A keeper that turns a client away says why and closes at once. Its words can still be read, but the kernel
        # tells of the end first: to who sends, or, once, to who receives.
        with contextlib.suppress(ConnectionError):
            wire.send(self._connection, message, descriptors)
        try:
            try:
                answer, came = wire.receive(self._connection)
            except ConnectionError:
                answer, came = wire.receive(self._connection)
        except wire.Broken as broken:
            raise SystemFailed(f"the keeper of {self._folder} gives no answer", because=str(broken)) from None
        if "error" in answer:
            wire.close_all(came)
            raise _ERRORS.get(str(answer.get("id")), SystemFailed)(str(answer["error"]))
        return answer, came


def _spawn(folder: Path, deadline: float) -> str:
    """Run a keeper until clients can connect; what it said. Raises SystemFailed.

    That another one was quicker is no failure.
    """
    import signal

    # -P and -S: modules come from where this one came from, not from the working directory, and `site` is not needed.
    arguments = [sys.executable, "-P", "-S", "-m", "iommuctl.iommufd.keeper", "--detach", "--idle", str(IDLE_SECONDS)]
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_THE_KEEPER}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    reader, writer = os.pipe()
    try:
        pid = os.posix_spawn(
            sys.executable,
            [*arguments, "--state", str(folder.absolute())],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, writer, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD),
        )
    except OSError as failure:
        os.close(reader)
        raise SystemFailed(f"the keeper of {folder} cannot be started", because=str(failure)) from None
    finally:
        os.close(writer)
    words, ended = _listen_to(reader, deadline)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code not in (0, wire.RUNS_ALREADY):
        because = words or ("it took too long" if not ended else f"exit code {code}")
        raise SystemFailed(f"the keeper of {folder} does not start", because=because)
    return words


def _listen_to(reader: int, deadline: float) -> tuple[str, bool]:
    """The end of what comes through a pipe until the deadline, and whether its other side was closed; closes it."""
    words, ended = b"", False
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while not ended and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        read = os.read(reader, _LAST_WORDS)
        words = (words + read)[-_LAST_WORDS:]
        ended = not read
    os.close(reader)
    return words.decode(errors="replace").strip(), ended


def _failed(folder: Path, failure: OSError) -> NoReturn:
    because = "it does not answer" if isinstance(failure, TimeoutError) else str(failure)
    kind = PermissionRefused if isinstance(failure, PermissionError) else SystemFailed
    raise kind(f"the keeper of {folder} cannot be asked", because=because) from None
