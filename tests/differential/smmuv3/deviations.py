# SPDX-License-Identifier: Apache-2.0
"""Where QEMU's SMMUv3 differs from the specification, as data. We follow the specification.

The list holds in both directions: what QEMU must answer is what a walk comes to that goes by these items (each is asked
for by its name in `walk.py`, `tables.py` and `readings.py`), request by request. And a long run must have met every
item. Sections are those of IHI0070 G.b, or of DDI0487 M.a.a where they begin with D.
"""

from collections.abc import Mapping

from tests.differential.deviation import Deviation

DEVIATIONS: Mapping[str, Deviation] = {
    "stream-id-recorded": Deviation("7.3", "C_BAD_STREAMID is recorded without CR2.RECINVSID, too"),
    "span": Deviation("5.1", "Span means twice as many STEs; beyond these, it is C_BAD_STE"),
    "array-reserved": Deviation("5.1", "Bits 63:56 of an L1STD are a part of its pointer"),
    "s1-fields": Deviation("5.2.2", "S1CDMax and S1STALLD make an STE ILLEGAL that has stage 2 alone, too"),
    "s2t0sz-by-s2ps": Deviation("5.2", "The least S2T0SZ follows from S2PS, not from the size of IPAs"),
    "s2-updates": Deviation("5.2", "S2HA and S2HD may be 1 without HTTU"),
    "s2-start-level": Deviation("5.2", "S2SL0 may be a level that is too high for S2T0SZ"),
    "context-pointer": Deviation("5.2", "S1ContextPtr may be beyond OAS: the fault is that of the fetch"),
    "ttb-bits": Deviation("5.2, 5.4", "Bits 55:52 of S2TTB, TTB0 and TTB1 are not looked at"),
    "bypass-size": Deviation("3.4", "Addresses beyond OAS are not refused by an STE that bypasses both stages"),
    "input-size": Deviation("3.4", "Stage 2 refuses an input beyond OAS by F_ADDR_SIZE of stage 1, without record"),
    "cd-fetch-address": Deviation("7.3", "F_CD_FETCH has the address at the place of InputAddr"),
    "cd-fetch-read": Deviation("7.3", "RnW of a fault of stage 2 on the fetch of a CD is 1 for a write, too"),
    "ttb-at-decode": Deviation(
        "7.3.22", "TTB0 and TTB1 are translated with the CD, wanted or not: a fault has IPA=TTB, and RnW=1 for a write"
    ),
    "table-fetch": Deviation(
        "7.3", "A fault of stage 2 on a table below the start table has S2=0 and the table's IPA, and is up to CD.R"
    ),
    "ttrnw": Deviation("7.3", "F_PERMISSION of stage 2 on a table has no TTRnW"),
    "tbi1": Deviation("5.4", "TBI0 says for upper addresses, too, whether the top byte is ignored"),
    "ipa-low-bits": Deviation("7.3", "IPA of a record has the lower 12 bits of the address, too"),
    "concatenation": Deviation("D8.2", "Of start tables that lie side by side, the first one alone is used"),
    "block-level": Deviation("D8.3", "Blocks are accepted at every level above the last"),
    "table-size": Deviation("7.3", "Addresses of tables are not checked against the size of outputs"),
    "size-last": Deviation("7.3.22", "F_ADDR_SIZE of a leaf comes after F_ACCESS and F_PERMISSION"),
    "aptable-at-once": Deviation("7.3.22", "APTable denies a write before the next table is read"),
    "always-privileged": Deviation("D8.4", "All requests are privileged: AP[1] and APTable[0] are not looked at"),
    "ssec": Deviation("4.1", "SSec=1 is refused in CMD_CFGI_* alone, not in prefetches and commands for stalls"),
    "cds-without-stage-1": Deviation(
        "4.3", "Without stage 1, CMD_CFGI_CD and CMD_CFGI_CD_ALL are taken for a StreamID that no device has"
    ),
    "missing-commands": Deviation(
        "4.4, 4.5, 4.6", "Commands of EL2, EL3, ATS, PRI and of stalls are taken though the unit has none of these"
    ),
    "empty-ranges": Deviation("4.4", "TG may be other than 0 while NUM, SCALE and TTL are 0"),
    "sync-signal": Deviation("4.7", "CS=3 is taken"),
}
"""By name."""
