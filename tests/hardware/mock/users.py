# SPDX-License-Identifier: Apache-2.0
"""Work done by a process that is not root's, on files that root has opened."""

import os
import resource
from collections.abc import Callable

NOBODY = 65534


def unprivileged(work: Callable[[], str], *, locked: int = 64 << 10) -> str:
    """What `work` returns, or raises, as text: in a process without privileges that may lock so many bytes."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                resource.setrlimit(resource.RLIMIT_MEMLOCK, (locked, locked))
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            answer = work()
        except BaseException as error:  # whatever it is, the parent's test shall see it
            answer = str(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer
