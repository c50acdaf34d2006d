# SPDX-License-Identifier: Apache-2.0
"""A command that is killed at one of its calls to the kernel: ioctls of iommufd and of VFIO, and page requests."""

import os
import signal
from collections.abc import Callable
from itertools import count
from typing import Any


def die(call: int, when: str) -> None:
    """Have this process killed before or after its call of that number, the first is 1."""
    from iommuctl.iommufd import fault_queue, session, vfio

    numbers = count(1)

    def doomed(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            number = next(numbers)
            if number == call and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*arguments)
            finally:
                # Also when the kernel refused it.
                if number == call:
                    os.kill(os.getpid(), signal.SIGKILL)

        return called

    session.ioctl = doomed(session.ioctl)  # type: ignore[attr-defined]
    vfio.ioctl = doomed(vfio.ioctl)  # type: ignore[attr-defined]
    fault_queue.read = doomed(fault_queue.read)  # type: ignore[attr-defined]
    fault_queue.write = doomed(fault_queue.write)  # type: ignore[attr-defined]
