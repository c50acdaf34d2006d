# SPDX-License-Identifier: Apache-2.0
"""Worked examples of every structure, as words that were computed independently of this code."""

import pytest

from iommuctl.formats.bits import Fixed, Layout
from iommuctl_vtd.context_entry import ContextEntry, ScalableContextEntry
from iommuctl_vtd.fault_record import FaultRecord
from iommuctl_vtd.first_stage import FirstStageEntry, FirstStageEntryRev3
from iommuctl_vtd.interrupt_remap import IRTA, PostedIrte, RemappedIrte
from iommuctl_vtd.invalidation import (
    ContextCacheInvalidate,
    DeviceTlbInvalidate,
    IecInvalidate,
    InvalidationWait,
    IotlbInvalidate,
    PageGroupResponse,
    PageGroupResponseRev3,
    PasidCacheInvalidate,
    PasidDeviceTlbInvalidate,
    PasidIotlbInvalidate,
)
from iommuctl_vtd.invalidation_registers import CCMD, IOTLBREG, IVA
from iommuctl_vtd.page_request import PQA, PageRequest, PageRequestRev3
from iommuctl_vtd.pasid_entry import PasidDirectoryEntry, PasidEntry, PasidEntryRev3
from iommuctl_vtd.registers import CAP, ECAP, IQA, RTADDR
from iommuctl_vtd.root_entry import RootEntry, ScalableRootEntry
from iommuctl_vtd.second_stage import SecondStageEntry, SecondStageEntryRev3

Vector = tuple[type[Layout], dict[str, int], tuple[int, ...]]

