# SPDX-License-Identifier: Apache-2.0
"""A command that is killed at any of its calls to the kernel: the next one repairs what it left.

After it, the state is the old or the new one, the DMA of each slot agrees with it, and the iommufd has exactly the
objects that it would have had.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from iommuctl_vtd.pasid_entry import NESTED, SECOND_STAGE
from tests.hardware.deaths import every_death, shown, typed
from tests.hardware.held import held
from tests.hardware.shell import Shell
from tests.hardware.vtd.kernel_tables import entries, slot

EDU, OTHER = "0000:00:10.0", "0000:00:11.0"
MIB = 1 << 20
PLAIN = f"""
device bind {EDU}
memory create ram --size 1M
memory create other --size 1M
domain create domain1
domain map domain1 --iova 1M --size 64K --memory ram
domain create domain2
domain map domain2 --iova 1M --size 64K --memory other
"""
BINDABLE = f"""
device bind {EDU}
memory create ram --size 32M
domain create domain1 --nest-parent
domain map domain1 --iova 0 --size 32M --memory ram
attach domain1 {EDU}
"""
SETUPS = {"plain": PLAIN, "attached": PLAIN + f"attach domain1 {EDU}\n", "nested": BINDABLE}


def stops(state: Path, number: int, at: int = MIB) -> Callable[[], None]:
    """That the device's DMA does not reach that memory."""

    def check() -> None:
        with held(state) as machine:
            machine.write(number, 0, b"untouched")
            machine.edu(EDU).store(at, 9)
            assert machine.read(number, 0, 9) == b"untouched"

    return check


def entry_is(pasid: int | None, kind: int | None) -> Callable[[], None]:
    """That the kernel's PASID-table entry of the device is of that kind; None for none at all."""

    def check() -> None:
        fields = entries().get(slot(EDU, pasid))
        assert (fields and fields["PGTT"]) == kind

    return check


def moves(state: Path, number: int, at: int = MIB) -> Callable[[], None]:
    """That the device's DMA reaches that memory."""

    def check() -> None:
        with held(state) as machine:
            machine.write(number, 0, b"seen")
            machine.write(number, 0x1000, bytes(4))
            machine.edu(EDU).load(at, 4)
            machine.edu(EDU).store(at + 0x1000, 4)
            assert machine.read(number, 0x1000, 4) == b"seen"

    return check


def test_map(shell: Shell, state: Path) -> None:
    typed(shell, SETUPS["attached"])
    where = ("--iova", "2M", "--size", "64K")
    every_death(
        shell, ["domain", "map", "domain1", *where, "--memory", "ram"], [["domain", "unmap", "domain1", *where]],
        state, before=stops(state, 1, 2 * MIB), after=moves(state, 1, 2 * MIB),
    )  # fmt: skip


def test_unmap(shell: Shell, state: Path) -> None:
    typed(shell, SETUPS["attached"])
    where = ("--iova", "1M", "--size", "64K")
    every_death(
        shell, ["domain", "unmap", "domain1", *where], [["domain", "map", "domain1", *where, "--memory", "ram"]],
        state, before=moves(state, 1), after=stops(state, 1),
    )  # fmt: skip


def test_attach(shell: Shell, state: Path) -> None:
    """The domain has a HWPT from the second time on: the first is in test_first_attach."""
    typed(shell, SETUPS["plain"])
    shell("attach", "domain1", EDU)
    shell("detach", "domain1", EDU)
    every_death(
        shell,
        ["attach", "domain1", EDU],
        [["detach", "domain1", EDU]],
        state,
        before=stops(state, 1),
        after=moves(state, 1),
    )


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_first_attach_of_a_domain(shell: Shell, state: Path, when: str) -> None:
    typed(shell, SETUPS["plain"])
    with held(state) as machine:
        objects = machine.objects()
    call = 1
    while shell.killed(call, when, "attach", "domain1", EDU):
        assert not shown(shell)[0][2], "it is attached"
        with held(state) as machine:
            assert machine.objects() == objects, f"killed {when} call {call}"
        call += 1
    assert call > 2
    moves(state, 1)()


def test_replace(shell: Shell, state: Path) -> None:
    typed(shell, SETUPS["attached"])
    shell("attach", "domain2", EDU, "--replace")
    shell("attach", "domain1", EDU, "--replace")
    every_death(
        shell, ["attach", "domain2", EDU, "--replace"], [["attach", "domain1", EDU, "--replace"]],
        state, before=moves(state, 1), after=moves(state, 2),
    )  # fmt: skip


def test_device_bind(shell: Shell, state: Path) -> None:
    typed(shell, SETUPS["plain"])
    with held(state) as machine:
        objects = machine.objects()
    for when in ("before", "after"):
        call = 1
        while shell.killed(call, when, "device", "bind", OTHER):
            found = shell.json("device", "show", OTHER)
            if found["bound"]:
                shell("device", "unbind", OTHER)
            else:
                assert not found["driver"], f"killed {when} call {call}: the driver is {found['driver']}"
            with held(state) as machine:
                assert machine.objects() == objects
            call += 1
        assert call > 1
        shell("device", "unbind", OTHER)


@pytest.mark.nesting
def test_bind(shell: Shell, state: Path) -> None:
    typed(shell, SETUPS["nested"])
    words = ["bind-pgtable", "domain1", EDU, "--addr", "0x100000"]
    undo = [["unbind-pgtable", "domain1", EDU]]
    every_death(shell, words, undo, state, before=entry_is(None, SECOND_STAGE), after=entry_is(None, NESTED))


@pytest.mark.nesting
def test_bind_of_a_pasid(shell: Shell, state: Path) -> None:
    typed(shell, SETUPS["nested"])
    words = ["bind-pgtable", "domain1", EDU, "--addr", "0x100000", "--pasid", 5]
    undo = [["unbind-pgtable", "domain1", EDU, "--pasid", 5]]
    every_death(shell, words, undo, state, before=entry_is(5, None), after=entry_is(5, NESTED))
