# SPDX-License-Identifier: Apache-2.0
"""The smallest configuration that shows each deviation, so that every run meets all of them."""

from collections.abc import Mapping

from iommuctl_smmuv3.commands import StallTerm, Sync
from iommuctl_smmuv3.configuration_commands import CfgiCdAll, PrefetchConfig
from iommuctl_smmuv3.tlb_commands import (
    TlbiNhAll,
    TlbiNhAsid,
    TlbiNhVa,
    TlbiNhVaa,
    TlbiS2Ipa,
    TlbiS12Vmall,
)
from tests.differential.plans import Clear, Dma, Flip, Range
from tests.differential.smmuv3.build import ASID, VMID
from tests.differential.smmuv3.plans import (
    STAGE_1_AT,
    Commands,
    Configuration,
    Event,
    Stage1,
    Stage2,
    Stream,
    StreamTable,
    Tree,
    Values,
)
from tests.differential.smmuv3.unit import FORGET

_EDU = 1
_PAGE, _READ_ONLY, _HOLE, _PRIVILEGED, _UNUSED, _FAR = 0, 0x1000, 0x2000, 0x3000, 0x4000, 3 << 33
"""Addresses of pages that differ in what they allow, and of a page that is far away from them."""
_RAM = 0x5000_0000
_W, _R = Dma(_EDU, "w", _PAGE, 8), Dma(_EDU, "r", _PAGE, 8)
_UPPER = (1 << 64) - (1 << 39)
_HIGH = 1 << 46
"""Beyond all outputs of 44 bits."""
_RANGES = (
    Range(_PAGE, 0x1000, _RAM, "rwu"),
    Range(_READ_ONLY, 0x1000, _RAM + 0x1000, "ru"),
    Range(_PRIVILEGED, 0x1000, _RAM + 0x3000, "rw"),
    Range(_UNUSED, 0x1000, _RAM + 0x4000, "rwun"),
    Range(_FAR, 0x1000, _RAM + 0x5000, "rwu"),
)
_BIT_52, _BIT_56 = 52, 56


def _flip(depth: int, bit: int, iova: int = _PAGE) -> Flip:
    return Flip(_EDU, iova, depth, bit)


def _events(events: tuple[Event, ...]) -> tuple[Event, ...]:
    """Caches forget everything before each request."""
    return tuple(one for event in events for one in ((Commands(FORGET), event) if isinstance(event, Dma) else (event,)))


def _one(
    *events: Event, values: Values = (), upper: bool = False, ranges: tuple[Range, ...] = _RANGES
) -> Configuration:
    """Stage 1 alone: tables of 4 KiB and 39 bits."""
    first = _UPPER if upper else 0
    tree = Tree(1 << 12, 39, False, tuple(one._replace(iova=first + one.iova) for one in _RANGES))
    stage = Stage1(None if upper else tree, tree if upper else None, values)
    return Configuration("stage-1", StreamTable(), (stage,), (), (Stream("stage 1", 0),) * 5, _events(events))


def _two(
    *events: Event, values: Values = (), stream: Values = (), start: int | None = None, table: StreamTable | None = None
) -> Configuration:
    """Stage 2 alone: tables of 4 KiB and 40 bits."""
    stage = Stage2(Tree(1 << 12, 40, False, _RANGES, start), values, STAGE_1_AT[0])
    kind = "stage-2" if table is None else "stage-2-two-level"
    streams = (Stream("stage 2", None, 0, stream),) * 5
    return Configuration(kind, table or StreamTable(), (), (stage,), streams, _events(events))


def _both(*events: Event, values: Values = (), upper: Tree | None = None) -> Configuration:
    """Both stages: tables of 4 KiB, 39 bits and 40 bits."""
    lower = Tree(1 << 12, 39, False, (Range(_PAGE, 0x1000, _PAGE, "rwu"), Range(_FAR, 0x1000, _PAGE, "rwu")))
    stage_2 = Stage2(Tree(1 << 12, 40, False, _RANGES), (), STAGE_1_AT[0])
    stages_1 = (Stage1(lower, upper, values),)
    return Configuration("nested", StreamTable(), stages_1, (stage_2,), (Stream("both", 0, 0),) * 5, _events(events))


def _commands(kind: str, *words: int) -> Configuration:
    return Configuration(kind, StreamTable(), (), (), (Stream("abort"),) * 5, (Commands(words),))


_NH_ALL, _NH_ASID, _NH_VA, _NH_VAA, _S12_VMALL, _S2_IPA = 0x10, 0x11, 0x12, 0x13, 0x28, 0x2A


def _tlbi(opcode: int, *, vmid: int = 0, asid: int = 0, address: int = 0) -> int:
    """An invalidation in words that no layout has made: a field that only our unit reads otherwise is noticed."""
    return opcode | vmid << 32 | asid << 48 | address << 64


def _changed(configuration: Configuration, command: int, iova: int = _PAGE) -> Configuration:
    """A page goes, and a command tells the caches, before it is asked for again."""
    asked = Dma(_EDU, "r", iova, 8)
    return configuration._replace(events=(asked, Clear(_EDU, iova), Commands((command,)), asked))


