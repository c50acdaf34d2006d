# SPDX-License-Identifier: Apache-2.0
"""What a VM says about its tables at one instant, and its RAM at that instant."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from iommuctl.formats.memory import FileMemory, Memory
from iommuctl.model import Rid, Slot
from tests.differential.qemu import Installed
from tests.linux.vm import Kit, Vm, VmError

if TYPE_CHECKING:
    from tests.linux.architecture import Architecture, Mode

_BOOT, _DUMP = 180.0, 60.0
"""Seconds, on a slow machine."""
_ATTEMPTS = 10
_RAM = 1 << 30
_LARGE_PAGES = 16


Dump = TypeVar("Dump")


class Mapped(NamedTuple):
    """Memory that a program mapped for a device or one of its PASIDs.

    Page n of it begins with the number `mark` + n * 4096.
    """

    slot: Slot
    iova: int
    size: int
    prot: str
    mark: int


class Snapshot(NamedTuple, Generic[Dump]):
    """RAM, what the kernel tells, registers of the unit, and what was mapped."""

    memory: Memory
    dump: Dump
    registers: dict[str, int]
    mappings: tuple[Mapped, ...]
    mode: "Mode"


@contextlib.contextmanager
def take(
    installed: Installed, kit: Kit, architecture: "Architecture", mode: "Mode", folder: Path
) -> Iterator[Snapshot[Any]]:
    """Boot a VM of that mode and take one; RAM is copied into `folder`. Raises VmError, UnknownLine and QtestError."""
    files = {
        "guest.py": Path(__file__).with_name("guest.py").read_bytes(),
        "orders.json": json.dumps({"roles": mode.roles, "dumped": architecture.dumped}).encode(),
    }
    command, parameters = "exec python3 -B /mnt/guest.py", f"quiet hugepages={_LARGE_PAGES} {mode.parameters}"
    with Vm(installed, kit, mode.arguments, command, ram=_RAM, parameters=parameters, files=files) as vm:
        dump = _consistent(vm, architecture, folder / "ram")
        registers = {name: vm.read_register(*place) for name, place in architecture.registers.items()}
        listed = json.loads((vm.shared / "mappings.json").read_text())
    mappings = (Mapped(Slot(Rid.parse(one.pop("rid")), one.pop("pasid") or None), **one) for one in listed)
    with open(folder / "ram", "rb") as ram:
        yield Snapshot(FileMemory(ram.fileno(), vm.base, _RAM), dump, registers, tuple(mappings), mode)


def _consistent(vm: Vm, architecture: "Architecture", copy: Path) -> Any:
    """Copy RAM, and return the dump that belongs to it.

    Linux goes on while it writes a dump: a device that a driver uses maps and unmaps. RAM is copied between two
    dumps, while all of the VM stands still; where these agree, they tell what the copy has.
    """
    before = architecture.parse(vm.wait_for("dump-0", _BOOT))
    for number in range(_ATTEMPTS):
        with vm.frozen():
            _copy(vm.ram, copy)
        (vm.shared / f"next-{number}").touch()
        after = architecture.parse(vm.wait_for(f"dump-{number + 1}", _DUMP))
        if after == before:
            return after
        before = after
    raise VmError(f"the kernel's dump changed {_ATTEMPTS} times")


def _copy(source: Path, to: Path) -> None:
    """Copy a file with its holes, of which untouched RAM has many."""
    with open(source, "rb") as old, open(to, "wb") as new:
        new.truncate(_RAM)
        at = 0
        with contextlib.suppress(_End):
            while at < _RAM:
                at = _seek(old.fileno(), at, os.SEEK_DATA)
                end = _seek(old.fileno(), at, os.SEEK_HOLE)
                while at < end:
                    at += os.copy_file_range(old.fileno(), new.fileno(), end - at, at, at)


class _End(Exception):
    """There is no more data in the file."""


def _seek(descriptor: int, at: int, what: int) -> int:
    try:
        return os.lseek(descriptor, at, what)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise _End from None
        raise
