# SPDX-License-Identifier: Apache-2.0
"""Requests that the unit must refuse: each is one small change to the good tables."""

from typing import NamedTuple

from iommuctl.model import Fault, Slot
from tests.vtd.handmade import (
    BY_RID,
    CONTEXT,
    DIRECTORY_1,
    ENTRY_FIRST,
    ENTRY_NESTED,
    ENTRY_SECOND,
    ENTRY_THROUGH,
    FIRST,
    FS1,
    FS2,
    FS3,
    FS4,
    FS_PRIVILEGED,
    FS_PRIVILEGED_RO,
    FS_RO,
    GPA1,
    GPA4,
    IN_1G,
    IN_2M,
    NESTED,
    NOWHERE,
    PAGE_RO,
    PAGE_WO,
    RID,
    ROOT,
    RTADDR,
    SECOND,
    SS1,
    SS2,
    SS3,
    SS4,
    THROUGH,
    WORDS,
    Ask,
    handmade,
)
from tests.vtd.machine import Machine

CAP, ECAP = (handmade().unit.read_register(name) for name in ("CAP", "ECAP"))
CAP_BITS = {"2M": 34, "1G": 35, "FS1GP": 56, "FS5LP": 60, "39": 9, "48": 10, "57": 11}
ECAP_BITS = {
    "DT": 2, "PT": 6, "SC": 7, "MTS": 25, "NEST": 26, "PRS": 29, "SRS": 31, "EAFS": 34, "SSADS": 45, "SSTS": 46,
    "FSTS": 47, "SMPWCS": 48, "RPS": 49,
}  # fmt: skip
TOO_HIGH = 1 << 48
"""An address bit at the host address width."""


class Case(NamedTuple):
    """What is asked, which words differ, which reason that is, which capability the unit lacks, and where memory
    cannot be written, as (first, size).
    """

    code: int
    ask: Ask
    changes: dict[int, int]
    without: str = ""
    rtaddr: int = RTADDR
    read_only: tuple[int, int] = (0, 0)


def machine_of(case: Case, more: dict[int, int] | None = None) -> Machine:
    """The machine of a case, with the bits of `more` set as well."""
    options = {}
    if case.without in CAP_BITS:
        options["cap"] = CAP & ~(1 << CAP_BITS[case.without])
    elif case.without:
        options["ecap"] = ECAP & ~(1 << ECAP_BITS[case.without])
    words = WORDS | case.changes
    words |= {address: words.get(address, 0) | bits for address, bits in (more or {}).items()}
    machine = handmade(words, rtaddr=case.rtaddr, **options)
    machine.memory.read_only = case.read_only
    return machine


def fault_of(case: Case) -> Fault:
    answer = case.ask.of(machine_of(case))
    assert answer.fault, f"it went to {answer.pa:#x}"
    assert (answer.pa, answer.page_size, answer.prot) == (None, None, None)
    return answer.fault


def changed(address: int, *bits: int) -> dict[int, int]:
    """A word of the good tables with more bits set."""
    return {address: WORDS.get(address, 0) | sum(1 << bit for bit in bits)}


READ, WRITE = Ask(SECOND), Ask(SECOND, access="w")
FS_READ, FS_WRITE = Ask(FIRST), Ask(FIRST, access="w")
N_READ, N_WRITE = Ask(NESTED), Ask(NESTED, access="w")
RW4 = 8 * 4
NOT_SNOOPED_FS, NOT_SNOOPED_NESTED = {ENTRY_FIRST + 8: 7}, {ENTRY_NESTED + 8: 0x43}

