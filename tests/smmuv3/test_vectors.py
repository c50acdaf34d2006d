# SPDX-License-Identifier: Apache-2.0
"""Worked examples of structures, commands and records, as words that were computed independently of this code.

They were made with tables of their own, and compared with the masks of Linux 7.3 and the fields of QEMU 10.2.
"""

import pytest

from iommuctl.formats.bits import Fixed, Layout
from iommuctl.formats.checks import problems
from iommuctl_smmuv3.cd import Cd, L1Cd
from iommuctl_smmuv3.commands import AtcInv, PriResp, Resume, Sync
from iommuctl_smmuv3.configuration_commands import CfgiCd, CfgiCdAll, CfgiSte, CfgiSteRange
from iommuctl_smmuv3.configuration_events import CBadSte, FCdFetch
from iommuctl_smmuv3.events import FPermission, FTranslation
from iommuctl_smmuv3.id_registers import IDR0, IDR1, IDR3, IDR5
from iommuctl_smmuv3.page_request import PageRequest
from iommuctl_smmuv3.queue_registers import CmdqBase
from iommuctl_smmuv3.registers import CR1, Gbpa, StrtabBase, StrtabBaseCfg
from iommuctl_smmuv3.ste import Ste
from iommuctl_smmuv3.stream_table import L1Std
from iommuctl_smmuv3.tlb_commands import TlbiNhAsid, TlbiNhVa, TlbiNsnhAll, TlbiS2Ipa, TlbiS12Vmall

Vector = tuple[type[Layout], dict[str, int], tuple[int, ...]]

STAGE_2 = {
    "S2VMID": 0x2A, "S2T0SZ": 20, "S2SL0": 2, "S2IR0": 1, "S2OR0": 1, "S2SH0": 3, "S2TG": 0, "S2PS": 4, "S2AA64": 1,
    "S2PTW": 1, "S2R": 1, "S2TTB": 0x9_4000_0000,
}  # fmt: skip
NESTED = {
    "V": 1, "S1Fmt": 2, "S1ContextPtr": 0x8_8000_0000, "S1CDMax": 8, "S1DSS": 2, "S1CIR": 1, "S1COR": 1, "S1CSH": 3,
    "EATS": 1,
}  # fmt: skip

