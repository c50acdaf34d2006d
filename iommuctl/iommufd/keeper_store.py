# SPDX-License-Identifier: Apache-2.0
"""What systemd gives a keeper and keeps for it: the socket that it listens on, and the store of file descriptors.

The protocols are those of sd_listen_fds(3) and sd_notify(3). A descriptor in the store outlives the keeper's process,
but not its service: systemd closes all of them when the service is stopped.
"""

import os
import select
import socket
from typing import NamedTuple

from iommuctl.iommufd.keeper_wire import is_name

SOCKET_NAME = "+socket"
"""FileDescriptorName= of the socket unit. Names of what is held have no `+`."""
_BOOT = "+boot-"
_FIRST = 3
_ANSWER_SECONDS = 5.0


class Given(NamedTuple):
    """What systemd passed at the start."""

    listening: int | None
    held: dict[str, int]
    boot: str | None


def given() -> Given:
    """What was passed to this process; the environment does not tell of it any more."""
    count, names = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_FDNAMES", "")
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()) or not count.isdecimal():
        return Given(None, {}, None)
    listening, boot = None, None
    held: dict[str, int] = {}
    for descriptor, name in zip(range(_FIRST, _FIRST + int(count)), names.split(":"), strict=False):
        if name == SOCKET_NAME:
            listening = descriptor
        elif name.startswith(_BOOT):
            boot = name.removeprefix(_BOOT)
        elif is_name(plain := name.replace("@", ":")):
            held[plain] = descriptor
    return Given(listening, held, boot)


class Store:
    """systemd's store of descriptors, or none: then nothing that is said here has an effect."""

    def __init__(self) -> None:
        place = os.environ.pop("NOTIFY_SOCKET", "")
        self._manager: socket.socket | None = None
        if place:
            self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._manager.settimeout(_ANSWER_SECONDS)
            self._manager.connect("\0" + place[1:] if place.startswith("@") else place)

    def keep(self, name: str, descriptor: int) -> None:
        """Have a copy of the descriptor kept, in place of what is kept under the name. Raises OSError.

        FDPOLL=0: systemd would else close what polls as hung up, as devices can.
        """
        self._tell(f"FDSTORE=1\nFDNAME={_spelled(name)}\nFDPOLL=0", descriptor)

    def drop(self, name: str) -> None:
        """Have what is kept under the name closed, and wait until that was understood. Raises OSError."""
        self._tell(f"FDSTOREREMOVE=1\nFDNAME={_spelled(name)}")
        self._wait()

    def keep_boot(self, boot: str) -> None:
        """Have the boot id kept, as the name of a descriptor that is nothing else. Raises OSError."""
        if self._manager:
            marker = os.memfd_create("iommuctl-boot")
            self._tell(f"FDSTORE=1\nFDNAME={_BOOT}{boot}\nFDPOLL=0", marker)
            os.close(marker)

    def drop_boot(self, boot: str) -> None:
        """Have the boot id forgotten. Raises OSError."""
        self._tell(f"FDSTOREREMOVE=1\nFDNAME={_BOOT}{boot}")

    def ready(self) -> None:
        """Say that requests are answered from now on. Raises OSError."""
        self._tell("READY=1")

    def _tell(self, text: str, descriptor: int | None = None) -> None:
        if self._manager and descriptor is not None:
            socket.send_fds(self._manager, [text.encode()], [descriptor])
        elif self._manager:
            self._manager.send(text.encode())

    def _wait(self) -> None:
        """Until the manager has read all that it was told: then it closes the pipe that BARRIER=1 brings it."""
        if not self._manager:
            return
        reader, writer = os.pipe()
        try:
            self._tell("BARRIER=1", writer)
            os.close(writer)
            writer = -1
            poll = select.poll()
            poll.register(reader, 0)
            if not poll.poll(_ANSWER_SECONDS * 1000):
                raise TimeoutError("the service manager does not answer")
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)


def _spelled(name: str) -> str:
    """A name as FDNAME can have it, without `:`; `@` is in no name."""
    return name.replace(":", "@")