CASES = {
    # The way to the PASID entry.
    "mode 2": Case(0x30, READ, {}, rtaddr=0x1800),
    "abort mode without ADMS": Case(0x30, READ, {}, rtaddr=0x1C00),
    "root table beyond the host": Case(0x30, READ, {}, rtaddr=TOO_HIGH | RTADDR),
    "reserved bit of RTADDR": Case(0x30, READ, {}, rtaddr=RTADDR | 1 << 9),
    "no root table": Case(0x38, READ, {}, rtaddr=NOWHERE | 0x400),
    "half not present": Case(0x39, READ, {ROOT: 0x2000}),
    "root reserved": Case(0x3A, READ, changed(ROOT, 1)),
    "root reserved, last": Case(0x3A, READ, changed(ROOT, 11)),
    "context table beyond the host": Case(0x3A, READ, changed(ROOT, 48)),
    "no context table": Case(0x40, READ, {ROOT: NOWHERE | 1}),
    "context not present": Case(0x41, READ, {CONTEXT: 0x3008}),
    "context bit 5": Case(0x42, READ, changed(CONTEXT, 5)),
    "directory beyond the host": Case(0x42, READ, changed(CONTEXT, 48)),
    "RID_PRIV without RPRIVS": Case(0x42, READ, {CONTEXT + 8: 1 << 20}),
    "translation request without DTE": Case(0x44, Ask(SECOND, kind="translation"), {}),
    "translated request without DTE": Case(0x44, Ask(SECOND, kind="translated"), {}),
    "translation request without DTE and PASID": Case(0x44, Ask(BY_RID, kind="translation"), {}),
    "translated request without DTE and PASID": Case(0x44, Ask(BY_RID, kind="translated"), {}),
    # Public sources disagree whether this is SCT.4 or SCT.9; see docs/decisions.md.
    "RID_PASID beyond PDTS": Case(0x43, Ask(BY_RID), {CONTEXT + 8: 8192}),
    "PASID not allowed": Case(0x45, Ask(Slot(RID, 1)), {CONTEXT: 0x3001}),
    "PASID not allowed, translation request": Case(0x45, Ask(FIRST, kind="translation"), {CONTEXT: 0x3005}),
    "PASID not allowed, translated request": Case(0x45, Ask(FIRST, kind="translated"), {CONTEXT: 0x3005}),
    "PASID beyond PDTS 0": Case(0x46, Ask(Slot(RID, 8192)), {}),
    "PASID beyond PDTS 6": Case(0x46, Ask(Slot(RID, 1 << 19)), {CONTEXT: 0x3C09}),
    "PASID beyond PDTS, translation request": Case(0x46, Ask(Slot(RID, 8192), kind="translation"), {CONTEXT: 0x300D}),
    "PASID beyond PDTS, translated request": Case(0x46, Ask(Slot(RID, 8192), kind="translated"), {CONTEXT: 0x300D}),
    "no directory": Case(0x50, READ, {CONTEXT: NOWHERE | 9}),
    "directory entry 0": Case(0x51, READ, {DIRECTORY_1: 0}),
    "directory entry reserved": Case(0x52, READ, changed(DIRECTORY_1, 2)),
    "directory entry reserved, last": Case(0x52, READ, changed(DIRECTORY_1, 11)),
    "PASID table beyond the host": Case(0x52, READ, changed(DIRECTORY_1, 48)),
    "no PASID table": Case(0x58, READ, {DIRECTORY_1: NOWHERE | 1}),
    "PASID entry not present": Case(0x59, READ, {ENTRY_SECOND: 0x10088}),
    "PASID entry bit 10": Case(0x5A, FS_READ, {ENTRY_FIRST: 0x449}),
    "SSPTPTR beyond the host": Case(0x5A, READ, changed(ENTRY_SECOND, 48)),
    "SSPTPTR beyond the host, pass-through": Case(0x5A, Ask(THROUGH), changed(ENTRY_THROUGH, 48)),
    "FSPTPTR beyond the host": Case(0x5A, FS_READ, changed(ENTRY_FIRST + 16, 48)),
    "FSPM 2": Case(0x5B, FS_READ, {ENTRY_FIRST + 16: 0x20008}),
    "FSPM 3": Case(0x5B, N_READ, {ENTRY_NESTED + 16: 0x2000C}),
    "privileged without SRE": Case(0x5D, Ask(FIRST, privileged=True), {}),
    "privileged without SRE, nested": Case(0x5D, Ask(NESTED, privileged=True), {}),
    # The first stage.
    "no lower table": Case(0x70, FS_READ, {FS4: NOWHERE | 0x27}),
    "first stage not present": Case(0x71, FS_READ, {FS1 + RW4: 0}),
    "first stage not present, table": Case(0x71, FS_READ, {FS4: (1 << 64) - 2}),
    "PS in the top entry": Case(0x72, FS_READ, changed(FS4, 7)),
    "address beyond the host": Case(0x72, FS_READ, changed(FS1 + RW4, 48)),
    "table beyond the host": Case(0x72, FS_READ, changed(FS3, 51)),
    "2M page off by 8K": Case(0x72, Ask(FIRST, IN_2M), changed(FS2 + 8, 13)),
    "1G page off by 2M": Case(0x72, Ask(FIRST, IN_1G), changed(FS3 + 8, 21)),
    "1G page without FS1GP": Case(0x72, Ask(FIRST, IN_1G), {}, "FS1GP"),
    "no top table": Case(0x73, FS_READ, {ENTRY_FIRST + 16: NOWHERE}),
    "not canonical, 4 levels": Case(0x80, Ask(FIRST, 0x0000800000000000), {}),
    "not canonical, negative": Case(0x80, Ask(NESTED, 0xFFFF7FFFFFFFF000), {}),
    "not canonical, 5 levels": Case(0x80, Ask(FIRST, 1 << 56), {ENTRY_FIRST + 16: 0x20004}),
    "user": Case(0x81, Ask(FIRST, FS_PRIVILEGED), {}),
    "user, nested": Case(0x81, Ask(NESTED, FS_PRIVILEGED), {}),
    "first stage read-only": Case(0x85, Ask(FIRST, FS_RO, "w"), {}),
    "first stage read-only, nested": Case(0x85, Ask(NESTED, FS_RO, "w"), {}),
    "privileged write with WPE": Case(
        0x85, Ask(FIRST, FS_PRIVILEGED_RO, "w", privileged=True), {ENTRY_FIRST + 16: 0x20011}
    ),
    "first stage ends at an interrupt": Case(0x87, FS_READ, {FS1 + RW4: 0xFEE00067}),
    "A to be set": Case(0x90, FS_READ, NOT_SNOOPED_FS | {FS1 + RW4: 0x30007}),
    "A to be set in a table": Case(0x90, FS_READ, NOT_SNOOPED_FS | {FS4: 0x21007}),
    "D to be set": Case(0x90, FS_WRITE, NOT_SNOOPED_FS | {FS1 + RW4: 0x30027}),
    "EA to be set": Case(0x90, FS_READ, NOT_SNOOPED_FS | {ENTRY_FIRST + 16: 0x20080}),
    "A to be set, nested": Case(0x90, N_READ, NOT_SNOOPED_NESTED | {FS1 + RW4: 0x30007}),
    # The second stage.
    "second stage, no lower table": Case(0x78, READ, {SS4: NOWHERE | 3}),
    "second stage not present": Case(0x79, READ, {SS1 + RW4: 0}),
    "second stage not present, rest set": Case(0x79, READ, {SS4: (1 << 64) - 4}),
    "R above, W below": Case(0x79, READ, {SS4: 0x11001, SS1 + RW4: 0x99002}),
    "second stage, PS in the top entry": Case(0x7A, READ, changed(SS4, 7)),
    "SNP in a table": Case(0x7A, READ, changed(SS3, 11)),
    "SNP without SC": Case(0x7A, READ, changed(SS1 + RW4, 11), "SC"),
    "bit 62 in a page": Case(0x7A, READ, changed(SS1 + RW4, 62)),
    "bit 62 in a table": Case(0x7A, READ, changed(SS2, 62)),
    "second stage, address beyond the host": Case(0x7A, READ, changed(SS1 + RW4, 48)),
    "second stage, 2M page off by 4K": Case(0x7A, Ask(SECOND, IN_2M), changed(SS2 + 8, 12)),
    "second stage, 1G page off by 4K": Case(0x7A, Ask(SECOND, IN_1G), changed(SS3 + 8, 12)),
    "2M page without SSLPS": Case(0x7A, Ask(SECOND, IN_2M), {}, "2M"),
    "1G page without SSLPS": Case(0x7A, Ask(SECOND, IN_1G), {}, "1G"),
    "second stage, no top table": Case(0x7B, READ, {ENTRY_SECOND: NOWHERE | 0x89}),
    "second stage, A to be set": Case(0x7C, READ, {ENTRY_SECOND: 0x10289, ENTRY_SECOND + 8: 0x42}),
    "beyond AW": Case(0x84, Ask(SECOND, 1 << 48), {}),
    "far beyond AW": Case(0x84, Ask(SECOND, (1 << 64) - 1), {}),
    "second stage read-only": Case(0x85, Ask(SECOND, PAGE_RO, "w"), {}),
    "second stage write-only": Case(0x86, Ask(SECOND, PAGE_WO), {}),
    "second stage ends at an interrupt": Case(0x87, READ, {SS1 + RW4: 0xFEE00003}),
    "page that holds interrupts": Case(0x87, Ask(SECOND, IN_2M + 0xFFFF8), {SS2 + 8: 0xFEE00083}),
    # Nested.
    "top table beyond the second stage": Case(0x74, N_READ, {ENTRY_NESTED + 16: 1 << 48}),
    "lower table beyond the second stage": Case(0x74, N_READ, {ENTRY_NESTED: 0x140C5, FS4: 1 << 39 | 0x27}),
    "top table write-only": Case(0x75, N_READ, {GPA1 + 8 * 0x20: 0x20002}),
    "lower table write-only": Case(0x76, N_READ, {GPA1 + 8 * 0x22: 0x22002}),
    "top table not mapped": Case(0x79, N_READ, {GPA1 + 8 * 0x20: 0}),
    "lower table not mapped": Case(0x79, N_READ, {GPA1 + 8 * 0x23: 0}),
    "top table mapped to nowhere": Case(0x73, N_READ, {GPA1 + 8 * 0x20: NOWHERE | 3}),
    "lower table mapped to nowhere": Case(0x70, N_READ, {GPA1 + 8 * 0x22: NOWHERE | 3}),
    "second stage of a table, reserved": Case(0x7A, N_READ, changed(GPA4, 11)),
    "A in a read-only page": Case(0x77, N_READ, {GPA1 + 8 * 0x23: 0x23001, FS1 + RW4: 0x30007}),
    "D in a read-only page": Case(0x77, N_WRITE, {GPA1 + 8 * 0x23: 0x23001, FS1 + RW4: 0x30027}),
    "page not mapped": Case(0x79, N_READ, {GPA1 + 8 * 0x30: 0}),
    "page beyond the second stage": Case(0x84, N_READ, {ENTRY_NESTED: 0x140C5, FS1 + RW4: 1 << 39 | 0x67}),
    "nested, second stage read-only": Case(0x85, Ask(NESTED, PAGE_RO, "w"), {}),
    "nested, second stage write-only": Case(0x86, Ask(NESTED, PAGE_WO), {}),
    "nested, ends at an interrupt": Case(0x87, N_READ, {GPA1 + 8 * 0x30: 0xFEE00003}),
    # Pass-through.
    "beyond the host": Case(0x83, Ask(THROUGH, TOO_HIGH), {}),
    "interrupt": Case(0x87, Ask(THROUGH, 0xFEE00000), {}),
    "last interrupt": Case(0x87, Ask(THROUGH, 0xFEEFFFFF), {}),
}  # fmt: skip