# fmt: off
VECTORS: dict[str, Vector] = {
    "legacy root": (RootEntry, {"P": 1, "CTP": 0x12345000}, (0x0000000012345001,)),
    "legacy context": (
        ContextEntry,
        {"P": 1, "TT": 0, "SSPTPTR": 0x23456000, "AW": 2, "DID": 0xBEEF},
        (0x0000000023456001, 0x0000000000BEEF02),
    ),
    "legacy context of a device with ATS": (
        ContextEntry,
        {"P": 1, "FPD": 1, "TT": 1, "SSPTPTR": 0x23456000, "AW": 1, "DID": 0x42},
        (0x0000000023456007, 0x0000000000004201),
    ),
    "legacy context, pass-through": (
        ContextEntry,
        {"P": 1, "TT": 2, "AW": 2, "DID": 1},
        (0x0000000000000009, 0x0000000000000102),
    ),
    "root": (
        ScalableRootEntry,
        {"LP": 1, "LCTP": 0x12345000, "UP": 1, "UCTP": 0xABCDE000},
        (0x0000000012345001, 0x00000000ABCDE001),
    ),
    "context of a device with everything": (
        ScalableContextEntry,
        {"P": 1, "DTE": 1, "PASIDE": 1, "PRE": 1, "PDTS": 2, "PASIDDIRPTR": 0x34567000},
        (0x000000003456741D,),
    ),
    "context with RID_PASID": (
        ScalableContextEntry,
        {"P": 1, "FPD": 1, "PDTS": 5, "PASIDDIRPTR": 0x123456789000, "RID_PASID": 0x12345},
        (0x0000123456789A03, 0x0000000000012345),
    ),
    "context with RID_PRIV": (ScalableContextEntry, {"P": 1, "RID_PASID": 1, "RID_PRIV": 1}, (0x1, 0x100001)),
    "PASID directory": (
        PasidDirectoryEntry,
        {"P": 1, "FPD": 1, "SMPTBLPTR": 0x987654321000},
        (0x0000987654321003,),
    ),
    "PASID, second stage": (
        PasidEntry,
        {"P": 1, "FPD": 1, "AW": 2, "PGTT": 2, "SSADE": 1, "SSPTPTR": 0x987654321000, "DID": 0xABCD, "PWSNP": 1,
         "PGSNP": 1},
        (0x000098765432128B, 0x000000000180ABCD),
    ),
    "PASID, first stage": (
        PasidEntry,
        {"P": 1, "AW": 2, "PGTT": 1, "DID": 1, "PWSNP": 1, "FSPTPTR": 0x45678000},
        (0x0000000000000049, 0x0000000000800001, 0x0000000045678000),
    ),
    "PASID, first stage of 5 levels": (
        PasidEntry,
        {"P": 1, "AW": 3, "PGTT": 1, "DID": 1, "PWSNP": 1, "SRE": 1, "FSPM": 1, "WPE": 1, "EAFE": 1,
         "FSPTPTR": 0x45678000},
        (0x000000000000004D, 0x0000000000800001, 0x0000000045678095),
    ),
    "PASID, nested": (
        PasidEntry,
        {"P": 1, "AW": 2, "PGTT": 3, "SSADE": 1, "SSPTPTR": 0x56789000, "DID": 0x42, "PWSNP": 1, "PGSNP": 1,
         "SRE": 1, "WPE": 1, "FSPTPTR": 0x67890000},
        (0x00000000567892C9, 0x0000000001800042, 0x0000000067890011),
    ),
    "PASID, pass-through": (
        PasidEntry,
        {"P": 1, "AW": 2, "PGTT": 4, "DID": 1, "PWSNP": 1},
        (0x0000000000000109, 0x0000000000800001),
    ),
    "PASID, memory types": (
        PasidEntry,
        {"P": 1, "PGTT": 3, "CD": 1, "EMTE": 1, "PAT": 0x12345678},
        (0x00000000000000C1, 0x1234567806000000),
    ),
    "second stage, table": (SecondStageEntry, {"R": 1, "W": 1, "ADDR": 0x789AB000}, (0x00000000789AB003,)),
    "second stage, 4K": (SecondStageEntry, {"R": 1, "W": 1, "SNP": 1, "ADDR": 0x789AB000}, (0x00000000789AB803,)),
    "second stage, memory type": (SecondStageEntry, {"R": 1, "EMT": 6, "IPAT": 1}, (0x71,)),
    "second stage, 2M": (SecondStageEntry, {"R": 1, "PS": 1, "A": 1, "ADDR": 0x80000000}, (0x0000000080000181,)),
    "second stage, 1G": (
        SecondStageEntry,
        {"R": 1, "W": 1, "PS": 1, "A": 1, "D": 1, "ADDR": 0x40000000},
        (0x0000000040000383,),
    ),
    "first stage, table": (
        FirstStageEntry,
        {"P": 1, "RW": 1, "US": 1, "A": 1, "ADDR": 0x789AB000},
        (0x00000000789AB027,),
    ),
    "first stage, 4K": (
        FirstStageEntry,
        {"P": 1, "RW": 1, "US": 1, "A": 1, "D": 1, "ADDR": 0x789AB000},
        (0x00000000789AB067,),
    ),
    "first stage, caching": (FirstStageEntry, {"P": 1, "PWT": 1, "PCD": 1, "G": 1}, (0x119,)),
    "first stage, 2M, not to be executed": (
        FirstStageEntryRev3,
        {"P": 1, "US": 1, "A": 1, "PS": 1, "EA": 1, "XD": 1, "ADDR": 0x80000000},
        (0x80000000800004A5,),
    ),
    "context cache, global": (ContextCacheInvalidate, {"G": 1}, (0x11,)),
    "context cache, domain": (ContextCacheInvalidate, {"G": 2, "DID": 0x10}, (0x100021,)),
    "context cache, device": (
        ContextCacheInvalidate,
        {"G": 3, "DID": 0x10, "SID": 0x300, "FM": 3},
        (0x0003030000100031,),
    ),
    "IOTLB, global": (IotlbInvalidate, {"G": 1, "DW": 1, "DR": 1}, (0xD2,)),
    "IOTLB, domain": (IotlbInvalidate, {"G": 2, "DW": 1, "DR": 1, "DID": 0x42}, (0x00000000004200E2,)),
    "IOTLB, pages": (
        IotlbInvalidate,
        {"G": 3, "DW": 1, "DR": 1, "DID": 0x42, "AM": 9, "IH": 1, "ADDR": 0x40000000},
        (0x00000000004200F2, 0x0000000040000049),
    ),
    "device TLB, everything": (
        DeviceTlbInvalidate,
        {"MIP": 0x10, "SID": 0x321, "S": 1, "ADDR": 0x7FFFFFFFFFFFF000, "PFSID_LO": 5, "PFSID_HI": 0x32},
        (0x0320032100105003, 0x7FFFFFFFFFFFF001),
    ),
    "device TLB, block": (
        DeviceTlbInvalidate,
        {"SID": 0x321, "S": 1, "ADDR": 0x17000},
        (0x0000032100000003, 0x0000000000017001),
    ),
    "device TLB, page": (DeviceTlbInvalidate, {"SID": 0x321, "ADDR": 0x10000}, (0x32100000003, 0x10000)),
    "interrupt entry cache, global": (IecInvalidate, {}, (0x4,)),
    "interrupt entry cache, indices": (IecInvalidate, {"G": 1, "IM": 3, "IIDX": 0x20}, (0x0000002018000014,)),
    "wait, status and drain": (
        InvalidationWait,
        {"SW": 1, "FN": 1, "PD": 1, "STDATA": 2, "STADDR": 0x1234567C},
        (0x00000002000000E5, 0x000000001234567C),
    ),
    "wait, status": (InvalidationWait, {"SW": 1, "STDATA": 2, "STADDR": 0x1234567C}, (0x200000025, 0x1234567C)),
    "wait, interrupt": (InvalidationWait, {"IF": 1}, (0x15,)),
    "wait, fence": (InvalidationWait, {"FN": 1, "STDATA": 2}, (0x0000000200000045,)),
    "PASID-based IOTLB, PASID": (
        PasidIotlbInvalidate,
        {"G": 2, "DID": 0x42, "PASID": 0x12345},
        (0x0001234500420026,),
    ),
    "PASID-based IOTLB, page": (
        PasidIotlbInvalidate,
        {"G": 3, "DID": 0x42, "PASID": 0x12345, "AM": 0, "IH": 1, "ADDR": 0x7F0000001000},
        (0x0001234500420036, 0x00007F0000001040),
    ),
    "PASID cache, domain": (PasidCacheInvalidate, {"G": 0, "DID": 0x42}, (0x420007,)),
    "PASID cache, PASID": (PasidCacheInvalidate, {"G": 1, "DID": 0x42, "PASID": 5}, (0x0000000500420017,)),
    "PASID cache, global": (PasidCacheInvalidate, {"G": 3}, (0x37,)),
    "PASID-based device TLB, everything": (
        PasidDeviceTlbInvalidate,
        {"SID": 0x321, "PASID": 0x12345, "S": 1, "ADDR": 0x7FFFFFFFFFFFF000, "PFSID_LO": 5, "PFSID_HI": 0x32},
        (0x0321234503215008, 0x7FFFFFFFFFFFF800),
    ),
    "PASID-based device TLB, block": (
        PasidDeviceTlbInvalidate,
        {"MIP": 0x10, "SID": 0x321, "PASID": 0x12345, "S": 1, "ADDR": 0x2FF000, "PFSID_LO": 5, "PFSID_HI": 0x32},
        (0x0321234503215108, 0x00000000002FF800),
    ),
    "PASID-based device TLB, all PASIDs": (PasidDeviceTlbInvalidate, {"G": 1}, (0x8, 0x1)),
    "response to a group with a PASID": (
        PageGroupResponse,
        {"PP": 1, "RC": 0, "RID": 0x321, "PASID": 0x12345, "PRGI": 0x1FF},
        (0x0001234503210019, 0x0000000000000FF8),
    ),
    "response of failure": (
        PageGroupResponse,
        {"RC": 0xF, "RID": 0x321, "PRGI": 1},
        (0x000000000321F009, 0x0000000000000008),
    ),
    "page request": (
        PageRequest,
        {"PP": 1, "RID": 0x321, "PASID": 0x12345, "R": 1, "W": 1, "LPIG": 1, "PRGI": 0x1FF, "ADDR": 0x7F0000001000},
        (0x0001234503210101, 0x00007F0000001FFF),
    ),
    "stop marker": (
        PageRequest,
        {"PP": 1, "RID": 0x321, "PASID": 0x12345, "LPIG": 1},
        (0x0001234503210101, 0x0000000000000004),
    ),
    "fault of a read": (
        FaultRecord,
        {"FI": 0xDEADB000, "SID": 0x321, "FR": 0x79, "T1": 1, "F": 1},
        (0x00000000DEADB000, 0xC000007900000321),
    ),
    "fault of a privileged write with a PASID": (
        FaultRecord,
        {"FI": 0x7F0000001000, "SID": 0x321, "FR": 0x71, "PP": 1, "PV": 0x12345, "PRIV": 1, "F": 1},
        (0x00007F0000001000, 0x81234571A0000321),
    ),
    "fault of an atomic operation": (FaultRecord, {"EXE": 1, "T1": 1, "T2": 1, "FR": 1}, (0, 0x4000000150000000)),
    "root table address": (RTADDR, {"TTM": 1, "RTA": 0x1000000}, (0x0000000001000400,)),
    "invalidation queue address": (IQA, {"QS": 1, "DW": 1, "IQA": 0x2000000}, (0x0000000002000801,)),
    "page request queue address": (PQA, {"PQS": 4, "PQA": 0x3000000}, (0x0000000003000004,)),
    "interrupt remapping table address": (IRTA, {"S": 15, "EIME": 1, "IRTA": 0x4000000}, (0x400080F,)),
    "context command, global": (CCMD, {"ICC": 1, "CIRG": 1}, (0xA000000000000000,)),
    "context command, device": (
        CCMD,
        {"ICC": 1, "CIRG": 3, "DID": 0x10, "SID": 0x300},
        (0xE000000003000010,),
    ),
    "IOTLB register, domain": (
        IOTLBREG,
        {"IVT": 1, "IIRG": 2, "DW": 1, "DR": 1, "DID": 0x42},
        (0xA003004200000000,),
    ),
    "address to invalidate, 2M": (IVA, {"AM": 9, "ADDR": 0x40000000}, (0x40000009,)),
    # By position: bits 7 and 10 of section 9.7, bits 69:64 of section 6.5.2.4.
    "a large page, used where EAFE is set": (
        FirstStageEntry,
        {"P": 1, "PS": 1, "EA": 1, "ADDR": 0x200000},
        (0x0000000000200481,),
    ),
    "16 pages of one PASID": (
        PasidIotlbInvalidate,
        {"G": 3, "DID": 2, "PASID": 3, "AM": 4, "ADDR": 0x50000},
        (0x0000000300020036, 0x0000000000050004),
    ),
}
# fmt: on

