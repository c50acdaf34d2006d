# SPDX-License-Identifier: Apache-2.0
"""Writes to sysfs that may block in the kernel, with an end to the waiting.

An unbind waits for as long as the device is in use, and from then on no signal ends it. So a process of its own writes;
ours stays free to say what happened, and the other one ends when the kernel lets it. It has none of our descriptors: a
copy of the device's would block it for ever, and one of a lock file everyone else.
"""

import errno
import os
import signal
import sys
import time
from typing import Final

SECONDS: Final = 15.0
"""How long to wait. Drivers that wait for firmware when they probe take some seconds."""
PROGRAM: Final = """
import posix, sys
try:
    posix.write(posix.open(sys.argv[1], posix.O_WRONLY), sys.argv[2].encode())
except OSError as error:
    posix._exit(error.errno)
"""


class StillWriting(Exception):
    """The kernel has not finished with a write; the process `pid` waits for it."""

    def __init__(self, pid: int, seconds: float) -> None:
        super().__init__(pid, seconds)
        self.pid = pid
        self.seconds = seconds


def write_bounded(path: str, text: str, seconds: float = SECONDS) -> None:
    """Write `text` to the file in one write. Raises OSError as the kernel answered, StillWriting after the limit."""
    nowhere = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, path, text]
    # Signals of the terminal would end it halfway through several writes.
    pid = os.posix_spawn(command[0], command, {}, file_actions=nowhere, setpgroup=0)
    end = time.monotonic() + seconds
    pause = 0.001
    while (done := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() >= end:
            # A write that has not reached the kernel yet must not happen later.
            os.kill(pid, signal.SIGKILL)
            raise StillWriting(pid, seconds)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    code = os.waitstatus_to_exitcode(done[1])
    if code:
        number = code if code > 0 else errno.EINTR
        raise OSError(number, os.strerror(number), path)
