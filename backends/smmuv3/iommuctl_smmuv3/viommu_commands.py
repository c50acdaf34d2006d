# SPDX-License-Identifier: Apache-2.0
"""Commands that a vIOMMU carries out: in which calls, and which are refused.

A call's commands are complete when it returns, and not before: those about structures, those about translations and
those to devices go in calls of their own. The kernel replaces the VMID by that of the parent.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from iommuctl.kernel import viommus
from iommuctl.kernel.machine import Machine
from iommuctl_smmuv3 import uapi
from iommuctl_smmuv3.commands import COMMANDS, AtcInv
from iommuctl_smmuv3.configuration_commands import CfgiCd, CfgiCdAll
from iommuctl_smmuv3.submission import logged
from iommuctl_smmuv3.tlb_commands import TlbiNhAll

_STRUCTURES = {layout.Opcode.value for layout in (CfgiCd, CfgiCdAll)}
_TO_DEVICES = AtcInv.Opcode.value


def phases(raws: Iterable[int]) -> Iterator[list[int]]:
    """The commands, as they are passed, of each call; each once."""
    passed = dict.fromkeys(_passed(raw) for raw in raws)
    for _, batch in groupby(sorted(passed, key=_phase), key=_phase):
        yield list(batch)


def send(machine: Machine, viommu: int, batch: Sequence[int], *, with_device: bool = True) -> None:
    """Have one call's commands carried out; without a vDEVICE only those that name no device. Raises KernelRefused."""
    wanted = [raw for raw in batch if with_device or _phase(raw) == 1]
    if wanted:
        kind = uapi.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3
        viommus.invalidate(machine, viommu, kind, [logged(raw).raw for raw in wanted], _name)


def everything(stream: int, *, ats: bool, substreams: bool) -> list[int]:
    """What makes caches forget all that came of a device's CDs and of its parent's page tables."""
    found = [CfgiCdAll.encode(StreamID=stream), TlbiNhAll.encode()]
    if ats:
        found.append(AtcInv.encode(StreamID=stream, Size=52))
        if substreams:
            found.append(AtcInv.encode(StreamID=stream, Size=52, SSV=1, Global=1))
    return found


def _phase(raw: int) -> int:
    opcode = raw & 0xFF
    return 0 if opcode in _STRUCTURES else 2 if opcode == _TO_DEVICES else 1


def _passed(raw: int) -> int:
    """Without a VMID: whichever we said, it would not be the kernel's."""
    layout = COMMANDS[raw & 0xFF]
    return raw & ~TlbiNhAll.VMID.mask if "VMID" in layout.values(raw) else raw


def _name(raw: bytes) -> str:
    layout = COMMANDS[raw[0]]
    fields = layout.values(int.from_bytes(raw, "little"))
    shown = ", ".join(f"{name} {value:#x}" for name, value in fields.items() if value and name != "Opcode")
    return f"{layout.name} ({shown})" if shown else layout.name
