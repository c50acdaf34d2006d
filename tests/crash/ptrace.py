# SPDX-License-Identifier: Apache-2.0
"""Runs a function in a process that dies, or whose disk fails, at a system call of the caller's choice.

The means is ptrace(2) through ctypes, so that the tests need nothing but Python: no strace, no compiler.

    with Tracer() as tracer:
        whole = tracer.run(change, str(folder))                        # nothing goes wrong: whole.calls, whole.writes
        tracer.run(change, str(copy), plan=Kill(3))                    # dies before its third call under the lock
        tracer.run(change, str(copy), plan=Fail(1, errno.ENOSPC))      # its first write under the lock fails

Calls are counted from the mark on: the first exclusive flock(2) that succeeds, or the function's first instruction.
Those of the allocator are left out. They come when the heap happens to be full, so with them a number would not mean
the same call in every run; and what they do dies with the process, so to be killed there or at the next call is the
same.

pytest, its workers and its plugins have threads, and a process with threads must not fork. So a Tracer starts a fresh
interpreter with one thread, the driver, that imports the file of the function and forks a child for each run. The
driver stays warm: a run costs some milliseconds. A function is therefore at the top of its file, and what it takes and
gives back is what JSON can say.
"""

import contextlib
import ctypes
import errno
import functools
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import Any, Literal, NamedTuple, TypeAlias

from tests.crash.calls import ALLOCATOR, COUNTED, REGISTERS, WRITES, Registers

ROOT = Path(__file__).resolve().parents[2]
_INSIDE = "IOMMUCTL_TESTS_TRACED"  # in the environment of a driver

Mark = Literal["lock", "start"]


class Kill(NamedTuple):
    """SIGKILL when the process is about to make call number `at` after the mark, which is then not made."""

    at: int


class Tear(NamedTuple):
    """SIGKILL in the middle of write number `at` after the mark: the first half of its bytes is written.

    A call that writes no bytes, or one, or gathers them from several places, is made whole before the process dies.
    """

    at: int


class Fail(NamedTuple):
    """Write number `at` after the mark is not made and fails with `errno`; if `lasting`, so do all writes after it."""

    at: int
    errno: int
    lasting: bool = False


Plan: TypeAlias = Kill | Tear | Fail


class Raised(NamedTuple):
    """An exception that left the function: the names of its class and bases, nearest first, and what it said."""

    kinds: tuple[str, ...]
    text: str
    errno: int | None
    traceback: str


class Outcome(NamedTuple):
    """How a run ended, and the calls that it began to make after the mark; a killed run ends with the one it died at.

    `writes` are those of `calls` that can fail for lack of room or because of the disk.
    """

    ended: Literal["returned", "raised", "killed"]
    calls: tuple[str, ...]
    writes: tuple[str, ...]
    value: object
    raised: Raised | None


class TracerError(Exception):
    """The harness itself failed: ptrace is not permitted, a run took too long, the driver died."""


