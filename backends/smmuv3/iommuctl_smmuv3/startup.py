# SPDX-License-Identifier: Apache-2.0
"""Switching a unit on: the registers in the order in which Linux writes them (arm_smmu_device_reset)."""

from collections.abc import Callable, Iterator

from iommuctl.architecture import Unit
from iommuctl.errors import Unsupported
from iommuctl.formats.bits import Layout
from iommuctl.formats.memory import PAGE, Run, TableMemory
from iommuctl_smmuv3.commands import Sync
from iommuctl_smmuv3.features import BIG_ENDIAN_ONLY, STALL_ONLY, Features
from iommuctl_smmuv3.page_request import PageRequest
from iommuctl_smmuv3.queue_registers import CmdqBase, EventqBase, PriqBase
from iommuctl_smmuv3.registers import CR0, CR1, CR2
from iommuctl_smmuv3.stream_tables import StreamTables

_RECORD = 32
"""Bytes of an event record."""
_WRITE_BACK, _INNER_SHAREABLE = 1, 3
"""Codes of CR1, which are not those of an STE."""


def why_not(features: Features) -> str:
    """Why the driver cannot drive such a unit; nothing when it can."""
    reasons = {
        "it has no stage 1": not features.s1p,
        "it has no VMSAv8-64 tables": not features.aarch64,
        "it reads big-endian tables only": features.ttendian == BIG_ENDIAN_ONLY,
        "it has no granule of 4, 16 or 64 KB": not features.granules,
        "its transactions stall when they fault": features.stall_model == STALL_ONLY,
    }
    return next((because for because, applies in reasons.items() if applies), "")


def start(memory: TableMemory, unit: Unit, features: Features, announce: Callable[[], None]) -> None:
    """Give the unit a stream table without streams and its queues, and switch it on.

    `announce` has it forget whatever it holds, once the command queue works. Raises Unsupported; NoRoom.
    """
    if because := why_not(features):
        raise Unsupported("the unit cannot be driven", because=because)
    base, config = StreamTables.build(memory, features)
    tables = StreamTables(memory, base, config)
    queues = {
        "CMDQ": _queue(memory, CmdqBase, Sync.bits // 8, features.cmdq_bits, "RA"),
        "EVENTQ": _queue(memory, EventqBase, _RECORD, features.eventq_bits, "WA"),
    }
    if features.pri:
        queues["PRIQ"] = _queue(memory, PriqBase, PageRequest.bits // 8, features.priq_bits, "WA")
    addresses = [run.address + (run.pages - 1) * PAGE for run in tables.runs()]
    addresses += [CmdqBase.ADDR.get(queue) for queue in queues.values()]
    if max(addresses) >> features.oas:
        raise Unsupported(
            "the unit cannot be driven",
            because=f"table memory at {max(addresses):#x} is beyond its {features.oas} address bits",
        )
    write = unit.write_register
    write("CR0", 0)
    write("CR1", CR1.encode(
        QUEUE_IC=_WRITE_BACK, QUEUE_OC=_WRITE_BACK, QUEUE_SH=_INNER_SHAREABLE,
        TABLE_IC=_WRITE_BACK, TABLE_OC=_WRITE_BACK, TABLE_SH=_INNER_SHAREABLE,
    ))  # fmt: skip
    write("CR2", CR2.encode(PTM=1, RECINVSID=1))
    write("STRTAB_BASE", base)
    write("STRTAB_BASE_CFG", config)
    enabled = 0
    for name, queue in queues.items():
        write(f"{name}_BASE", queue)
        write(f"{name}_PROD", 0)
        write(f"{name}_CONS", 0)
        enabled |= CR0.field(f"{name}EN").mask
        write("CR0", enabled)
        if name == "CMDQ":
            announce()
    if features.ats:
        enabled |= CR0.ATSCHK.mask
        write("CR0", enabled)
    write("CR0", enabled | CR0.SMMUEN.mask)


def queue_runs(unit: Unit) -> Iterator[Run]:
    """The pages of the queues."""
    for name in ("CMDQ", "EVENTQ", "PRIQ"):
        # All three registers have their fields at the same places; there is no PRI queue without PRI.
        if address := CmdqBase.ADDR.get(unit.read_register(f"{name}_BASE")):
            yield Run(address, 1)


def _queue(memory: TableMemory, layout: type[Layout], size: int, most: int, allocates: str) -> int:
    """The base register of a queue that takes a page, or less where the unit cannot have so many entries."""
    address = memory.allocate_run(1)
    memory.write(address, bytes(PAGE))
    bits = min((PAGE // size).bit_length() - 1, most)
    return layout.encode(LOG2SIZE=bits, ADDR=address, **{allocates: 1})