# Accessed and dirty bits that cannot be written. Walks have no effects, so only requests fail so.
SSADE, SSADE_NESTED = {ENTRY_SECOND: 0x10289}, {ENTRY_NESTED: 0x102C9}
ACCESSED = {address: WORDS[address] | 0x100 for address in (SS4, SS3, SS2, SS1 + RW4)}
PAGE_OF_SS1, PAGE_OF_FS1, PAGE_OF_GPA1 = ((entry, 0x1000) for entry in (SS1, FS1, GPA1))
UPDATES = {
    "second stage, A of the page": Case(0x7D, READ, SSADE, read_only=PAGE_OF_SS1),
    "second stage, A of the top": Case(0x7D, READ, SSADE, read_only=(SS4, 8)),
    "second stage, A of all": Case(0x7D, WRITE, SSADE, read_only=(SS4, SS1 + 0x1000 - SS4)),
    "second stage, D": Case(0x7D, WRITE, SSADE | ACCESSED, read_only=PAGE_OF_SS1),
    "second stage, A, translation request": Case(
        0x7D, READ._replace(kind="translation"), SSADE | {CONTEXT: 0x300D}, read_only=PAGE_OF_SS1
    ),
    "first stage, A of the page": Case(0x91, FS_READ, {FS1 + RW4: 0x30007}, read_only=PAGE_OF_FS1),
    "first stage, A of the top": Case(0x91, FS_READ, {FS4: 0x21007}, read_only=(FS4, 8)),
    "first stage, D": Case(0x91, FS_WRITE, {FS1 + RW4: 0x30027}, read_only=PAGE_OF_FS1),
    "first stage, EA": Case(0x91, FS_READ, {ENTRY_FIRST + 16: 0x20080}, read_only=(FS4, 8)),
    "nested, A of the first stage": Case(0x91, N_READ, {FS1 + RW4: 0x30007}, read_only=PAGE_OF_FS1),
    "nested, D of the first stage": Case(0x91, N_WRITE, {FS1 + RW4: 0x30027}, read_only=PAGE_OF_FS1),
    "nested, A of the second stage": Case(0x7D, N_READ, SSADE_NESTED, read_only=PAGE_OF_GPA1),
}  # fmt: skip


