# SPDX-License-Identifier: Apache-2.0
"""The keeper: a process that holds file descriptors between two commands, and nothing else.

    python -m iommuctl.iommufd.keeper --state DIR [--idle SECONDS] [--detach]

Kernel objects live as long as the descriptors of the iommufd, the VFIO cdevs and the memory. Commands come and go; the
keeper stays. It makes no ioctl and reads no descriptor. `--idle`: end when for so long nobody was connected and nothing
is held. `--detach`: go to the background as soon as clients can connect.
"""

import contextlib
import fcntl
import os
import resource
import signal
import socket
import sys
from typing import NamedTuple

from iommuctl.iommufd import keeper_wire as wire
from iommuctl.iommufd.keeper_service import MOST_CLIENTS, MOST_HELD, Service, log
from iommuctl.iommufd.keeper_store import Store, given

_USAGE = "usage: python -m iommuctl.iommufd.keeper --state DIR [--idle SECONDS] [--detach]"

_LOCK = "keeper.lock"
_LOG = "keeper.log"
_OTHER_FILES = MOST_CLIENTS + 2 * wire.MOST_DESCRIPTORS + 64


class Options(NamedTuple):
    """The command line."""

    state: str = ""
    idle: float | None = None
    detach: bool = False


class Failed(Exception):
    """The keeper cannot begin; `code` is its exit code."""

    def __init__(self, what: str, code: int = 1) -> None:
        super().__init__(what)
        self.code = code


def main(arguments: list[str]) -> int:
    """Hold descriptors until the end; the exit code."""
    ending = _when_told_to_end()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o077)
    try:
        _keep(_parse(arguments), ending)
    except Failed as failed:
        log(str(failed))
        return failed.code
    except OSError as failure:
        log(str(failure))
        return 1
    return 0


def _when_told_to_end() -> tuple[int, int]:
    """A pipe, reader and writer, that can be read from the first SIGTERM or SIGINT on.

    An exception in their place could come where nobody lets it pass.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    return reader, writer


def _keep(options: Options, ending: tuple[int, int]) -> None:
    passed = given()
    came = [*passed.held.values(), *([passed.listening] if passed.listening is not None else ())]
    _close_all_but({0, 1, 2, *ending, *came})
    try:
        folder = wire.open_folder(options.state)
    except wire.NotPrivate as why:
        raise Failed(f"{options.state} is not private: {why}") from None
    lock = _lock(folder)
    store = Store()
    held, boot = passed.held, passed.boot
    if boot is None:
        # What came without the id that clients know it by is nothing to them, and would hold devices for nobody.
        for name, descriptor in held.items():
            store.drop(name)
            os.close(descriptor)
        held, boot = {}, os.urandom(16).hex()
        store.keep_boot(boot)
    listening = _listen(folder) if passed.listening is None else _given_socket(passed.listening)
    try:
        if options.detach:
            _detach(folder)
        os.chdir("/")
        store.ready()
        service = Service(listening, held, boot, store, _room())
        service.run(options.idle, lambda: os.fstat(folder).st_nlink > 0, ending[0])
    finally:
        listening.close()
        if passed.listening is None:
            _unlink_socket(folder)
        os.close(lock)


def _parse(arguments: list[str]) -> Options:
    """By hand: argparse would be a tenth of what the process occupies."""
    options = Options()
    rest = iter(arguments)
    for word in rest:
        if word == "--detach":
            options = options._replace(detach=True)
        elif word == "--state":
            options = options._replace(state=next(rest, ""))
        elif word == "--idle":
            options = options._replace(idle=_seconds(next(rest, "")))
        else:
            raise Failed(_USAGE, 2)
    if not options.state:
        raise Failed(_USAGE, 2)
    return options


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        raise Failed(f"--idle takes seconds, more than none and less than a million: {text!r}", 2)
    return seconds


def _close_all_but(kept: set[int]) -> None:
    """Close what a shell or a program left open for this process: it would stay open for weeks."""
    wire.close_all([descriptor for name in os.listdir("/proc/self/fd") if (descriptor := int(name)) not in kept])


def _lock(folder: int) -> int:
    """The folder's lock, held as long as the descriptor is open."""
    lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Failed("another keeper is at work for this folder", wire.RUNS_ALREADY) from None
    return lock


def _listen(folder: int) -> socket.socket:
    """A socket in the folder. Whoever has the lock may take away what a keeper that was killed has left."""
    _unlink_socket(folder)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(wire.address(folder))
    os.chmod(wire.SOCKET, 0o600, dir_fd=folder)
    listening.listen(2 * MOST_CLIENTS)
    return listening


def _given_socket(descriptor: int) -> socket.socket:
    listening = socket.socket(fileno=descriptor)
    if (listening.family, listening.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        raise Failed("the socket that was passed is no UNIX socket for packets (ListenSequentialPacket=)")
    return listening


def _unlink_socket(folder: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(wire.SOCKET, dir_fd=folder)


def _detach(folder: int) -> None:
    """Go on in a child, so that whoever waits for this process knows that clients can connect.

    The caller has made the session; a child that does not lead it never gets a terminal.
    """
    null = os.open(os.devnull, os.O_RDWR)
    log_file = os.open(_LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    if os.fork():
        os._exit(0)
    for source, target in ((null, 0), (null, 1), (log_file, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(log_file)


def _room() -> int:
    """How many descriptors can be held: as many as the limit of open files leaves, after it was raised."""
    needed = MOST_HELD + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        soft = min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(0, min(MOST_HELD, soft - _OTHER_FILES))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
