# SPDX-License-Identifier: Apache-2.0
"""Where every field stands, transcribed from the specification's tables a second time, `msb:lsb`."""

import pytest

from iommuctl_smmuv3.commands import COMMANDS
from iommuctl_smmuv3.events import EVENTS
from iommuctl_smmuv3.structures import STRUCTURES

_RANGE = "NUM 16:12 SCALE 25:20 Leaf 64 TTL128 71 TTL 73:72 TG 75:74"
_BASE = "LOG2SIZE 4:0 ADDR 55:5"
_STREAM = "SSV 11 SubstreamID 31:12 StreamID 63:32"
_FAULT = f"Event 7:0 {_STREAM} PnU 97 InD 98 RnW 99 S2 103 CLASS 105:104 InputAddr 191:128"
_STALL = "STAG 79:64 Stall 95 IPA 247:204"
_FETCH = f"Event 7:0 {_STREAM} Reason 79:64 FetchAddr 247:195"

POSITIONS: dict[str, str] = {
    "l1std": "Span 4:0 L2Ptr 55:6",
    "l1cd": "V 0 L2Ptr 55:12",
    "ste": """
        V 0 Config 3:1 S1Fmt 5:4 S1ContextPtr 55:6 S1CDMax 63:59
        S1DSS 65:64 S1CIR 67:66 S1COR 69:68 S1CSH 71:70 S2HWU59 72 S2HWU60 73 S2HWU61 74 S2HWU62 75 DRE 76 CONT 80:77
        DCP 81 PPAR 82 MEV 83 S1PIE 88 S2FWB 89 S1MPAM 90 S1STALLD 91 EATS 93:92 STRW 95:94 MemAttr 99:96 MTCFG 100
        ALLOCCFG 104:101 SHCFG 109:108 NSCFG 111:110 PRIVCFG 113:112 INSTCFG 115:114
        S2VMID 143:128 S2T0SZ 165:160 S2SL0 167:166 S2IR0 169:168 S2OR0 171:170 S2SH0 173:172 S2TG 175:174 S2PS 178:176
        S2AA64 179 S2ENDI 180 S2AFFD 181 S2PTW 182 S2HD 183 S2HA 184 S2S 185 S2R 186 S2HAFT 187 S2PIE 188 S2POE 189
        DPT_VMATCH 191:190
        S2NSW 192 S2NSA 193 S2SL0_2 194 S2DS 195 S2TTB 247:196 S2SKL 254:253
        PARTID 287:272 S_S2T0SZ 293:288 S_S2SL0 295:294 S_S2TG 303:302 MECID 319:304
        PMG 327:320 MPAM_NS 328 AssuredOnly 329 TL0 330 TL1 331 VMSPtr 375:332
        S2SW 384 S2SA 385 S_S2SL0_2 386 S_S2TTB 439:388 S_S2SKL 446:445 S2POI 511:448""",
    "cd": """
        T0SZ 5:0 TG0 7:6 IR0 9:8 OR0 11:10 SH0 13:12 EPD0 14 ENDI 15 T1SZ 21:16 TG1 23:22 IR1 25:24 OR1 27:26 SH1 29:28
        EPD1 30 V 31 IPS 34:32 AFFD 35 WXN 36 UWXN 37 TBI0 38 TBI1 39 PAN 40 AA64 41 HD 42 HA 43 S 44 R 45 A 46 ASET 47
        ASID 63:48
        NSCFG0 64 HAD0 65 E0PD0 66 HAFT 67 TTB0 119:68 PnCH 122 EPAN 123 HWU059 124 HWU060 125 HWU061 126 HWU062 127
        NSCFG1 128 HAD1 129 E0PD1 130 AIE 131 TTB1 183:132 DS 186 PIE 187 HWU159 188 HWU160 189 HWU161 190 HWU162 191
        MAIR0 223:192 MAIR1 255:224 AMAIR0 287:256 AMAIR1 319:288 PARTID 367:352 PMG 375:368
        PIIU 431:384 PIIP 495:448""",
    "prefetch-config": f"Opcode 7:0 SSec 10 {_STREAM}",
    "prefetch-addr": f"Opcode 7:0 SSec 10 {_STREAM} Size 68:64 Addr 127:76",
    "cfgi-ste": "Opcode 7:0 SSec 10 StreamID 63:32 Leaf 64",
    "cfgi-ste-range": "Opcode 7:0 SSec 10 StreamID 63:32 Range 68:64",
    "cfgi-cd": "Opcode 7:0 SSec 10 SubstreamID 31:12 StreamID 63:32 Leaf 64",
    "cfgi-cd-all": "Opcode 7:0 SSec 10 StreamID 63:32",
    "cfgi-vms-pidm": "Opcode 7:0 SSec 10 VMID 47:32",
    "tlbi-nh-all": "Opcode 7:0 VMID 47:32",
    "tlbi-nh-asid": "Opcode 7:0 VMID 47:32 ASID 63:48",
    "tlbi-nh-va": f"Opcode 7:0 VMID 47:32 ASID 63:48 {_RANGE} Addr 127:76",
    "tlbi-nh-vaa": f"Opcode 7:0 VMID 47:32 {_RANGE} Addr 127:76",
    "tlbi-el2-all": "Opcode 7:0",
    "tlbi-el2-asid": "Opcode 7:0 ASID 63:48",
    "tlbi-el2-va": f"Opcode 7:0 ASID 63:48 {_RANGE} Addr 127:76",
    "tlbi-el2-vaa": f"Opcode 7:0 {_RANGE} Addr 127:76",
    "tlbi-s12-vmall": "Opcode 7:0 VMID 47:32",
    "tlbi-s2-ipa": f"Opcode 7:0 VMID 47:32 {_RANGE} Addr 119:76",
    "tlbi-nsnh-all": "Opcode 7:0",
    "atc-inv": f"Opcode 7:0 Global 9 {_STREAM} Size 69:64 Addr 127:76",
    "pri-resp": f"Opcode 7:0 {_STREAM} PRGIndex 72:64 Resp 77:76",
    "resume": "Opcode 7:0 SSec 10 Ac 12 Ab 13 StreamID 63:32 STAG 79:64",
    "stall-term": "Opcode 7:0 SSec 10 StreamID 63:32",
    "sync": "Opcode 7:0 CS 13:12 MSH 23:22 MSIAttr 27:24 MSIData 63:32 MSIAddr 119:66",
    "f-uut": f"Event 7:0 {_STREAM} Reason 79:64 PnU 97 InD 98 RnW 99 InputAddr 191:128",
    "c-bad-streamid": f"Event 7:0 {_STREAM}",
    "f-ste-fetch": f"{_FETCH} GPCF 80",
    "c-bad-ste": f"Event 7:0 {_STREAM}",
    "f-bad-ats-treq": f"Event 7:0 {_STREAM} InputAddr 191:128",
    "f-stream-disabled": "Event 7:0 StreamID 63:32",
    "f-transl-forbidden": "Event 7:0 StreamID 63:32 RnW 99 InputAddr 191:128",
    "c-bad-substreamid": "Event 7:0 SubstreamID 31:12 StreamID 63:32",
    "f-cd-fetch": _FETCH,
    "c-bad-cd": f"Event 7:0 {_STREAM}",
    "f-walk-eabt": f"{_FAULT} Reason 79:64 FetchAddr 247:195",
    "f-translation": f"{_FAULT} {_STALL}",
    "f-addr-size": f"{_FAULT} {_STALL}",
    "f-access": f"{_FAULT} {_STALL}",
    "f-permission": f"{_FAULT} {_STALL} TTRnW 108",
    "f-tlb-conflict": f"{_FAULT} Reason 79:64 IPA 247:204",
    "f-cfg-conflict": f"Event 7:0 {_STREAM} Reason 95:64",
    "e-page-request": f"Event 7:0 {_STREAM} uX 97 uW 98 uR 99 pX 101 pW 102 pR 103 Span 115:108 InputAddr 191:140",
    "f-vms-fetch": f"{_FETCH} GPCF 80",
    "page-request": """
        StreamID 31:0 SubstreamID 51:32 Priv 58 Exec 59 Read 60 Write 61 Last 62 SSV 63 PRGIndex 72:64 Addr 127:76""",
    "idr0": """
        S2P 0 S1P 1 TTF 3:2 COHACC 4 BTM 5 HTTU 7:6 DORMHINT 8 Hyp 9 ATS 10 NS1ATS 11 ASID16 12 MSI 13 SEV 14 ATOS 15
        PRI 16 VMW 17 VMID16 18 CD2L 19 VATOS 20 TTENDIAN 22:21 ATSRECERR 23 STALL_MODEL 25:24 TERM_MODEL 26
        ST_LEVEL 28:27 RME_IMPL 30""",
    "idr1": """
        SIDSIZE 5:0 SSIDSIZE 10:6 PRIQS 15:11 EVENTQS 20:16 CMDQS 25:21 ATTR_PERMS_OVR 26 ATTR_TYPES_OVR 27 REL 28
        QUEUES_PRESET 29 TABLES_PRESET 30 ECMDQ 31""",
    "idr2": "BA_VATOS 9:0",
    "idr3": """
        HAD 2 PBHA 3 XNX 4 PPS 5 MPAM 7 FWB 8 STT 9 RIL 10 BBML 12:11 E0PD 13 PTWNNC 14 DPT 15 PASIDTT 16 EPAN 17
        S1PI 18 S2PI 19 S2PO 20 THE 21 MTEPERM 22 AIE 23""",
    "idr5": "OAS 2:0 GRAN4K 4 GRAN16K 5 GRAN64K 6 DS 7 D128 8 VAX 11:10 STALL_MAX 31:16",
    "iidr": "Implementer 11:0 Revision 15:12 Variant 19:16 ProductID 31:20",
    "aidr": "ArchMinorRev 3:0 ArchMajorRev 7:4",
    "idr6": "LOG2NUMQ 19:16 LOG2NUMP 27:24",
    "mpamidr": "PARTID_MAX 15:0 PMG_MAX 23:16",
    "cr0": "SMMUEN 0 PRIQEN 1 EVENTQEN 2 CMDQEN 3 ATSCHK 4 VMW 8:6 DPT_WALK_EN 10",
    "cr1": "QUEUE_IC 1:0 QUEUE_OC 3:2 QUEUE_SH 5:4 TABLE_IC 7:6 TABLE_OC 9:8 TABLE_SH 11:10",
    "cr2": "E2H 0 RECINVSID 1 PTM 2 REC_CFG_ATS 3",
    "statusr": "DORMANT 0",
    "gbpa": "MemAttr 3:0 MTCFG 4 ALLOCCFG 11:8 SHCFG 13:12 PRIVCFG 17:16 INSTCFG 19:18 ABORT 20 Update 31",
    "irq-ctrl": "GERROR 0 PRIQ 1 EVENTQ 2",
    "gerror": """
        CMDQ_ERR 0 EVENTQ_ABT_ERR 2 PRIQ_ABT_ERR 3 MSI_CMDQ_ABT 4 MSI_EVENTQ_ABT 5 MSI_PRIQ_ABT 6 MSI_GERROR_ABT 7
        SFM_ERR 8 CMDQP_ERR 9 DPT_ERR 10""",
    "strtab-base": "ADDR 55:6 RA 62",
    "strtab-base-cfg": "LOG2SIZE 5:0 SPLIT 10:6 FMT 17:16",
    "cmdq-base": f"{_BASE} RA 62",
    "cmdq-prod": "WR 19:0",
    "cmdq-cons": "RD 19:0 ERR 30:24",
    "eventq-base": f"{_BASE} WA 62",
    "eventq-prod": "WR 19:0 OVFLG 31",
    "eventq-cons": "RD 19:0 OVACKFLG 31",
    "priq-base": f"{_BASE} WA 62",
    "priq-prod": "WR 19:0 OVFLG 31",
    "priq-cons": "RD 19:0 OVACKFLG 31",
    "irq-cfg0": "ADDR 55:2",
    "irq-cfg1": "DATA 31:0",
    "irq-cfg2": "MemAttr 3:0 SH 5:4",
    "priq-irq-cfg2": "MemAttr 3:0 SH 5:4 LO 31",
}


