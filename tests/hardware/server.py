# SPDX-License-Identifier: Apache-2.0
"""Processes for commands: `python -m tests.hardware.server` forks one for each, with the modules loaded beforehand.

Where no hardware helps to emulate a machine, starting Python and importing takes seconds. A process of this server has
what a command has that was started anew (its own standard streams, environment and descriptors, none of the tests'
own) and runs the program's `main`. One request is one line of JSON on stdin, one answer is one on stdout.
"""

import importlib
import json
import os
import pkgutil
import signal
import sys
from typing import Any

from tests.hardware import doomed

LIMIT = 120
"""Seconds after which a command is killed."""
_PACKAGES = ("iommuctl.cli", "iommuctl.iommufd", "iommuctl.kernel", "iommuctl.state")
_MODULES = ("typer", "sqlite3", "ctypes", "iommuctl.iommu", "iommuctl_vtd.backend")


def load() -> None:
    """Import what commands import."""
    for name in _MODULES:
        importlib.import_module(name)
    for name in _PACKAGES:
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__, name + "."):
            importlib.import_module(module.name)


def serve() -> None:
    """Answer requests until there are no more."""
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run a command in a process of its own; its exit code (negative: the signal) and what it printed."""
    streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    os.write(streams[0], request["stdin"].encode())
    os.lseek(streams[0], 0, os.SEEK_SET)
    pid = os.fork()
    if pid == 0:
        _become(request, streams)
    _, status = os.waitpid(pid, 0)
    _, out, err = (_read(stream) for stream in streams)
    return {"code": os.waitstatus_to_exitcode(status), "out": out, "err": err}


def _become(request: dict[str, Any], streams: list[int]) -> None:
    code = 1
    try:
        signal.alarm(LIMIT)
        for descriptor, stream in enumerate(streams):
            os.dup2(stream, descriptor)
        os.closerange(3, 256)
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, closefd=False) for number, mode in enumerate(("r", "w", "w"))
        )
        sys.argv = ["iommuctl", *request["words"]]
        if request["dies"]:
            doomed.die(**request["dies"])
        from iommuctl.__main__ import main

        code = main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _read(stream: int) -> str:
    with open(stream, "rb") as file:
        file.seek(0)
        return file.read().decode(errors="replace")


if __name__ == "__main__":
    load()
    serve()
