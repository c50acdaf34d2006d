# SPDX-License-Identifier: Apache-2.0
"""What the kernel logs while something is done that tells no reason itself, such as a probe.

Source: Documentation/ABI/testing/dev-kmsg.
"""

import os
from typing import Final, Self

LONGEST_RECORD: Final = 8192
MOST_RECORDS: Final = 1000


class KernelLog:
    """The log from now on; silent where it cannot be read (without root, in a container)."""

    def __init__(self, path: str = "/dev/kmsg") -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError:
            self.__exit__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def last_about(self, word: str) -> str:
        """The newest message that has the word; empty if there is none."""
        found = ""
        for _ in range(MOST_RECORDS if self._fd >= 0 else 0):
            try:
                record = os.read(self._fd, LONGEST_RECORD).decode("utf-8", "replace")
            except BrokenPipeError:  # older records were overwritten, newer ones follow
                continue
            except OSError:
                break
            if not record:
                break
            message = record.partition(";")[2].partition("\n")[0]
            if word in message:
                found = "".join(letter if letter.isprintable() else "?" for letter in message[:500])
        return found