def _changed_above(command: int) -> Configuration:
    """The same of a page of stage 1 that is above a stage 2: behind its descriptor come the four of stage 2."""
    return _both()._replace(events=(_W, _flip(4, 0), Commands((command,)), _W))


_TWO_LEVELS = StreamTable(split=8, whole=False)

CASES: Mapping[str, Configuration] = {
    "stream-id-recorded": _two(Dma(3, "w", _PAGE, 8), table=StreamTable(8, 8))._replace(recinvsid=False),
    # Span becomes 8 from 9, and the device's STE is the 129th.
    "span": _two(Flip(2, _PAGE, 5, 0), Dma(2, "w", _PAGE, 8), table=_TWO_LEVELS),
    "array-reserved": _two(_flip(5, _BIT_56), _W, table=_TWO_LEVELS),
    # S1STALLD.
    "s1-fields": _two(_W, stream=(("S1STALLD", 1),)),
    "s2t0sz-by-s2ps": _two(_W, values=(("S2PS", 0),)),
    "s2-updates": _two(_W, values=(("S2HA", 1),)),
    # 30 bits in a tree that begins at level 0.
    "s2-start-level": _two(_W, values=(("S2T0SZ", 25), ("S2SL0", 2))),
    "context-pointer": _one(_W)._replace(streams=(Stream("stage 1", 0, None, (("S1ContextPtr", _HIGH),)),) * 5),
    "ttb-bits": _two(_flip(4, 196 + _BIT_52 - 4), _W),
    "bypass-size": Configuration(
        "stage-1", StreamTable(), (), (), (Stream("bypass"),) * 5, _events((Dma(_EDU, "w", _HIGH, 8),))
    ),
    "input-size": _two(Dma(_EDU, "w", _HIGH, 8)),
    "cd-fetch-address": _one(_W)._replace(streams=(Stream("stage 1", 0, None, (("S1ContextPtr", 1 << 43),)),) * 5),
    # Stage 2 does not map the page of the CD.
    "cd-fetch-read": _both(_flip(20, 0), _W),
    "ttb-at-decode": _both(_W, values=(("TTB1", 1 << 38),), upper=Tree(1 << 12, 39, False, ())),
    # Stage 2 does not map the page of the last table.
    "table-fetch": _both(_flip(5, 0), _W),
    # S2AP of the page of the start table allows no reads.
    "ttrnw": _both(_flip(15, 6), _R),
    "tbi1": _one(Dma(_EDU, "w", _UPPER ^ 0xA5 << 56, 8), values=(("TBI1", 1),), upper=True),
    "ipa-low-bits": _two(Dma(_EDU, "w", _HOLE + 8, 8)),
    # The second half of the addresses is the second of two tables at level 1.
    "concatenation": _two(Dma(_EDU, "w", 1 << 39, 8), start=1),
    # The descriptor of level 0 is a block at 0.
    "block-level": _two(_flip(3, 1), Dma(_EDU, "w", _RAM, 8)),
    "table-size": _two(_flip(1, 46), _W),
    "size-last": _two(_flip(0, 46, _UNUSED), Dma(_EDU, "w", _UNUSED, 8)),
    "aptable-at-once": _one(_flip(1, 62, _HOLE), Dma(_EDU, "w", _HOLE, 8)),
    "ssec": _commands("stage-1", PrefetchConfig.encode() | 1 << 10),
    "cds-without-stage-1": _commands("stage-2", CfgiCdAll.encode(StreamID=1)),
    "missing-commands": _commands("stage-1", StallTerm.encode()),
    "empty-ranges": _commands("stage-1", TlbiNhVa.encode(TG=1)),
    "sync-signal": _commands("stage-1", Sync.encode(CS=3)),
    "always-privileged": _one(Dma(_EDU, "w", _PRIVILEGED, 8)),
}
"""By the name of the deviation."""

