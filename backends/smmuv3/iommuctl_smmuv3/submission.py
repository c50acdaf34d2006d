# SPDX-License-Identifier: Apache-2.0
"""The driver's end of the command queue: IHI0070 G.b sections 3.5 and 4.7."""

from collections.abc import Iterable

from iommuctl.architecture import Unit
from iommuctl.errors import DamagedTable
from iommuctl.hookspecs import Context
from iommuctl.model import Command
from iommuctl_smmuv3.commands import COMMANDS, Sync
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.positions import Ring
from iommuctl_smmuv3.queue_registers import COMMAND_ERRORS, CmdqBase, CmdqCons, CmdqProd
from iommuctl_smmuv3.registers import Gerror

_SIZE = Sync.bits // 8


def submit(context: Context, unit: Unit, features: Features, commands: Iterable[int]) -> None:
    """Queue these and a CMD_SYNC, let the unit consume them, and see that it did.

    Raises DamagedTable when the unit stops at one, which only foreign writes to the queue can bring about, and when a
    device does not answer.
    """
    pending = list(commands)
    if not pending:
        return
    pending.append(Sync.encode())
    base = unit.read_register("CMDQ_BASE")
    bits = CmdqBase.LOG2SIZE.get(base)
    ring = Ring(CmdqBase.ADDR.get(base), bits, features.cmdq_bits, _SIZE)
    position = CmdqProd.WR.get(unit.read_register("CMDQ_PROD"))
    for start in range(0, len(pending), 1 << bits):
        for raw in pending[start : start + (1 << bits)]:
            command = logged(raw)
            context.memory.write(ring.place(position), command.raw)
            position = ring.after(position)
            context.log(command)
        unit.write_register("CMDQ_PROD", CmdqProd.encode(WR=position))
        consumed = unit.read_register("CMDQ_CONS")
        if (unit.read_register("GERROR") ^ unit.read_register("GERRORN")) & Gerror.CMDQ_ERR.mask:
            error = CmdqCons.ERR.get(consumed)
            because = COMMAND_ERRORS.get(error, f"unknown: ERR is {error:#x}")
            raise DamagedTable("the unit stopped at a command of its queue", because=because)
        if not ring.same(position, CmdqCons.RD.get(consumed)):
            raise DamagedTable("the unit did not complete an invalidation", because="its queue is not empty")


def logged(raw: int) -> Command:
    """A command as the log has it."""
    layout = COMMANDS[raw & 0xFF]
    return Command(layout.name, layout.to_bytes(raw), layout.values(raw))