ALL = (1 << 64) - 1
ORDER = {
    "P, then reserved: root": Case(0x39, READ, {ROOT: ALL - 1}),
    "P, then reserved: context": Case(0x41, READ, {CONTEXT: ALL - 3, CONTEXT + 8: ALL}),
    "P, then reserved: directory": Case(0x51, READ, {DIRECTORY_1: ALL - 3}),
    "P, then reserved: PASID entry": Case(0x59, READ, {ENTRY_SECOND: ALL - 3, ENTRY_SECOND + 8: ALL}),
    "reserved, then PASID not allowed": Case(0x42, READ, {CONTEXT: 0x3021}),
    "DTE, then PASID not allowed": Case(0x44, Ask(SECOND, kind="translation"), {CONTEXT: 0x3001}),
    "reserved, then DTE": Case(0x42, Ask(SECOND, kind="translated"), {CONTEXT: 0x3029}),
    "PASID not allowed, then too large": Case(0x45, Ask(Slot(RID, 8192)), {CONTEXT: 0x3001}),
    "PASID too large, then no directory": Case(0x46, Ask(Slot(RID, 8192)), {CONTEXT: NOWHERE | 9}),
    "reserved, then kind": Case(0x5A, READ, {ENTRY_SECOND: 0x409}),
    "kind, then privilege": Case(0x5B, Ask(FIRST, privileged=True), {ENTRY_FIRST + 16: 0x20008}),
    "privilege, then canonical": Case(0x5D, Ask(FIRST, 1 << 47, privileged=True), {}),
    "canonical, then tables": Case(0x80, Ask(FIRST, 1 << 47), {ENTRY_FIRST + 16: NOWHERE}),
    "limit, then tables": Case(0x84, Ask(SECOND, 1 << 48), {ENTRY_SECOND: NOWHERE | 0x89}),
    "reserved, then user": Case(0x72, Ask(FIRST, FS_PRIVILEGED), changed(FS1 + 8 * 8, 48)),
    "reserved, then write": Case(0x72, Ask(FIRST, FS_RO, "w"), changed(FS1 + 8 * 7, 48)),
    "user, then write": Case(0x81, Ask(FIRST, FS_PRIVILEGED_RO, "w"), {}),
    "write, then D": Case(0x85, Ask(FIRST, FS_RO, "w"), NOT_SNOOPED_FS | {FS1 + 8 * 7: 0x30005}),
    "write, then interrupt": Case(0x85, Ask(FIRST, FS_RO, "w"), {FS1 + 8 * 7: 0xFEE00025}),
    "second stage: reserved, then write": Case(0x7A, Ask(SECOND, PAGE_RO, "w"), changed(SS1 + 8 * 5, 48)),
    "second stage: write, then D": Case(
        0x85, Ask(SECOND, PAGE_RO, "w"), {ENTRY_SECOND: 0x10289, ENTRY_SECOND + 8: 0x42}
    ),
    "second stage: read, then interrupt": Case(0x86, Ask(SECOND, PAGE_WO), {SS1 + 8 * 6: 0xFEE00002}),
    "first stage's write, then second stage": Case(0x85, Ask(NESTED, FS_RO, "w"), {GPA1 + 8 * 0x30: 0}),
    "A of the first stage, then the page": Case(
        0x90, N_READ, NOT_SNOOPED_NESTED | {FS1 + RW4: 0x30007, GPA1 + 8 * 0x30: 0}
    ),
    "host, then interrupt": Case(0x83, Ask(THROUGH, TOO_HIGH | 0xFEE00000), {}),
}  # fmt: skip
