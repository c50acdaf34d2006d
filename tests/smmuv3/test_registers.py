# SPDX-License-Identifier: Apache-2.0
"""Registers by the words that software reads and writes, and the layouts by the registers' own names."""

import pytest

from iommuctl.formats.bits import Layout
from iommuctl_smmuv3 import queue_registers as queues
from iommuctl_smmuv3.id_registers import AIDR, IDR0, IDR2, IDR3, IDR5, IDR6, IIDR, MPAMIDR
from iommuctl_smmuv3.registers import CR0, CR2, Gbpa, Gerror, IrqCtrl, Statusr, StrtabBaseCfg
from iommuctl_smmuv3.structures import STRUCTURES, register_layout

REGISTERS: list[tuple[type[Layout], dict[str, int], int]] = [
    (CR0, {"SMMUEN": 1, "PRIQEN": 1, "EVENTQEN": 1, "CMDQEN": 1, "ATSCHK": 1}, 0x1F),
    (CR0, {"VMW": 4, "DPT_WALK_EN": 1}, 0x500),
    (CR2, {"E2H": 1, "RECINVSID": 1, "PTM": 1}, 0x7),
    (CR2, {"REC_CFG_ATS": 1}, 0x8),
    (Statusr, {"DORMANT": 1}, 0x1),
    (Gbpa, {"SHCFG": 1}, 0x1000),
    (Gbpa, {"MemAttr": 0xF, "MTCFG": 1, "ALLOCCFG": 0xF, "PRIVCFG": 3, "INSTCFG": 2}, 0xB0F1F),
    (IrqCtrl, {"GERROR": 1, "EVENTQ": 1}, 0x5),
    (Gerror, {"CMDQ_ERR": 1, "SFM_ERR": 1}, 0x101),
    (StrtabBaseCfg, {"LOG2SIZE": 32}, 0x20),
    (IDR2, {"BA_VATOS": 0x3FF}, 0x3FF),
    (IDR3, {"FWB": 1, "STT": 1}, 0x300),
    (IDR5, {"OAS": 6, "VAX": 1, "DS": 1, "STALL_MAX": 0xABCD}, 0xABCD0486),
    (IDR6, {"LOG2NUMP": 8, "LOG2NUMQ": 4}, 0x08040000),
    (MPAMIDR, {"PARTID_MAX": 0x3F, "PMG_MAX": 3}, 0x0003003F),
    (IIDR, {"ProductID": 0x487, "Variant": 1, "Revision": 2, "Implementer": 0x43B}, 0x4871243B),
    (AIDR, {"ArchMinorRev": 2}, 0x2),
    (queues.CmdqProd, {"WR": 0xFFFFF}, 0xFFFFF),
    (queues.CmdqCons, {"RD": 0x123, "ERR": 3}, 0x03000123),
    (queues.EventqProd, {"WR": 1, "OVFLG": 1}, 0x80000001),
    (queues.EventqCons, {"OVACKFLG": 1}, 0x80000000),
    (queues.EventqBase, {"LOG2SIZE": 19, "ADDR": 0x8_8000_0000, "WA": 1}, 0x4000000880000013),
    (queues.IrqCfg0, {"ADDR": 0x0808_0040}, 0x08080040),
    (queues.IrqCfg2, {"MemAttr": 1, "SH": 3}, 0x31),
    (queues.PriqIrqCfg2, {"LO": 1}, 0x80000000),
]


@pytest.mark.parametrize(("layout", "fields", "word"), REGISTERS)
def test_words(layout: type[Layout], fields: dict[str, int], word: int) -> None:
    assert layout.encode(**fields) == word
    decoded = layout.decode(word)
    assert decoded == dict.fromkeys(decoded, 0) | fields


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("IDR0", IDR0),
        ("CR0", CR0),
        ("CR0ACK", CR0),
        ("IRQ_CTRL", IrqCtrl),
        ("IRQ_CTRLACK", IrqCtrl),
        ("GERROR", Gerror),
        ("GERRORN", Gerror),
        ("STRTAB_BASE_CFG", StrtabBaseCfg),
        ("EVENTQ_PROD", queues.EventqProd),
        ("GERROR_IRQ_CFG0", queues.IrqCfg0),
        ("EVENTQ_IRQ_CFG0", queues.IrqCfg0),
        ("PRIQ_IRQ_CFG0", queues.IrqCfg0),
        ("GERROR_IRQ_CFG1", queues.IrqCfg1),
        ("EVENTQ_IRQ_CFG1", queues.IrqCfg1),
        ("PRIQ_IRQ_CFG1", queues.IrqCfg1),
        ("GERROR_IRQ_CFG2", queues.IrqCfg2),
        ("EVENTQ_IRQ_CFG2", queues.IrqCfg2),
        ("PRIQ_IRQ_CFG2", queues.PriqIrqCfg2),
        ("IDR4", None),
        ("AGBPA", None),
    ],
)
def test_layouts_by_name(name: str, layout: type[Layout] | None) -> None:
    assert register_layout(name) is layout


def test_registers_have_32_or_64_bits() -> None:
    wide = {name for name, layout in STRUCTURES.items() if layout.bits == 64 and "-descriptor" not in name}
    bases = {f"smmuv3.{name}-base" for name in ("strtab", "cmdq", "eventq", "priq")}
    assert wide == bases | {"smmuv3.irq-cfg0", "smmuv3.l1std", "smmuv3.l1cd"}
