# SPDX-License-Identifier: Apache-2.0
"""What a change was about to do to the kernel, written before it does it: the file `intents` of a state folder.

Rows are the truth. A command that is killed between its first call to the kernel and the end of its commit leaves
intents, and the next one has the backend bring what they name to what the rows say (hookspecs.iommuctl_repair). The
file has a line of JSON for each; the first names the backend, which rows may not do yet. It covers the death of the
process; loss of power ends the kernel's objects, too.
"""

import errno
import json
import os
from pathlib import Path
from typing import Any

from iommuctl.errors import StateDamaged


class IntentLog:
    """The intents of one state folder, whose lock is held."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "intents"
        self._descriptor = -1

    def pending(self) -> bool:
        """Whether a change was killed, or failed, that had begun to call the kernel."""
        try:
            return self._path.stat().st_size > 0
        except FileNotFoundError:
            return False

    def read(self) -> tuple[str, list[dict[str, Any]]]:
        """The backend, and its intents in their order. A line that was not finished announces a call never made."""
        lines = self._path.read_bytes().split(b"\n")[:-1] if self.pending() else []
        try:
            found = [json.loads(line) for line in lines]
            if found and not (isinstance(found[0], str) and all(isinstance(one, dict) for one in found[1:])):
                raise ValueError
        except ValueError:
            raise StateDamaged(
                f"{self._path} is damaged",
                because="it is not what iommuctl writes there",
                hint="remove the file; `iommuctl check` then tells whether the kernel's objects are as they should be",
            ) from None
        return (found[0], found[1:]) if found else ("", [])

    def add(self, backend: str, intent: dict[str, Any]) -> None:
        """Note an intent; when this returns, the next command would find it. The file holds those of one backend."""
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
        lines = [intent] if os.fstat(self._descriptor).st_size else [backend, intent]
        text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        if os.write(self._descriptor, text) != len(text):
            # What was not noted must not be done.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def clear(self) -> None:
        """What was intended is done, or undone."""
        if self.pending():
            os.truncate(self._path, 0)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