AGREED: Mapping[str, Configuration] = {
    "stage 1": _one(_W),
    "stage 1, upper addresses": _one(Dma(_EDU, "w", _UPPER, 8), upper=True),
    "stage 2": _two(_W),
    "both stages": _both(_W),
    "two levels": _two(_W, table=_TWO_LEVELS),
    "a StreamID beyond the table, refused": _two(Dma(3, "w", _PAGE, 8), table=StreamTable(8, 8)),
    "an STE that is not valid, refused": _one(_W)._replace(streams=(None,) * 5),
    "STEs where there is no memory, refused": _two(_flip(5, 43), _W, table=_TWO_LEVELS),
    "a table where there is no memory, refused": _one(_flip(1, 43), _W),
    "a page that is read-only, refused": _one(Dma(_EDU, "w", _READ_ONLY, 8)),
    "a page whose accessed flag is not set, refused": _two(Dma(_EDU, "w", _UNUSED, 8)),
    "AFFD": _one(Dma(_EDU, "w", _UNUSED, 8), values=(("AFFD", 1),)),
    "S2AFFD": _two(Dma(_EDU, "w", _UNUSED, 8), values=(("S2AFFD", 1),)),
    "a table through which nothing is written, refused": _one(_flip(1, 62), _W),
    "HAD0": _one(_flip(1, 62), _W, values=(("HAD0", 1),)),
    "HAD1": _one(_flip(1, 62, _UPPER), Dma(_EDU, "w", _UPPER, 8), values=(("HAD1", 1),), upper=True),
    "tables of the other byte order, refused": _one(_W, values=(("ENDI", 1),)),
    "tables for 24 bits, refused": _one(_W, values=(("T0SZ", 40),)),
    "a top byte, refused": _one(Dma(_EDU, "w", 0x5A << 56, 8)),
    "TBI0": _one(Dma(_EDU, "w", 0x5A << 56, 8), values=(("TBI0", 1),)),
    "a block": _two()._replace(
        stages_2=(Stage2(Tree(1 << 12, 40, True, (Range(_PAGE, 0x20_0000, 0x5020_0000, "rw"),)), (), STAGE_1_AT[0]),),
        events=_events((_W,)),
    ),
    "a page is invalidated, refused": _changed(_one(), TlbiNhVa.encode(ASID=ASID)),
    "a range is invalidated, refused": _changed(_one(), TlbiNhVa.encode(ASID=ASID, TG=1, NUM=3)),
    "a page of all ASIDs is invalidated, refused": _changed(_one(), TlbiNhVaa.encode()),
    "an ASID is invalidated, refused": _changed(_one(), TlbiNhAsid.encode(ASID=ASID)),
    "an upper page is invalidated, refused": _changed(
        _one(upper=True), _tlbi(_NH_VA, asid=ASID, address=_UPPER), iova=_UPPER
    ),
    "an upper page of all ASIDs is invalidated, refused": _changed(
        _one(upper=True), TlbiNhVaa.encode(Addr=_UPPER), iova=_UPPER
    ),
    "the end of 17 pages is invalidated, refused": _changed(
        _one(), TlbiNhVa.encode(ASID=ASID, Addr=_FAR - 0x10_000, TG=1, NUM=16), iova=_FAR
    ),
    "the midst of 65536 pages is invalidated, refused": _changed(
        _one(), TlbiNhVa.encode(ASID=ASID, Addr=_FAR - 0x100_000, TG=1, SCALE=16), iova=_FAR
    ),
    "the end of 17 pages of all ASIDs is invalidated, refused": _changed(
        _one(), TlbiNhVaa.encode(Addr=_FAR - 0x10_000, TG=1, NUM=16), iova=_FAR
    ),
    "the midst of 65536 pages of all ASIDs is invalidated, refused": _changed(
        _one(), TlbiNhVaa.encode(Addr=_FAR - 0x100_000, TG=1, SCALE=16), iova=_FAR
    ),
    "stage 1 of the VMID is invalidated, refused": _changed_above(TlbiNhAll.encode(VMID=VMID)),
    "stage 1 of a VMID is invalidated, refused": _changed_above(_tlbi(_NH_ALL, vmid=VMID)),
    "an ASID of a VMID is invalidated, refused": _changed_above(_tlbi(_NH_ASID, vmid=VMID, asid=ASID)),
    "a page of a VMID is invalidated, refused": _changed_above(_tlbi(_NH_VA, vmid=VMID, asid=ASID)),
    "a page of all ASIDs of a VMID is invalidated, refused": _changed_above(_tlbi(_NH_VAA, vmid=VMID)),
    "another ASID is invalidated": _changed(_one(), _tlbi(_NH_ASID, asid=ASID + 1)),
    "another page is invalidated": _changed(_one(), _tlbi(_NH_VA, asid=ASID, address=_READ_ONLY)),
    "a page of stage 2 is invalidated, refused": _changed(_two(), TlbiS2Ipa.encode(VMID=VMID)),
    "an odd page of stage 2 is invalidated, refused": _changed(
        _two(), _tlbi(_S2_IPA, vmid=VMID, address=_READ_ONLY), iova=_READ_ONLY
    ),
    "the end of 17 pages of stage 2 is invalidated, refused": _changed(
        _two(), TlbiS2Ipa.encode(VMID=VMID, Addr=_FAR - 0x10_000, TG=1, NUM=16), iova=_FAR
    ),
    "the midst of 65536 pages of stage 2 is invalidated, refused": _changed(
        _two(), TlbiS2Ipa.encode(VMID=VMID, Addr=_FAR - 0x100_000, TG=1, SCALE=16), iova=_FAR
    ),
    "a VMID is invalidated, refused": _changed(_two(), _tlbi(_S12_VMALL, vmid=VMID)),
    "another VMID is invalidated": _changed(_two(), _tlbi(_S12_VMALL, vmid=VMID + 1)),
    "a VMID of both stages is invalidated, refused": _changed(_both(), TlbiS12Vmall.encode(VMID=VMID)),
    "beyond the width of stage 2, refused": _two(Dma(_EDU, "w", 1 << 40, 8)),
}
"""Where both must do the same."""
