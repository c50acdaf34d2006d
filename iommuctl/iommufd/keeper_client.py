# SPDX-License-Identifier: Apache-2.0
"""The client of the keeper, the process that holds file descriptors between two commands.

A command that makes kernel objects puts the descriptors that hold them; the next command gets them back by name. The
boot id tells whether they are still the same objects: rows that name another one tell of objects that are gone.
"""

import os
import socket
import time
from pathlib import Path
from typing import Self

from iommuctl.errors import IommuError, Lost, NoRoom, PermissionRefused, SystemFailed, Usage
from iommuctl.iommufd import keeper_wire as wire

ANSWER_SECONDS = 5.0
"""How long a keeper may take, to start and to answer."""
IDLE_SECONDS = 60
"""After which a keeper that was started on demand ends, if it holds nothing and nobody is connected."""

_ERRORS: dict[str, type[IommuError]] = {one.id: one for one in (NoRoom, PermissionRefused, Usage)}
_RETRY_SECONDS = 0.005


class Keeper:
    """A connection to the keeper of a state folder. Not for use in several threads, or on both sides of a fork.

    All methods but close raise Lost when the keeper has died and nothing brought its descriptors back, SystemFailed
    when it does not answer for 5 seconds.
    """

    def __init__(self, folder: Path, connection: socket.socket) -> None:
        """Use `connect` or `start`."""
        self._folder = folder
        self._connection = connection
        self._held: dict[str, int] = {}
        answer, _ = self._converse({"ask": "hello"})
        self.boot = str(answer["boot"])
        """Random, made when a keeper starts with nothing: another one means that all earlier objects are gone."""
        self.pid = int(str(answer["pid"]))

    @classmethod
    def connect(cls, folder: Path) -> Self | None:
        """Connect to the keeper of a state folder; None where none runs. Starts none, but systemd may.

        Raises PermissionRefused: the folder is not private to this user.
        """
        raise NotImplementedError

    @classmethod
    def start(cls, folder: Path) -> Self:
        """Connect, or start a keeper in the background first; it outlives this process, and the shell.

        Makes the folder (0700) where there is none. Raises PermissionRefused as `connect` does, SystemFailed with the
        keeper's own last words when it does not come up within 5 seconds.
        """
        raise NotImplementedError

    def put(self, name: str, fd: int) -> None:
        """Have a copy of `fd` held under a name, in place of what it held. The caller's own stays his to close.

        name: 1 to 255 characters of [A-Za-z0-9:._-]. Raises Usage (no such name can be), NoRoom (the keeper is full).
        """
        raise NotImplementedError

    def get(self, name: str) -> int | None:
        """A copy of the descriptor held under a name, or None; it is not inherited by programs that are run.

        It belongs to this object: the same one at each call, until `put` or `drop` of the name, or `close`, close it.
        Another client's `put` of the same name is not noticed.
        """
        raise NotImplementedError

    def drop(self, name: str) -> None:
        """Have the keeper close what it holds under a name, if anything, and close our copy from `get`, too."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """The names under which something is held, sorted."""
        raise NotImplementedError

    def stop(self) -> None:
        """Have the keeper close all that it holds and end, and close this connection."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection and all descriptors that `get` gave."""
        raise NotImplementedError