every_vector = pytest.mark.parametrize(("layout", "fields", "words"), VECTORS.values(), ids=VECTORS)


@every_vector
def test_encode(layout: type[Layout], fields: dict[str, int], words: tuple[int, ...]) -> None:
    encoded = layout.to_words(layout.encode(**fields))
    assert encoded[: len(words)] == words
    assert not any(encoded[len(words) :])


@every_vector
def test_decode(layout: type[Layout], fields: dict[str, int], words: tuple[int, ...]) -> None:
    decoded = layout.decode(layout.from_words(words))
    always = {field.name: field.value for field in layout.fields if isinstance(field, Fixed)}
    assert decoded == dict.fromkeys(decoded, 0) | always | fields


# Reserved bits of the first words; the words that follow are reserved entirely.
ALL = 0xFFFF_FFFF_FFFF_FFFF
NOTHING: frozenset[str] = frozenset()
RESERVED: list[tuple[type[Layout], frozenset[str], tuple[int, ...]]] = [
    (RootEntry, NOTHING, (0xFFE,)),
    (ContextEntry, NOTHING, (0xFF0, 0xFFFFFFFFFF000080)),
    (ScalableRootEntry, NOTHING, (0xFFE, 0xFFE)),
    (ScalableContextEntry, frozenset({"DT", "PRS", "RPS", "RPRIVS"}), (0x1E0, 0xFFFFFFFFFFE00000)),
    (ScalableContextEntry, frozenset({"RPS"}), (0x1F4, 0xFFFFFFFFFFF00000)),
    (ScalableContextEntry, NOTHING, (0x1F4, ALL)),
    (PasidDirectoryEntry, NOTHING, (0xFFC,)),
    (PasidEntry, frozenset({"SSADS", "SMPWCS", "SC", "MTS", "SRS", "EAFS"}), (0xC20, 0xF87F0000, 0xF02)),
    (PasidEntry, frozenset({"SSADS", "SMPWCS", "SC", "MTS"}), (0xC20, 0xF87F0000, 0xF83)),
    (PasidEntry, frozenset({"SMPWCS", "SRS", "EAFS"}), (0xE20, 0xFFFFFFFFFF7F0000, 0xF02)),
    (PasidEntry, NOTHING, (0xE20, 0xFFFFFFFFFFFF0000, 0xF83)),
    (SecondStageEntry, frozenset({"SC"}), (1 << 62,)),
    (SecondStageEntry, NOTHING, (1 << 62 | 1 << 11,)),
    (FirstStageEntry, NOTHING, (0,)),
    (ContextCacheInvalidate, NOTHING, (0xFFFC00000000F1C0, ALL)),
    (IotlbInvalidate, NOTHING, (0xFFFFFFFF0000F100, 0xF80)),
    (DeviceTlbInvalidate, NOTHING, (0xFFFF0000FFE0F1F0, 0xFFE)),
    (DeviceTlbInvalidate, frozenset({"DIT"}), (0x000F0000FFE001F0, 0xFFE)),
    (IecInvalidate, NOTHING, (0xFFFF000007FFF1E0, ALL)),
    (InvalidationWait, NOTHING, (0x00000000FFFFF180, 0x3)),
    (InvalidationWait, frozenset({"PDS"}), (0x00000000FFFFF100, 0x3)),
    (PasidIotlbInvalidate, NOTHING, (0xFFF000000000F1C0, 0xF80)),
    (PasidCacheInvalidate, NOTHING, (0xFFF000000000F1C0, ALL)),
    (PasidDeviceTlbInvalidate, NOTHING, (0xFFF000000000F000, 0x7FE)),
    (PasidDeviceTlbInvalidate, frozenset({"DIT"}), (0, 0x7FE)),
    (PageGroupResponse, NOTHING, (0xFFF00000000001E0, 0xFFFFFFFFFFFFF007)),
    (PageRequest, NOTHING, (0xFFC000000000FE00, 0)),
    (RemappedIrte, NOTHING, (0x00000000FF007000, 0xFFFFFFFFFFF00000)),
    (PostedIrte, NOTHING, (0x0000003FFF0030FC, 0x00000000FFF00000)),
    (FaultRecord, NOTHING, (0xFFF, 0x000000000FFF0000)),
    (RTADDR, NOTHING, (0x3FF,)),
    (IQA, NOTHING, (0x7F8,)),
    (PQA, NOTHING, (0xFF8,)),
    (IRTA, NOTHING, (0x7F0,)),
    (IVA, NOTHING, (0xF80,)),
]