_STAGE_1 = """
        Valid 0 Type 1 AttrIndx 4:2 NS 5 AP 7:6 AF 10 nG 11 DBM 51 Contiguous 52 PXN 53 UXN 54 PXNTable 59 UXNTable 60
        APTable 62:61 NSTable 63 """
_STAGE_2 = "Valid 0 Type 1 MemAttr 5:2 S2AP 7:6 AF 10 DBM 51 Contiguous 52 XN 54:53 "
_PACKINGS = {"": "SH 9:8 OA 47:12", "-64k": "SH 9:8 OA_51_48 15:12 OA 47:16", "-ds": "OA_51_50 9:8 OA 49:12"}
POSITIONS |= {f"stage-1-descriptor{name}": _STAGE_1 + bits for name, bits in _PACKINGS.items()}
POSITIONS |= {f"stage-2-descriptor{name}": _STAGE_2 + bits for name, bits in _PACKINGS.items()}


def places(text: str) -> dict[str, tuple[int, int]]:
    """Every field's name with its highest and lowest bit."""
    words = text.split()
    ends = [place.partition(":") for place in words[1::2]]
    return {name: (int(msb), int(lsb or msb)) for name, (msb, _, lsb) in zip(words[::2], ends, strict=True)}


@pytest.mark.parametrize("name", POSITIONS)
def test_positions(name: str) -> None:
    layout = STRUCTURES[f"smmuv3.{name}"]
    assert {field.name: (field.msb, field.lsb) for field in layout.fields} == places(POSITIONS[name])


