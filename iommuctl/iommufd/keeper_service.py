# SPDX-License-Identifier: Apache-2.0
"""The keeper's work: descriptors by name, and requests for them by clients that are not trusted to be well-behaved.

A client can send anything, say nothing, leave half-way or not read its answers: it gets an error or loses its
connection, and nobody else notices. One thread, one packet of a client at a time, nothing waits for a client.
"""

import array
import contextlib
import os
import select
import socket
from collections.abc import Callable, Sequence

from iommuctl.iommufd import keeper_wire as wire
from iommuctl.iommufd.keeper_store import Store

MOST_CLIENTS = 64
MOST_HELD = 8192
"""Names; less where the limit of open files is low. The store of the systemd unit has room for as many."""

_MOST_LINES = 1000
_LIST_BYTES = wire.MOST_BYTES - 64

Answer = tuple[wire.Message, Sequence[int]]


class Refused(Exception):
    """A request cannot be met; `id` is an error id."""

    def __init__(self, what: str, id: str = "usage") -> None:
        super().__init__(what)
        self.id = id


class Service:
    """What is held, who is connected, and the answers."""

    def __init__(self, listening: socket.socket, held: dict[str, int], boot: str, store: Store, room: int) -> None:
        """room: how many names may be held at most."""
        self._listening = listening
        self._held = held
        self._boot = boot
        self._store = store
        self._room = room
        self._clients: dict[int, socket.socket] = {}
        self._silent: dict[int, None] = {}
        self._stopped = False
        self._lines = _MOST_LINES
        self._poll = select.poll()
        self._poll.register(listening, select.POLLIN)
        listening.setblocking(False)

    def run(self, idle: float | None, reachable: Callable[[], bool], ending: int) -> None:
        """Answer until a client says stop, `ending` can be read, or nobody was connected for `idle` seconds and nothing
        is to be kept.

        What is held need not be kept when the folder is gone, so that nobody can ask for it any more.
        """
        self._poll.register(ending, select.POLLIN)
        while not self._stopped:
            wait = None if idle is None or self._clients else idle * 1000
            ready = self._poll.poll(wait)
            if not ready and not (self._held and reachable()):
                return
            # The door comes last: those that leave make room for those that wait there.
            for descriptor, _ in sorted(ready, key=lambda one: one[0] == self._listening.fileno()):
                if self._stopped or descriptor == ending:
                    return
                if descriptor in self._clients:
                    self._serve(self._clients[descriptor])
                elif descriptor == self._listening.fileno():
                    self._welcome()

    def _welcome(self) -> None:
        try:
            client, _ = self._listening.accept()
        except OSError as failure:
            self._log(f"nobody can connect: {failure}")
            select.select([], [], [], 0.1)
            return
        client.setblocking(False)
        uid = array.array("I", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        if uid != os.geteuid():
            self._log(f"refused uid {uid}")
            self._turn_away(client, Refused(f"the keeper serves uid {os.geteuid()} alone", "permission"))
        elif len(self._clients) < MOST_CLIENTS or self._leave_silent():
            self._clients[client.fileno()] = client
            self._silent[client.fileno()] = None
            self._poll.register(client, select.POLLIN)
        else:
            self._turn_away(client, Refused(f"the keeper has {MOST_CLIENTS} clients already", "no-room"))

    def _turn_away(self, client: socket.socket, refused: Refused) -> None:
        with client, contextlib.suppress(OSError):
            wire.send(client, _told(refused))

    def _leave_silent(self) -> bool:
        """Part with the client that has been connected longest without a word, if there is one."""
        for descriptor in self._silent:
            self._leave(self._clients[descriptor])
            return True
        return False

    def _leave(self, client: socket.socket) -> None:
        self._poll.unregister(client)
        self._silent.pop(client.fileno(), None)
        del self._clients[client.fileno()]
        client.close()

    def _serve(self, client: socket.socket) -> None:
        """Read one request and answer it. Who does not read the answers is left."""
        try:
            try:
                message, passed = wire.receive(client)
            except BlockingIOError:
                return
            except wire.Broken as broken:
                wire.send(client, _told(Refused(str(broken))))
                return
            self._silent.pop(client.fileno(), None)
            try:
                answer, descriptors = self._answer(message, passed)
            except Refused as refused:
                answer, descriptors = _told(refused), ()
            finally:
                wire.close_all(passed)
            wire.send(client, answer, descriptors)
        except (EOFError, OSError):
            self._leave(client)
        except Exception as mistake:
            # Whatever it is: what is held cannot be made again, and one client can do without its answer.
            self._log(f"a request failed: {mistake!r}")
            self._leave(client)

    def _answer(self, message: wire.Message, passed: list[int]) -> Answer:
        match message.get("ask"):
            case "hello":
                return {"boot": self._boot, "pid": os.getpid()}, ()
            case "put":
                return self._put(_name(message.get("name")), passed)
            case "get":
                return self._get(message.get("names"))
            case "drop":
                return self._drop(_name(message.get("name")))
            case "list":
                return self._list(message.get("after"))
            case "stop":
                return self._stop()
        raise Refused("no such request")

    def _put(self, name: str, passed: list[int]) -> Answer:
        """put {name} with one descriptor: {}. It takes the place of what the name stood for."""
        if len(passed) != 1:
            raise Refused(f"put comes with one descriptor, not with {len(passed)}")
        if name in self._held:
            self._drop(name)
        elif len(self._held) >= self._room:
            raise Refused(f"the keeper holds {self._room} descriptors already", "no-room")
        self._held[name] = passed.pop()
        self._tell_store(lambda: self._store.keep(name, self._held[name]))
        return {}, ()

    def _get(self, names: object) -> Answer:
        """get {names[]}, at most 64: {missing[]}, and the descriptors of the others in their order."""
        if not isinstance(names, list) or len(names) > wire.MOST_DESCRIPTORS:
            raise Refused(f"get names {wire.MOST_DESCRIPTORS} descriptors at most")
        asked = [_name(name) for name in names]
        found = [self._held[name] for name in asked if name in self._held]
        return {"missing": [name for name in asked if name not in self._held]}, found

    def _drop(self, name: str) -> Answer:
        """drop {name}: {}. The answer comes when the descriptor is closed, be it in systemd's store as well."""
        descriptor = self._held.pop(name, None)
        if descriptor is not None:
            self._tell_store(lambda: self._store.drop(name))
            wire.close_all([descriptor])
        return {}, ()

    def _list(self, after: object) -> Answer:
        """list {after}: {names[], more}: sorted, those behind `after`, as many as a packet holds."""
        if not isinstance(after, str):
            raise Refused("list tells the name to begin after")
        rest = sorted(name for name in self._held if name > after)
        names, room = [], _LIST_BYTES
        for name in rest:
            room -= len(name) + 3
            if room < 0:
                break
            names.append(name)
        return {"names": names, "more": len(names) < len(rest)}, ()

    def _stop(self) -> Answer:
        """stop {}: {}, when all is closed; the connection ends when another keeper can be started."""
        for name in list(self._held):
            self._drop(name)
        self._tell_store(lambda: self._store.drop_boot(self._boot))
        self._stopped = True
        return {}, ()

    def _tell_store(self, tell: Callable[[], None]) -> None:
        """What systemd does not take is held all the same, but it will not come back when the keeper dies."""
        try:
            tell()
        except OSError as failure:
            self._log(f"systemd's store of descriptors: {failure}")

    def _log(self, text: str) -> None:
        """A bounded number of lines: whoever is refused must not be able to fill a disk."""
        if self._lines > 0:
            self._lines -= 1
            log(text)


def log(text: str) -> None:
    """Say something on stderr: the journal, a log file or the client that starts the keeper."""
    with contextlib.suppress(OSError):
        os.write(2, f"iommuctl keeper: {text}\n".encode(errors="backslashreplace"))


def _name(name: object) -> str:
    if isinstance(name, str) and wire.is_name(name):
        return name
    raise Refused(f"a name has 1 to {wire.MOST_NAME} characters of [A-Za-z0-9:._-]")


def _told(refused: Refused) -> wire.Message:
    return {"error": str(refused), "id": refused.id}