class Tracer:
    """A driver process, for as long as the context lasts. `timeout` bounds every single run, in seconds."""

    def __init__(self, *, timeout: float = 60) -> None:
        if _INSIDE in os.environ:
            raise TracerError("a file that starts a Tracer when it is imported would start one in each driver, forever")
        self._driver = subprocess.Popen(
            # `-m` would import this module a second time, under another name than the functions' files know it by.
            [sys.executable, "-c", f"from {_module_name()} import serve; serve({timeout!r})"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, _INSIDE: "1"},
        )
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._requests = self._driver.stdin
        self._answers = self._driver.stdout

    def __enter__(self) -> "Tracer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the driver."""
        self._requests.close()
        self._answers.close()
        self._driver.wait()

    def call(self, function: Callable[..., object], *arguments: object) -> object:
        """Call `function` in the driver itself, with nothing that can go wrong.

        One such call before the first run does the imports and fills the caches that each run would else repeat. The
        function must close what it opens: a run's child inherits what it leaves behind.
        """
        return self._ask("call", function, arguments, {})["value"]

    def run(
        self, function: Callable[..., object], *arguments: object, mark: Mark = "lock", plan: Plan | None = None
    ) -> Outcome:
        """Call `function` in a child of the driver and carry the plan out. Raises TracerError."""
        more: dict[str, object] = {"mark": mark, "plan": plan and [type(plan).__name__, *plan]}
        answer = self._ask("run", function, arguments, more)
        raised = answer["raised"] and Raised(tuple(answer["raised"][0]), *answer["raised"][1:])
        return Outcome(answer["ended"], tuple(answer["calls"]), tuple(answer["writes"]), answer["value"], raised)

    def _ask(
        self, verb: str, function: Callable[..., object], arguments: tuple[object, ...], more: dict[str, object]
    ) -> dict[str, Any]:
        if "<" in function.__qualname__:
            raise TypeError(f"{function.__qualname__} is not at the top of its file: the driver cannot find it")
        request = {"verb": verb, "file": function.__code__.co_filename, "function": function.__qualname__}
        # A driver that is dead gives no answer either.
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(json.dumps({**request, "arguments": arguments, **more}).encode() + b"\n")
            self._requests.flush()
        line = self._answers.readline()
        if not line:
            raise TracerError(f"the driver died with status {self._driver.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "failure" in answer:
            raise TracerError(str(answer["failure"]))
        return answer


@functools.cache
def why_not() -> str | None:
    """Why this machine cannot trace, as a reason to skip a test; None if it can. It is tried, not guessed."""
    if platform.machine() not in REGISTERS:
        return f"tests/crash/ptrace.py does not know the registers of {platform.machine()}"
    try:
        with Tracer(timeout=20) as tracer:
            outcome = tracer.run(_write_one_byte, mark="start", plan=Fail(1, errno.EIO))
    except TracerError as error:
        return f"ptrace does not work here: {error}"
    if outcome.raised is None or outcome.raised.errno != errno.EIO:
        return f"ptrace cannot change a system call here: {outcome}"
    return None


def _write_one_byte() -> None:
    descriptors = os.pipe()
    os.write(descriptors[1], b"x")


# ---- In the driver ----

_PTRACE_TRACEME = 0
_PTRACE_SYSCALL = 24
_PTRACE_SETOPTIONS = 0x4200
_PTRACE_GETREGSET = 0x4204
_PTRACE_SETREGSET = 0x4205
_PTRACE_GET_SYSCALL_INFO = 0x420E
_PTRACE_O_TRACESYSGOOD = 0x01
_PTRACE_O_EXITKILL = 0x100000
_SYSCALL_STOP = signal.SIGTRAP | 0x80  # what TRACESYSGOOD makes of a stop at a call
_AT_ENTRY = 1
_AT_EXIT = 2
_NT_PRSTATUS = 1
_NT_ARM_SYSTEM_CALL = 0x404
_LOCK_EX = 2
_O_CREAT = 0o100
_AT_MOST = 16384  # characters of an exception: the report has to fit into a pipe that nobody reads yet


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info: `words` is the number and six arguments at entry, the result at exit."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("words", ctypes.c_uint64 * 8),
    )


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Child:
    """The traced process, in one of its stops."""

    def __init__(self, pid: int, registers: Registers) -> None:
        self.pid = pid
        self._registers = registers
        self._info = _Info()

    def call(self) -> tuple[int, list[int]]:
        """At the entry of a call: its number and arguments."""
        info = self._look(_AT_ENTRY)
        return info.words[0], info.words[1:7]

    def result(self) -> int:
        """At the exit of a call: what it returns."""
        return ctypes.c_int64(self._look(_AT_EXIT).words[0]).value

    def _look(self, where: int) -> _Info:
        info = self._info
        _ptrace(_PTRACE_GET_SYSCALL_INFO, self.pid, ctypes.sizeof(info), ctypes.addressof(info))
        if info.arch != self._registers.audit:
            raise TracerError(f"a system call of architecture {info.arch:#x} under a kernel of {platform.machine()}")
        if info.op != where:
            raise TracerError(f"a stop of kind {info.op} at a system call, where {where} was due")
        return info

    def skip_call(self) -> None:
        """At the entry of a call: have the kernel not make it. `set_result` at its exit is then what it returns."""
        if self._registers.number is not None:
            self._poke(self._registers.number, -1)
            return
        number = ctypes.c_int32(-1)
        vector = _IoVec(ctypes.addressof(number), ctypes.sizeof(number))
        _ptrace(_PTRACE_SETREGSET, self.pid, _NT_ARM_SYSTEM_CALL, ctypes.addressof(vector))

    def set_count(self, count: int) -> None:
        """At the entry of a call: its third argument."""
        self._poke(self._registers.third, count)

    def set_result(self, result: int) -> None:
        """At the exit of a call: what it returns."""
        self._poke(self._registers.result, result)

    def _poke(self, index: int, value: int) -> None:
        words = (ctypes.c_uint64 * self._registers.words)()
        vector = _IoVec(ctypes.addressof(words), ctypes.sizeof(words))
        _ptrace(_PTRACE_GETREGSET, self.pid, _NT_PRSTATUS, ctypes.addressof(vector))
        if vector.length != ctypes.sizeof(words):
            raise TracerError(f"{vector.length} bytes of registers, not {ctypes.sizeof(words)}")
        words[index] = value & (1 << 64) - 1
        _ptrace(_PTRACE_SETREGSET, self.pid, _NT_PRSTATUS, ctypes.addressof(vector))