@pytest.mark.parametrize(("layout", "capabilities", "words"), RESERVED)
def test_reserved(layout: type[Layout], capabilities: frozenset[str], words: tuple[int, ...]) -> None:
    mask = layout.to_words(layout.reserved_without(capabilities.__contains__))
    assert mask == words + (ALL,) * (layout.bits // 64 - len(words))


IGNORED = [
    (ContextEntry, 0x78 << 64),
    (PasidEntry, 0x60 << 128),
    (SecondStageEntry, 0xBFF0000000000404),
    (FirstStageEntry, 0xFFF0000000000A00),
    (RemappedIrte, 0xF00),
    (PostedIrte, 0xF00),
]


@pytest.mark.parametrize(("layout", "mask"), IGNORED)
def test_ignored(layout: type[Layout], mask: int) -> None:
    assert layout.ignored == mask
    assert layout.decode(mask | layout.fixed) == layout.decode(layout.fixed)


# What revision 3 has more, as bits of the whole structure.
REVISION_3: list[tuple[type[Layout], dict[str, int], int]] = [
    (PasidEntryRev3, {"SLEE": 1}, 1 << 5),
    (PasidEntryRev3, {"EMT": 7}, 7 << 91),
    (PasidEntryRev3, {"PWT": 1, "PCD": 1}, 1 << 94 | 1 << 95),
    (PasidEntryRev3, {"ERE": 1}, 1 << 129),
    (PasidEntryRev3, {"NXE": 1, "SMEP": 1}, 1 << 133 | 1 << 134),
    (SecondStageEntryRev3, {"X": 1}, 1 << 2),
    (SecondStageEntryRev3, {"TM": 1}, 1 << 62),
    (FirstStageEntryRev3, {"XD": 1}, 1 << 63),
    (PageGroupResponseRev3, {"PDP": 1}, 1 << 5 | 9),
    (PageGroupResponseRev3, {"LPIG": 1}, 1 << 66 | 9),
    (PageGroupResponseRev3, {"PRIVATE_DATA": (1 << 128) - 1}, (1 << 128) - 1 << 128 | 9),
    (PageRequestRev3, {"PDP": 1}, 1 << 9 | 1),
    (PageRequestRev3, {"PRIVATE_DATA": (1 << 128) - 1}, (1 << 128) - 1 << 128 | 1),
]


@pytest.mark.parametrize(("layout", "fields", "raw"), REVISION_3)
def test_revision_3(layout: type[Layout], fields: dict[str, int], raw: int) -> None:
    assert layout.encode(**fields) == raw
    decoded = layout.decode(raw)
    assert {name: decoded[name] for name in fields} == fields
    newest = layout.revisions[4]
    assert newest.values(raw) == newest.values(newest.fixed)
    own = raw & ~newest.fixed
    assert own & (newest.reserved | newest.ignored) == own


@pytest.mark.parametrize("layout", dict.fromkeys(layout for layout, _, _ in REVISION_3))
def test_revision_4_has_no_more_fields(layout: type[Layout]) -> None:
    """All that the two differ in is in the list above."""
    fields = {field.name for field in layout.fields} - {field.name for field in layout.revisions[4].fields}
    assert fields == {name for other, values, _ in REVISION_3 if other is layout for name in values}


# Made by hand from the tables of sections 9.10 and 9.11.
INTERRUPTS: list[Vector] = [
    (
        RemappedIrte,
        {"P": 1, "DM": 1, "RH": 1, "TM": 1, "DLM": 5, "V": 0x23, "DST": 0x1200, "SID": 0x321, "SQ": 2, "SVT": 1},
        (0x00001200002300BD, 0x0000000000060321),
    ),
    (RemappedIrte, {"P": 1, "FPD": 1}, (0x0000000000000003, 0)),
    (PostedIrte, {"SQ": 3}, (0x0000000000008000, 0x0000000000030000)),
    (
        PostedIrte,
        {"P": 1, "FPD": 1, "URG": 1, "VV": 0x45, "PDAL": 0x3FFFFFF, "SID": 0xFFFF, "SVT": 2, "PDAH": 0x12345678},
        (0xFFFFFFC00045C003, 0x123456780008FFFF),
    ),
]


@pytest.mark.parametrize(("layout", "fields", "words"), INTERRUPTS)
def test_interrupt_remapping(layout: type[Layout], fields: dict[str, int], words: tuple[int, ...]) -> None:
    test_encode(layout, fields, words)
    test_decode(layout, fields, words)


# By position, out of the tables of sections 11.4.2 and 11.4.3.
CAPABILITY_BITS: dict[type[Layout], dict[int, str]] = {
    CAP: {
        3: "AFL", 4: "RWBF", 5: "PLMR", 6: "PHMR", 7: "CM", 22: "ZLR", 39: "PSI", 54: "DWD", 55: "DRD", 56: "FS1GP",
        59: "PI", 60: "FS5LP", 61: "ECMDS", 62: "ESIRTPS", 63: "ESRTPS",
    },
    ECAP: {
        0: "C", 1: "QI", 2: "DT", 3: "IR", 4: "EIM", 6: "PT", 7: "SC", 25: "MTS", 26: "NEST", 29: "PRS", 30: "ERS",
        31: "SRS", 33: "NWFS", 34: "EAFS", 40: "PASID", 41: "DIT", 42: "PDS", 43: "SMTS", 44: "VCS", 45: "SSADS",
        46: "SSTS", 47: "FSTS", 48: "SMPWCS", 49: "RPS", 50: "TDXIO", 51: "PMS", 52: "ADMS", 53: "RPRIVS", 55: "HPTS",
        56: "PTRS", 57: "PBDS", 58: "SMS",
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", CAPABILITY_BITS)
def test_capability_bits(layout: type[Layout]) -> None:
    found = {bit: [name for name, value in layout.decode(1 << bit).items() if value] for bit in CAPABILITY_BITS[layout]}
    assert found == {bit: [name] for bit, name in CAPABILITY_BITS[layout].items()}
    assert set(CAPABILITY_BITS[layout].values()) == {field.name for field in layout.fields if field.width == 1}


CAPABILITIES: list[tuple[type[Layout], int, dict[str, int]]] = [
    (CAP, 0x0000070000000000, {"NFR": 7}),
    (
        CAP,
        0x00D2008C222F0606,
        {
            "ND": 6,
            "SAGAW": 0b00110,
            "MGAW": 47,
            "FRO": 0x22,
            "SSLPS": 3,
            "PSI": 1,
            "NFR": 0,
            "MAMV": 18,
            "DWD": 1,
            "DRD": 1,
        },
    ),
    (ECAP, 0x0000480080000F42, {"QI": 1, "PT": 1, "IRO": 0xF, "SRS": 1, "SMTS": 1, "SSTS": 1}),
    (ECAP, 0x0000880000000F42, {"QI": 1, "PT": 1, "IRO": 0xF, "SMTS": 1, "FSTS": 1}),
    (
        ECAP,
        0x0003ED9CA4F00FDE,
        {"IRO": 0xF, "MHMV": 15, "PSS": 19}
        | dict.fromkeys(["QI", "DT", "IR", "EIM", "PT", "SC", "NEST", "PRS", "SRS", "EAFS", "PASID", "PDS"], 1)
        | dict.fromkeys(["SMTS", "SSADS", "SSTS", "FSTS", "SMPWCS", "RPS"], 1),
    ),
    (
        ECAP,
        0x0003680000F010DB,
        {"IRO": 0x10, "MHMV": 15}
        | dict.fromkeys(["C", "QI", "IR", "EIM", "PT", "SC", "SMTS", "SSADS", "SSTS", "SMPWCS", "RPS"], 1),
    ),
]


@pytest.mark.parametrize(("layout", "word", "fields"), CAPABILITIES)
def test_capability_words(layout: type[Layout], word: int, fields: dict[str, int]) -> None:
    decoded = layout.decode(word)
    assert decoded == dict.fromkeys(decoded, 0) | fields
