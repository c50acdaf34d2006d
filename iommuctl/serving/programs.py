# SPDX-License-Identifier: Apache-2.0
"""Programs that answer groups of page requests: a process for each, JSON in, JSON out, and bounded in all it can do.

A program is not trusted to be well-behaved. It may print anything or nothing, hang, die, or leave children behind: its
group is answered invalid then. What is in its process group does not outlive its answer.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from iommuctl.architecture import PageResponse
from iommuctl.handlers import Waiting
from iommuctl.model import Slot
from iommuctl.serving.documents import question

MOST_OUTPUT = 64 << 10
"""Bytes that a program may print; an answer has some twenty."""
_TOO_MUCH = f"it printed more than {MOST_OUTPUT >> 10} KiB"
_RESPONSES: Mapping[str, PageResponse] = {"success": "success", "invalid": "invalid", "failure": "failure"}


class Said(NamedTuple):
    """What came of a program: the response to its group, and why that is not what the program wanted to say."""

    key: int
    response: PageResponse
    because: str = ""


class Programs:
    """The programs that run. `state` is the state folder, which they are told of; `timeout` is in seconds."""

    def __init__(self, state: Path, timeout: float) -> None:
        self._environment = {**os.environ, "IOMMUCTL_STATE": str(state.absolute())}
        self._timeout = timeout
        self._selector = selectors.DefaultSelector()
        self._running: dict[Slot, _Program] = {}

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, slot: Slot) -> bool:
        """Whether one runs for that slot."""
        return slot in self._running

    def start(self, waiting: Waiting) -> Said | None:
        """Run the slot's handler for the group; returns what came of one that cannot be run."""
        assert waiting.handler
        try:
            process = _started(waiting.handler.program, json.dumps(question(waiting)), self._environment)
        except (OSError, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            what = f"{waiting.handler.program[0]} cannot be run: {reason[:1].lower()}{reason[1:]}"
            return Said(waiting.group.id, "invalid", what)
        program = _Program(waiting.group.id, process, time.monotonic() + self._timeout)
        self._running[waiting.group.slot] = program
        for source in (program.output, program.end):
            self._selector.register(source, selectors.EVENT_READ)
        return None

    def wait(self, seconds: float) -> None:
        """Wait until a program prints something or ends, at most so long, and no longer than one of them may run."""
        for program in self._running.values():
            seconds = min(seconds, program.deadline - time.monotonic())
        self._selector.select(max(0.0, seconds))

    def ended(self) -> list[Said]:
        """What came of those that have ended since, or that have to."""
        said = []
        for slot, program in list(self._running.items()):
            if not program.read() and program.output in self._selector.get_map():
                self._selector.unregister(program.output)
            if because := program.has_to_end(self._timeout):
                self._end(slot, program)
                said.append(Said(program.key, "invalid", because))
            elif program.has_ended():
                self._end(slot, program)
                said.append(Said(program.key, *program.answer()))
        return said

    def close(self) -> None:
        """Kill all of them; their groups go on waiting."""
        for slot, program in list(self._running.items()):
            self._end(slot, program)
        self._selector.close()

    def _end(self, slot: Slot, program: "_Program") -> None:
        for source in (program.output, program.end):
            if source in self._selector.get_map():
                self._selector.unregister(source)
        del self._running[slot]
        program.end_all()


class _Program:
    """One process, and what it has printed so far. `output` and `end` are descriptors that can be waited for."""

    def __init__(self, key: int, process: "subprocess.Popen[bytes]", deadline: float) -> None:
        assert process.stdout
        self.key = key
        self.deadline = deadline
        self.output = process.stdout.fileno()
        self.end = os.pidfd_open(process.pid)
        self._process = process
        self._text = b""
        os.set_blocking(self.output, False)

    def read(self) -> bool:
        """Take what it has printed. Returns whether there may be more."""
        while len(self._text) <= MOST_OUTPUT:
            try:
                piece = os.read(self.output, MOST_OUTPUT + 1 - len(self._text))
            except BlockingIOError:
                return True
            if not piece:
                return False
            self._text += piece
        return False

    def has_to_end(self, timeout: float) -> str:
        """Why it cannot go on; "" while it can."""
        if len(self._text) > MOST_OUTPUT:
            return _TOO_MUCH
        if time.monotonic() >= self.deadline and not self.has_ended():
            return f"it did not end within {timeout:g} s"
        return ""

    def has_ended(self) -> bool:
        # Its process id, and so that of its group, is its own until it is waited for.
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PIDFD, self.end, flags) is not None

    def end_all(self) -> None:
        """Kill what is left of its process group."""
        self.read()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self.end)
        assert self._process.stdout
        self._process.stdout.close()

    def answer(self) -> tuple[PageResponse, str]:
        """The response of one that has ended by itself, or invalid and why."""
        code = self._process.returncode
        if code:
            return "invalid", f"its exit code was {code}" if code > 0 else f"it was killed by signal {-code}"
        if len(self._text) > MOST_OUTPUT:
            return "invalid", _TOO_MUCH
        if not self._text.strip():
            return "invalid", "it printed nothing"
        return _response(self._text)


def _response(text: bytes) -> tuple[PageResponse, str]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return "invalid", "what it printed is not one JSON document"
    response = document.get("response") if isinstance(document, dict) else None
    if not isinstance(response, str) or response not in _RESPONSES:
        return "invalid", "what it printed has no response that is success, invalid or failure"
    return _RESPONSES[response], ""


def _started(words: tuple[str, ...], text: str, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    # A file and not a pipe: one that does not read would have its pipe full.
    stdin = os.memfd_create("page-requests", os.MFD_CLOEXEC)
    try:
        os.write(stdin, text.encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        return subprocess.Popen(words, stdin=stdin, stdout=subprocess.PIPE, env=environment, process_group=0)
    finally:
        os.close(stdin)
