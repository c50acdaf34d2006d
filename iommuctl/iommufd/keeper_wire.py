# SPDX-License-Identifier: Apache-2.0
"""What the keeper and its clients say to each other: packets of one JSON object, with descriptors beside it.

Each request has one answer. Requests are `{"ask": "hello" | "put" | "get" | "drop" | "list" | "stop", …}`; what each of
them takes and brings stands at its method in keeper_service.py. What cannot be done is answered with
`{"error": what, "id": error id}`. Only light modules of the standard library are imported, as the keeper stays in
memory for weeks.
"""

import array
import contextlib
import json
import os
import socket
import stat
from collections.abc import Sequence

TYPE_CHECKING = False

if TYPE_CHECKING:
    from pathlib import Path

Message = dict[str, object]

SOCKET = "keeper.sock"
MOST_BYTES = 4096
"""Of a packet, in both directions."""
MOST_DESCRIPTORS = 64
"""Of a packet; the kernel's own limit is 253."""
MOST_NAME = 255
"""Characters of a name: systemd's limit for the names of descriptors (FDNAME_MAX)."""
RUNS_ALREADY = 3
"""Exit code of a keeper that found another one at work for its folder."""

_ANCILLARY_BYTES = socket.CMSG_SPACE(4 * MOST_DESCRIPTORS)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:._-"


class Broken(Exception):
    """What came is no message: too long, not JSON, not an object."""


class NotPrivate(Exception):
    """The folder is not the user's own, or others can look into it."""


def is_name(text: object) -> bool:
    """Whether a descriptor can have that name: 1 to 255 characters of [A-Za-z0-9:._-]."""
    return isinstance(text, str) and 0 < len(text) <= MOST_NAME and not text.strip(_LETTERS)


def encode(message: Message) -> bytes:
    """The bytes of a message, as short as JSON can be, so that an answer has room for the names of its request."""
    return json.dumps(message, separators=(",", ":")).encode()


def send(connection: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one packet. Raises OSError."""
    if descriptors:
        socket.send_fds(connection, [encode(message)], list(descriptors))
    else:
        connection.send(encode(message))


def receive(connection: socket.socket) -> tuple[Message, list[int]]:
    """The next packet, and the descriptors that came with it, which are not inherited by programs that are run.

    Raises EOFError at the end of the connection, Broken, OSError; there are no descriptors left open then.
    """
    # socket.recv_fds() of Python 3.11 does not pass its flags on.
    text, ancillary, flags, _ = connection.recvmsg(MOST_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) // descriptors.itemsize * descriptors.itemsize])
    try:
        if not text:
            raise EOFError
        if flags & socket.MSG_TRUNC:
            raise Broken(f"a packet has more than {MOST_BYTES} bytes")
        if flags & socket.MSG_CTRUNC:
            raise Broken(f"a packet has more than {MOST_DESCRIPTORS} descriptors, or there is no room for them")
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            raise Broken("a packet is not JSON") from None
        if not isinstance(message, dict):
            raise Broken("a packet is not a JSON object")
    except BaseException:
        close_all(descriptors)
        raise
    return message, descriptors.tolist()


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors that somebody passed; what their files say to it (NFS, quotas) is not our concern."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def open_folder(folder: "str | Path") -> int:
    """The state folder as a descriptor. Raises OSError, NotPrivate.

    Whoever can write there could put a socket of his own in the keeper's place.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077:
        return descriptor
    os.close(descriptor)
    mode, owner = stat.S_IMODE(status.st_mode), status.st_uid
    raise NotPrivate(f"its mode is {mode:04o} and its owner uid {owner}; mode 0700 and uid {os.geteuid()} are needed")


def address(folder: int) -> str:
    """Where the socket is, by the folder's descriptor: a path can be longer than the 108 bytes of sun_path."""
    return f"/proc/self/fd/{folder}/{SOCKET}"