class _Run:
    """One run: what was seen of it so far. It stands between the stops of the child and the plan."""

    def __init__(self, child: _Child, report: int, registers: Registers, mark: Mark, plan: Plan | None) -> None:
        self.calls: list[str] = []
        self.writes: list[str] = []
        self._child = child
        self._report = report
        self._names = registers.calls
        self._mark = mark
        self._plan = plan
        self._phase: Literal["before", "function", "counting", "after"] = "before"
        self._inside = False  # a call: entries and exits take turns
        self._locking = False
        self._result: int | None = None  # of the call that is being skipped
        self._dying = False  # at the exit of this call

    def stop(self) -> bool:
        """The child stopped at the entry or exit of a call. Says whether it is to die there."""
        self._inside = not self._inside
        if self._inside:
            number, arguments = self._child.call()
            return self._entry(self._names.get(number) or f"call {number}", arguments)
        return self._exit()

    def _entry(self, name: str, arguments: list[int]) -> bool:
        if name == "write" and arguments[0] == self._report:
            # The child writes there twice: as it begins with the function, and when it is through.
            began = self._phase == "before"
            self._phase = ("counting" if self._mark == "start" else "function") if began else "after"
            return False
        if self._phase == "function":
            self._locking = name == "flock" and bool(arguments[1] & _LOCK_EX)
        if self._phase != "counting" or name in ALLOCATOR:
            return False
        self.calls.append(name)
        if isinstance(self._plan, Kill) and len(self.calls) == self._plan.at:
            return True
        if _is_write(name, arguments):
            self.writes.append(name)
            self._meet_write(name, arguments[2])
        return False

    def _meet_write(self, name: str, count: int) -> None:
        ordinal, plan = len(self.writes), self._plan
        if isinstance(plan, Fail) and (ordinal == plan.at or (plan.lasting and ordinal > plan.at)):
            self._child.skip_call()
            self._result = -plan.errno
        elif isinstance(plan, Tear) and ordinal == plan.at:
            self._dying = True
            if name in COUNTED and count > 1:
                self._child.set_count(count // 2)

    def _exit(self) -> bool:
        if self._result is not None:
            self._child.set_result(self._result)
            self._result = None
        if self._locking and self._child.result() == 0:
            self._phase = "counting"
        self._locking = False
        return self._dying


def _is_write(name: str, arguments: list[int]) -> bool:
    return name in WRITES or (name == "openat" and bool(arguments[2] & _O_CREAT))


def serve(timeout: float) -> None:
    """The driver's whole life: a request a line on stdin, an answer a line on stdout, until stdin ends."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a function prints must not be taken for an answer
    signal.signal(signal.SIGALRM, _too_late)
    # A run is hundreds of hand-overs from one process to the other and back. Between two processors they cost more.
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[os.getpid() % len(processors)]})
    for line in requests:
        request = json.loads(line)
        # The timer is not inherited: the child knows nothing of it.
        signal.setitimer(signal.ITIMER_REAL, timeout)
        try:
            function = _load(request["file"], request["function"])
            if request["verb"] == "call":
                answer: dict[str, object] = {"value": function(*request["arguments"])}
            else:
                answer = _carry_out(function, request["arguments"], request["mark"], _plan(request["plan"]))
        except TracerError as error:
            answer = {"failure": str(error)}
        except Exception:
            answer = {"failure": traceback.format_exc()}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _too_late(number: int, frame: FrameType | None) -> None:
    raise TracerError("it took too long")


def _plan(fields: list[object] | None) -> Plan | None:
    kinds: dict[object, Callable[..., Plan]] = {"Kill": Kill, "Tear": Tear, "Fail": Fail}
    return kinds[fields[0]](*fields[1:]) if fields else None


def _carry_out(
    function: Callable[..., object], arguments: list[object], mark: Mark, plan: Plan | None
) -> dict[str, object]:
    registers = REGISTERS[platform.machine()]
    reports, report = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_child(function, arguments, report)
    try:
        run = _Run(_Child(pid, registers), report, registers, mark, plan)
        killed = _trace(pid, run)
    except BaseException:
        _end(pid)
        raise
    finally:
        os.close(report)
        with os.fdopen(reports, "rb") as file:
            # Of a run that failed too, in which case its children have no report to give and none of them lives.
            text = file.read()
    answer: dict[str, object] = {"calls": run.calls, "writes": run.writes, "value": None, "raised": None}
    if killed:
        return {**answer, "ended": "killed"}
    _begun, _newline, told = text.partition(b"\n")
    if not told:
        raise TracerError(f"the child ended before the function did, at {run.calls[-1:]}")
    return {**answer, **json.loads(told)}


def _be_child(function: Callable[..., object], arguments: list[object], report: int) -> None:
    """What the fork does; it never returns, so that nothing that the driver has open is flushed or closed twice."""
    try:
        if _libc().ptrace(_PTRACE_TRACEME, 0, 0, 0) < 0:
            os._exit(ctypes.get_errno())
        os.kill(os.getpid(), signal.SIGSTOP)
        os.write(report, b"\n")
        try:
            told: dict[str, object] = {"ended": "returned", "value": function(*arguments)}
        except BaseException as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            trace = traceback.format_exc()[-_AT_MOST:]
            raised = [kinds, str(error)[:_AT_MOST], getattr(error, "errno", None), trace]
            told = {"ended": "raised", "raised": raised}
        os.write(report, json.dumps(told).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _trace(pid: int, run: _Run) -> bool:
    """Drive the child from its first stop to its end. Says whether it was killed as planned."""
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        raise TracerError(f"a process may not be traced: {os.strerror(os.waitstatus_to_exitcode(status))}")
    _ptrace(_PTRACE_SETOPTIONS, pid, 0, _PTRACE_O_TRACESYSGOOD | _PTRACE_O_EXITKILL)
    pending = 0
    while True:
        _ptrace(_PTRACE_SYSCALL, pid, 0, pending)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            if os.WIFSIGNALED(status):
                raise TracerError(f"the child died of signal {os.WTERMSIG(status)}, which was not in the plan")
            return False
        pending = os.WSTOPSIG(status)
        if pending == _SYSCALL_STOP:
            pending = 0
            if run.stop():
                _end(pid)
                return True


def _end(pid: int) -> None:
    """Kill the child, and wait until it is gone and the kernel has released its locks."""
    try:
        os.kill(pid, signal.SIGKILL)
        while os.WIFSTOPPED(os.waitpid(pid, 0)[1]):
            pass
    except (ProcessLookupError, ChildProcessError):
        pass  # it has ended already


def _ptrace(request: int, pid: int, address: int, data: int) -> None:
    libc = _libc()
    if libc.ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise TracerError(f"ptrace request {request:#x}: {os.strerror(number)}")


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    return libc


@functools.cache
def _load(file: str, function: str) -> Callable[..., object]:
    module = _load_module(file)
    found: Callable[..., object] = getattr(module, function)
    return found


@functools.cache
def _load_module(file: str) -> ModuleType:
    if Path(file).samefile(__file__):
        return sys.modules[__name__]
    name = f"traced_{Path(file).stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise TracerError(f"{file} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _module_name() -> str:
    """The name of this module as seen from the root of the project, whatever pytest called it."""
    return ".".join(Path(__file__).resolve().relative_to(ROOT).with_suffix("").parts)
