# SPDX-License-Identifier: Apache-2.0
"""Mutants before their judges, each in a process of its own."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from tests.mutants.judges import VECTORS, differential, first_failure
from tests.mutants.shifting import Mutant, declare

_FORK = multiprocessing.get_context("fork")
_LIMIT = 600
"""Seconds after which a child is ended."""


class Verdict(NamedTuple):
    """Which test of each judge has noticed a mutant, if any."""

    mutant: Mutant
    qemu: str | None
    vectors: str | None


class _Child(NamedTuple):
    """A process, and where its answer comes from."""

    process: multiprocessing.process.BaseProcess
    connection: Connection


def judged(mutants: Sequence[Mutant], swept: Mapping[str, frozenset[str]], chunks: int, jobs: int) -> Iterator[Verdict]:
    """The verdicts on these mutants, as they come. `swept` is by architecture; `jobs` processes run at once.

    Tests that do not come to an end have noticed the mutant, too.
    """
    waiting = list(reversed(mutants))
    running: dict[Mutant, _Child] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            running[mutant] = _start(_judge, mutant, swept[mutant.architecture], chunks)
        ready = wait([child.connection for child in running.values()])
        for mutant, child in [*running.items()]:
            if child.connection in ready:
                del running[mutant]
                try:
                    yield _answer(child)
                except TimeoutError:
                    yield Verdict(mutant, "its tests do not end", None)


def in_child(function: Callable[..., Any], *arguments: object) -> Any:
    """What the function returns in a process of its own, which takes along whatever it imports.

    Raises RuntimeError where it fails there, and TimeoutError where it does not come to an end.
    """
    return _answer(_start(function, *arguments))


def _judge(mutant: Mutant, swept: frozenset[str], chunks: int) -> Verdict:
    declare(mutant)
    own = swept & {mutant.layout, mutant.layout.removesuffix("Rev3")}
    architecture = mutant.architecture
    qemu = first_failure(differential(architecture, sorted(own), chunks))
    return Verdict(mutant, qemu, first_failure(VECTORS[architecture]))


def _start(function: Callable[..., Any], *arguments: object) -> _Child:
    ours, theirs = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_run, args=(theirs, function, *arguments))
    process.start()
    theirs.close()
    return _Child(process, ours)


def _run(connection: Connection, function: Callable[..., Any], *arguments: object) -> None:
    signal.alarm(_LIMIT)
    connection.send(function(*arguments))


def _answer(child: _Child) -> Any:
    with child.connection:
        try:
            return child.connection.recv()
        except EOFError:
            child.process.join()
            if child.process.exitcode == -signal.SIGALRM:
                raise TimeoutError(f"no answer within {_LIMIT} s") from None
            raise RuntimeError(f"a child ended with {child.process.exitcode}") from None