def test_every_structure_is_here() -> None:
    assert {f"smmuv3.{name}" for name in POSITIONS} == set(STRUCTURES)


# The numbers of commands and records, from the tables of sections 4.1 and 7.3.
NUMBERS = {
    "prefetch-config": 0x01, "prefetch-addr": 0x02, "cfgi-ste": 0x03, "cfgi-ste-range": 0x04, "cfgi-cd": 0x05,
    "cfgi-cd-all": 0x06, "cfgi-vms-pidm": 0x07,
    "tlbi-nh-all": 0x10, "tlbi-nh-asid": 0x11, "tlbi-nh-va": 0x12, "tlbi-nh-vaa": 0x13,
    "tlbi-el2-all": 0x20, "tlbi-el2-asid": 0x21, "tlbi-el2-va": 0x22, "tlbi-el2-vaa": 0x23, "tlbi-s12-vmall": 0x28,
    "tlbi-s2-ipa": 0x2A, "tlbi-nsnh-all": 0x30, "atc-inv": 0x40, "pri-resp": 0x41, "resume": 0x44, "stall-term": 0x45,
    "sync": 0x46,
}  # fmt: skip
RECORDS = {
    "f-uut": 0x01, "c-bad-streamid": 0x02, "f-ste-fetch": 0x03, "c-bad-ste": 0x04, "f-bad-ats-treq": 0x05,
    "f-stream-disabled": 0x06, "f-transl-forbidden": 0x07, "c-bad-substreamid": 0x08, "f-cd-fetch": 0x09,
    "c-bad-cd": 0x0A, "f-walk-eabt": 0x0B, "f-translation": 0x10, "f-addr-size": 0x11, "f-access": 0x12,
    "f-permission": 0x13, "f-tlb-conflict": 0x20, "f-cfg-conflict": 0x21, "e-page-request": 0x24, "f-vms-fetch": 0x25,
}  # fmt: skip


def test_numbers() -> None:
    assert {layout.name.removeprefix("smmuv3."): number for number, layout in COMMANDS.items()} == NUMBERS
    assert {layout.name.removeprefix("smmuv3."): number for number, layout in EVENTS.items()} == RECORDS
    assert {layout.encode() for layout in (*COMMANDS.values(), *EVENTS.values())} == {
        *NUMBERS.values(),
        *RECORDS.values(),
    }
