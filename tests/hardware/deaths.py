# SPDX-License-Identifier: Apache-2.0
"""A command that is killed at each of its calls to the kernel, and what the next ones find."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.hardware.held import held
from tests.hardware.shell import Shell

CALLS = 40
"""More than any of these commands makes."""


def typed(shell: Shell, lines: str) -> None:
    for line in lines.split("\n"):
        if line:
            shell(*line.split())


def shown(shell: Shell) -> list[tuple[str, list[object], list[object]]]:
    """All that rows say."""
    domains = [shell.json("domain", "show", each["name"]) for each in shell.json("domain", "list")["domains"]]
    return [(domain["name"], domain["mappings"], domain["slots"]) for domain in domains]


def every_death(
    shell: Shell,
    words: Sequence[object],
    undo: Sequence[Sequence[object]],
    state: Path,
    *,
    before: Callable[[], None],
    after: Callable[[], None],
) -> None:
    """Kill the command at each of its calls, before and after it; check what the next commands find.

    `before` and `after` check what the device does in the old state and in the new one.
    """
    with held(state) as machine:
        objects = machine.objects()
    old = shown(shell)
    shell(*words)
    new = shown(shell)
    assert new != old
    with held(state) as machine:
        more = machine.objects()
    for line in undo:
        shell(*line)
    deaths = 0
    for call in range(1, CALLS):
        for when in ("before", "after"):
            if not shell.killed(call, when, *words):
                assert deaths >= 2, "it made no calls"
                return
            deaths += 1
            now = shown(shell)
            assert now in (old, new), f"killed {when} call {call}"
            with held(state) as machine:
                assert machine.objects() == (objects if now == old else more), f"killed {when} call {call}"
            assert shell("check").startswith("ok")
            if now == old:
                before()
                shell(*words)
            after()
            for line in undo:
                shell(*line)
            assert shown(shell) == old
    raise AssertionError(f"more than {CALLS} calls")