# fmt: off
VECTORS: dict[str, Vector] = {
    "V1 STE, abort": (Ste, {"V": 1, "Config": 0}, (0x1,)),
    "V2 STE, bypass": (Ste, {"V": 1, "Config": 4, "SHCFG": 1}, (0x9, 0x0000100000000000)),
    "V3 STE, stage 1, one CD": (
        Ste,
        {"V": 1, "Config": 5, "S1ContextPtr": 0x1_2345_6000, "S1CIR": 1, "S1COR": 1, "S1CSH": 3},
        (0x000000012345600B, 0x00000000000000D4),
    ),
    "V4 STE, stage 1, CD table of two levels": (
        Ste,
        {"V": 1, "Config": 5, "S1Fmt": 2, "S1ContextPtr": 0x8_8000_0000, "S1CDMax": 20, "S1DSS": 2, "S1CIR": 1,
         "S1COR": 1, "S1CSH": 3, "S1STALLD": 1, "EATS": 1},
        (0xA00000088000002B, 0x00000000180000D6),
    ),
    "V5 STE, stage 2": (
        Ste,
        {"V": 1, "Config": 6, "SHCFG": 1} | STAGE_2,
        (0x000000000000000D, 0x0000100000000000, 0x044C35940000002A, 0x0000000940000000),
    ),
    "V6 STE of a guest": (Ste, NESTED | {"Config": 5}, (0x400000088000002B, 0x00000000100000D6)),
    "V7 STE that nests it": (
        Ste,
        NESTED | STAGE_2 | {"Config": 7, "MEV": 1, "S2FWB": 1, "SHCFG": 1},
        (0x400000088000002F, 0x00001000120800D6, 0x044C35940000002A, 0x0000000940000000),
    ),
    "V9 L1STD": (L1Std, {"Span": 9, "L2Ptr": 0x8_0040_0000}, (0x0000000800400009,)),
    "V10 L1CD": (L1Cd, {"V": 1, "L2Ptr": 0x8_8001_0000}, (0x0000000880010001,)),
    "V11 CD, lower table": (
        Cd,
        {"V": 1, "AA64": 1, "T0SZ": 16, "TG0": 0, "IR0": 1, "OR0": 1, "SH0": 3, "EPD1": 1, "IPS": 5, "R": 1, "A": 1,
         "ASET": 1, "ASID": 0x12, "TTB0": 0x9_1000_0000, "MAIR0": 0xF404FF44},
        (0x0012E205C0003510, 0x0000000910000000, 0, 0x00000000F404FF44),
    ),
    "V12 CD, both tables, stalls": (
        Cd,
        {"V": 1, "AA64": 1, "T0SZ": 12, "TG0": 1, "IR0": 1, "OR0": 1, "SH0": 3, "T1SZ": 25, "TG1": 2, "IR1": 1,
         "OR1": 1, "SH1": 3, "IPS": 6, "TBI0": 1, "PAN": 1, "HA": 1, "HD": 1, "S": 1, "R": 1, "A": 1, "ASET": 1,
         "ASID": 0xBEEF, "TTB0": 0xF_1234_5678_0000, "TTB1": 0x9_2000_0000, "MAIR0": 0xF404FF44},
        (0xBEEFFF46B599354C, 0x000F123456780000, 0x0000000920000000, 0x00000000F404FF44),
    ),
    "C1 one STE": (CfgiSte, {"StreamID": 0x108, "Leaf": 1}, (0x0000010800000003, 0x1)),
    "C2 256 STEs": (CfgiSteRange, {"StreamID": 0x100, "Range": 7}, (0x0000010000000004, 0x7)),
    "C3 every STE": (CfgiSteRange, {"Range": 31}, (0x4, 0x1F)),
    "C4 one CD": (CfgiCd, {"StreamID": 0x108, "SubstreamID": 5, "Leaf": 1}, (0x0000010800005005, 0x1)),
    "C5 every CD": (CfgiCdAll, {"StreamID": 0x108}, (0x0000010800000006, 0)),
    "C6 ASID": (TlbiNhAsid, {"VMID": 0x2A, "ASID": 0x12}, (0x0012002A00000011, 0)),
    "C7 one page": (
        TlbiNhVa, {"ASID": 0x12, "Addr": 0xFFFF_F000_1000, "Leaf": 1}, (0x0012000000000012, 0x0000FFFFF0001001)
    ),
    "C8 512 pages": (
        TlbiNhVa,
        {"ASID": 0x12, "Addr": 0x4000_0000, "NUM": 0, "SCALE": 9, "TG": 1, "TTL": 3, "Leaf": 1},
        (0x0012000000900012, 0x0000000040000701),
    ),
    "C9 19 pages": (
        TlbiNhVa,
        {"ASID": 0x12, "Addr": 0x4000_0000, "NUM": 18, "SCALE": 0, "TG": 1, "TTL": 3, "Leaf": 1},
        (0x0012000000012012, 0x0000000040000701),
    ),
    "C10 480 pages": (
        TlbiNhVa,
        {"ASID": 0x12, "Addr": 0x4001_3000, "NUM": 14, "SCALE": 5, "TG": 1, "TTL": 3, "Leaf": 1},
        (0x001200000050E012, 0x0000000040013701),
    ),
    "C11 one block of 2 MB": (
        TlbiS2Ipa,
        {"VMID": 0x2A, "Addr": 0x4000_0000, "TG": 1, "TTL": 2, "Leaf": 1},
        (0x0000002A0000002A, 0x0000000040000601),
    ),
    "C12 VMID": (TlbiS12Vmall, {"VMID": 0x2A}, (0x0000002A00000028, 0)),
    "C13 everything": (TlbiNsnhAll, {}, (0x30, 0)),
    "C14 16 pages of a device": (AtcInv, {"StreamID": 0x108, "Size": 4}, (0x0000010800000040, 0x4)),
    "C15 a PASID of a device": (
        AtcInv, {"StreamID": 0x108, "SSV": 1, "SubstreamID": 5, "Size": 52}, (0x0000010800005840, 0x34)
    ),
    "C16 success": (
        PriResp,
        {"StreamID": 0x108, "SSV": 1, "SubstreamID": 5, "PRGIndex": 0x1F, "Resp": 2},
        (0x0000010800005841, 0x201F),
    ),
    "C17 retry": (Resume, {"StreamID": 0x108, "STAG": 0xABCD, "Ac": 1}, (0x0000010800001044, 0xABCD)),
    "C18 abort": (Resume, {"StreamID": 0x108, "STAG": 0xABCD, "Ab": 1}, (0x0000010800002044, 0xABCD)),
    "C19 no signal": (Sync, {}, (0x46, 0)),
    "C20 interrupt": (
        Sync, {"CS": 1, "MSH": 3, "MSIAttr": 0xF, "MSIAddr": 0x8_7654_3210}, (0x000000000FC01046, 0x0000000876543210)
    ),
    "E1 the STE is not valid": (CBadSte, {"StreamID": 0x108}, (0x0000010800000004,)),
    "E2 no translation": (
        FTranslation,
        {"StreamID": 0x108, "SSV": 1, "SubstreamID": 5, "RnW": 1, "CLASS": 2, "InputAddr": 0xFFFF_F000_1234},
        (0x0000010800005810, 0x0000020800000000, 0x0000FFFFF0001234),
    ),
    "E3 no translation of a stage 1 table": (
        FTranslation,
        {"StreamID": 0x108, "S2": 1, "CLASS": 1, "InputAddr": 0x7F00_1000, "IPA": 0x9_1000_1000},
        (0x0000010800000010, 0x0000018000000000, 0x000000007F001000, 0x0000000910001000),
    ),
    "E4 a write that is stalled": (
        FPermission,
        {"StreamID": 0x108, "STAG": 0xABCD, "Stall": 1, "PnU": 1, "CLASS": 2, "InputAddr": 0x8000},
        (0x0000010800000013, 0x000002028000ABCD, 0x8000),
    ),
    "E5 the CD could not be read": (
        FCdFetch, {"StreamID": 0x108, "FetchAddr": 0x8_8001_0140}, (0x0000010800000009, 0, 0, 0x0000000880010140)
    ),
    "Q1 page request": (
        PageRequest,
        {"StreamID": 0x108, "SSV": 1, "SubstreamID": 5, "Read": 1, "Write": 1, "Last": 1, "PRGIndex": 0x1F,
         "Addr": 0x7F00_1000},
        (0xF000000500000108, 0x000000007F00101F),
    ),
    "R1 stream table": (StrtabBase, {"ADDR": 0x8_8800_0000, "RA": 1}, (0x4000000888000000,)),
    "R2 of two levels": (StrtabBaseCfg, {"FMT": 1, "SPLIT": 8, "LOG2SIZE": 16}, (0x00010210,)),
    "R3 command queue": (CmdqBase, {"ADDR": 0x8_8000_0000, "LOG2SIZE": 8, "RA": 1}, (0x4000000880000008,)),
    "R4 caches": (
        CR1,
        {"TABLE_SH": 3, "TABLE_OC": 1, "TABLE_IC": 1, "QUEUE_SH": 3, "QUEUE_OC": 1, "QUEUE_IC": 1},
        (0x00000D75,),
    ),
    "R5 QEMU": (
        IDR0,
        {"S1P": 1, "TTF": 2, "COHACC": 1, "ASID16": 1, "VMID16": 1, "TTENDIAN": 2, "STALL_MODEL": 1,
         "TERM_MODEL": 1, "ST_LEVEL": 1},
        (0x0D44101A,),
    ),
    "R6 QEMU": (IDR1, {"SIDSIZE": 16, "EVENTQS": 19, "CMDQS": 19}, (0x02730010,)),
    "R7 QEMU": (IDR3, {"HAD": 1, "RIL": 1, "BBML": 2}, (0x00001404,)),
    "R7 QEMU, stage 2": (IDR3, {"HAD": 1, "XNX": 1, "RIL": 1, "BBML": 2}, (0x00001414,)),
    "R8 QEMU": (IDR5, {"OAS": 4, "GRAN4K": 1, "GRAN16K": 1, "GRAN64K": 1}, (0x00000074,)),
    "R9 abort": (Gbpa, {"ABORT": 1, "Update": 1}, (0x80100000,)),
}
# fmt: on
every_vector = pytest.mark.parametrize(("layout", "fields", "words"), VECTORS.values(), ids=VECTORS)


