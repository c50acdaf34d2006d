# SPDX-License-Identifier: Apache-2.0
"""Registers by the words that software reads and writes."""

import pytest

from iommuctl.formats.bits import Layout
from iommuctl_vtd.invalidation_registers import CCMD, ICS, IECTL, IOTLBREG, IVA
from iommuctl_vtd.page_request import PECTL, PQH, PQT, PRS
from iommuctl_vtd.registers import FECTL, FSTS, GCMD, GSTS, IQA, IQERCD, IQH, IQT, PMEN, RTADDR, VER

REGISTERS: list[tuple[type[Layout], dict[str, int], int]] = [
    (GCMD, {"TE": 1}, 0x80000000),
    (GCMD, {"SRTP": 1}, 0x40000000),
    (GCMD, {"WBF": 1}, 0x08000000),
    (GCMD, {"QIE": 1}, 0x04000000),
    (GCMD, {"IRE": 1, "SIRTP": 1, "CFI": 1}, 0x03800000),
    (GCMD, {"SFL": 1, "EAFL": 1}, 0x30000000),
    (GSTS, {"TES": 1, "RTPS": 1, "QIES": 1}, 0xC4000000),
    (GSTS, {"FLS": 1, "AFLS": 1, "WBFS": 1, "IRES": 1, "IRTPS": 1, "CFIS": 1}, 0x3B800000),
    (RTADDR, {"TTM": 3, "RTA": 0x1000}, 0x1C00),
    (FSTS, {"PFO": 1, "PPF": 1, "PRO": 1}, 0x83),
    (FSTS, {"PPF": 1, "FRI": 0x12}, 0x1202),
    (FSTS, {"IQE": 1, "ICE": 1, "ITE": 1, "AFO": 1, "APF": 1}, 0x7C),
    (FECTL, {"IM": 1}, 0x80000000),
    (FECTL, {"IP": 1}, 0x40000000),
    (IQH, {"QH": 0x7FFF0}, 0x7FFF0),
    (IQT, {"QT": 0x7FFF0}, 0x7FFF0),
    (IQA, {"QS": 7, "IQA": 0x3000}, 0x3007),
    (IQERCD, {"IQEI": 4, "ITESID": 0x321, "ICESID": 0x300}, 0x0300032100000004),
    (VER, {"MAX": 1}, 0x10),
    (VER, {"MIN": 3, "MAX": 6}, 0x63),
    (PMEN, {"EPM": 1}, 0x80000000),
    (PMEN, {"PRS": 1}, 0x1),
    (CCMD, {"FM": 3, "CAIG": 2}, 0x1000000300000000),
    (IVA, {"IH": 1}, 0x40),
    (IOTLBREG, {"IAIG": 3}, 0x0600000000000000),
    (ICS, {"IWC": 1}, 0x1),
    (IECTL, {"IP": 1, "IM": 1}, 0xC0000000),
    (PQH, {"PQH": 0x20}, 0x20),
    (PQT, {"PQT": 0x7FFE0}, 0x7FFE0),
    (PRS, {"PPR": 1}, 0x1),
    (PRS, {"PRO": 1}, 0x2),
    (PECTL, {"IP": 1, "IM": 1}, 0xC0000000),
]


@pytest.mark.parametrize(("layout", "fields", "word"), REGISTERS)
def test_words(layout: type[Layout], fields: dict[str, int], word: int) -> None:
    assert layout.encode(**fields) == word
    decoded = layout.decode(word)
    assert decoded == dict.fromkeys(decoded, 0) | fields


def test_a_status_bit_stands_where_its_command_does() -> None:
    assert [field.mask for field in GSTS.fields] == [field.mask for field in GCMD.fields]


def test_commands_that_act_once() -> None:
    once = GCMD.SRTP.mask | GCMD.SFL.mask | GCMD.WBF.mask | GCMD.SIRTP.mask
    assert once ^ 0xFFFFFFFF == 0x96FFFFFF
