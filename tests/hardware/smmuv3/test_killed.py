# SPDX-License-Identifier: Apache-2.0
"""A command on a real SMMUv3 that is killed at any of its calls to the kernel: the next one repairs what it left.

After it the state is the old or the new one, DMA agrees with it, and the iommufd has exactly the objects that it would
have had: vIOMMUs, their events and vDEVICEs among them.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hardware.deaths import every_death, shown, typed
from tests.hardware.held import held
from tests.hardware.shell import Shell

EDU = "0000:00:10.0"
MIB = 1 << 20
IOVA, GPA = 4 * MIB, 2 * MIB
SETUP = f"""
device bind {EDU}
memory create ram --size 16M
memory create other --size 16M
domain create vm --nest-parent
domain map vm --iova 0 --size 16M --memory ram
domain create vm2 --nest-parent
domain map vm2 --iova 0 --size 16M --memory other
pgtable create t --parent vm --pool 8M+64K
pgtable map t --iova {IOVA} --size 64K --gpa {GPA}
attach vm {EDU}
"""
BIND = ["bind-pgtable", "vm", EDU, "--pgtable", "t"]
UNBIND = ["unbind-pgtable", "vm", EDU]


def moves(state: Path, memory: int, offset: int) -> Callable[[], None]:
    """That the device's DMA at IOVA reaches that place of the memory, and none of the others."""
    places = [(number, at) for number in (1, 2) for at in (IOVA, GPA)]

    def check() -> None:
        with held(state) as machine:
            for number, at in places:
                machine.write(number, at, b"not this")
                machine.write(number, at + 0x100, bytes(8))
            machine.write(memory, offset, b"it is me")
            edu = machine.edu(EDU)
            edu.load(IOVA, 8)
            edu.store(IOVA + 0x100, 8)
            found = [(number, at, machine.read(number, at + 0x100, 8)) for number, at in places]
        assert [each for each in found if each[2] != bytes(8)] == [(memory, offset, b"it is me")]

    return check


def test_bind(shell: Shell, state: Path) -> None:
    """The parent has its vIOMMU from the second time on: the first is in test_the_first_binding."""
    typed(shell, SETUP)
    shell(*BIND)
    shell(*UNBIND)
    every_death(shell, BIND, [UNBIND], state, before=moves(state, 1, IOVA), after=moves(state, 1, GPA))


def test_unbind(shell: Shell, state: Path) -> None:
    typed(shell, SETUP)
    shell(*BIND)
    every_death(shell, UNBIND, [BIND], state, before=moves(state, 1, GPA), after=moves(state, 1, IOVA))


def test_replace(shell: Shell, state: Path) -> None:
    """The device leaves its number on the parent's vIOMMU behind."""
    typed(shell, SETUP)
    words, back = (["attach", name, EDU, "--replace"] for name in ("vm2", "vm"))
    for line in (BIND, UNBIND, words, back, BIND, UNBIND):
        shell(*line)
    every_death(shell, words, [back, BIND, UNBIND], state, before=moves(state, 1, IOVA), after=moves(state, 2, IOVA))


def test_detach_of_what_is_bound(shell: Shell, state: Path) -> None:
    typed(shell, SETUP)
    shell(*BIND)
    every_death(
        shell,
        ["detach", "vm", EDU, "--force"],
        [["attach", "vm", EDU], BIND],
        state,
        before=moves(state, 1, GPA),
        after=lambda: None,
    )


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_first_binding(shell: Shell, state: Path, when: str) -> None:
    typed(shell, SETUP)
    with held(state) as machine:
        objects = machine.objects()
    old, call = shown(shell), 1
    while shell.killed(call, when, *BIND):
        assert shown(shell) == old
        with held(state) as machine:
            assert machine.objects() == objects, f"killed {when} call {call}"
        call += 1
    # The vIOMMU, its events, the vDEVICE, the HWPT, and that it is attached.
    assert call > 5
    moves(state, 1, GPA)()


@pytest.mark.parametrize("when", ["before", "after"])
def test_all_of_a_device_that_is_unbound(shell: Shell, state: Path, when: str) -> None:
    """The vDEVICE goes before the file of the device, or its id would be dead for good."""
    typed(shell, SETUP)
    call = 1
    shell(*BIND)
    with held(state) as machine:
        objects = machine.objects()
    while shell.killed(call, when, "device", "unbind", EDU, "--force"):
        if shell.json("device", "show", EDU)["bound"]:
            with held(state) as machine:
                assert machine.objects() == objects, f"killed {when} call {call}"
            moves(state, 1, GPA)()
        else:
            typed(shell, f"device bind {EDU}\nattach vm {EDU}")
            shell(*BIND)
        call += 1
    assert call > 2
    assert shell("check").startswith("ok")
    shell("domain", "destroy", "vm", "--force")
    shell("domain", "destroy", "vm2", "--force")
    with held(state) as machine:
        assert machine.objects() == 0