@every_vector
def test_encode(layout: type[Layout], fields: dict[str, int], words: tuple[int, ...]) -> None:
    found = layout.to_words(layout.encode(**fields))
    assert found == words + (0,) * (len(found) - len(words))


@every_vector
def test_decode(layout: type[Layout], fields: dict[str, int], words: tuple[int, ...]) -> None:
    decoded = layout.decode(layout.from_words(words))
    always = {field.name: field.value for field in layout.fields if isinstance(field, Fixed)}
    assert decoded == dict.fromkeys(decoded, 0) | always | fields


@every_vector
def test_nothing_is_wrong_with_it(layout: type[Layout], fields: dict[str, int], words: tuple[int, ...]) -> None:
    assert problems(layout, layout.from_words(words)) == []


def test_the_bits_that_linux_takes_from_a_guest() -> None:
    """V8. Linux keeps S1ContextPtr below 52 bits."""
    names = ("V", "Config", "S1Fmt", "S1ContextPtr", "S1CDMax", "S1DSS", "S1CIR", "S1COR", "S1CSH", "S1STALLD", "EATS")
    mask = sum(Ste.field(name).mask for name in names) & ~(0xF << 52)
    assert Ste.to_words(mask)[:2] == (0xF80FFFFFFFFFFFFF, 0x00000000380000FF)


# Reserved and ignored bits, from the tables of sections 5.1 to 5.4, as (msb, lsb).
UNNAMED: list[tuple[type[Layout], list[tuple[int, int]], list[tuple[int, int]]]] = [
    (L1Std, [(5, 5), (63, 56)], []),
    (L1Cd, [(11, 1), (63, 56)], []),
    (
        Ste,
        [(58, 56), (107, 105), (252, 248), (255, 255), (301, 296), (383, 376), (387, 387), (444, 440), (447, 447)],
        [(87, 84), (127, 116), (159, 144), (271, 256)],
    ),
    (Cd, [(121, 120), (185, 184), (383, 376), (447, 432), (511, 496)], [(351, 320)]),
]


def mask_of(places: list[tuple[int, int]]) -> int:
    return sum((1 << msb + 1) - (1 << lsb) for msb, lsb in places)


@pytest.mark.parametrize(("layout", "reserved", "ignored"), UNNAMED)
def test_unnamed(layout: type[Layout], reserved: list[tuple[int, int]], ignored: list[tuple[int, int]]) -> None:
    assert layout.reserved == mask_of(reserved)
    assert layout.ignored == mask_of(ignored)
