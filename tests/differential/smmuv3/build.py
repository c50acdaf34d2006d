# SPDX-License-Identifier: Apache-2.0
"""A configuration's tables in memory, written by hand: neither our driver nor our page-table formats take part."""

from iommuctl.formats.memory import Memory, write_word
from iommuctl_smmuv3.cd import Cd
from iommuctl_smmuv3.registers import LINEAR, TWO_LEVEL, StrtabBase, StrtabBaseCfg
from iommuctl_smmuv3.ste import ABORT, BOTH_STAGES, BYPASS, STAGE_1, STAGE_2, Ste
from iommuctl_smmuv3.stream_table import L1Std, array_size
from tests.differential.plans import Range
from tests.differential.smmuv3 import descriptors
from tests.differential.smmuv3.plans import (
    LINEAR_AT,
    STAGE_1_AT,
    STAGE_2_AT,
    STREAM_IDS,
    Configuration,
    Stage1,
    Stage2,
    Stream,
    Tree,
)

_CONFIG = {"abort": ABORT, "bypass": BYPASS, "stage 1": STAGE_1, "stage 2": STAGE_2, "both": BOTH_STAGES}
_STE = Ste.bits // 8
_TG0 = _S2TG = {1 << 12: 0, 1 << 16: 1, 1 << 14: 2}
_TG1 = {1 << 14: 1, 1 << 12: 2, 1 << 16: 3}
VMID, ASID = 0x20, 0x100
"""Those of the first stage 2 and of the first stage 1; the others follow."""
TABLES = (STAGE_1_AT, STAGE_2_AT, (LINEAR_AT, 0x4000), (LINEAR_AT + 0x8000 * _STE, 0x1000))
"""Where tables can be; of a linear stream table, what the devices have."""


class Pool:
    """Memory that is handed out from its beginning on."""

    def __init__(self, extent: tuple[int, int]) -> None:
        self._next, self._end = extent[0], sum(extent)

    def take(self, size: int) -> int:
        """So many bytes (a power of two), aligned to themselves."""
        address = -(-self._next // size) * size
        self._next = address + size
        assert self._next <= self._end, "a configuration has more tables than there is room for"
        return address


class _Tree:
    """One tree. `offset` is what its tables' addresses are in entries, less where they are in memory."""

    def __init__(self, memory: Memory, pool: Pool, stage: int, tree: Tree, offset: int = 0) -> None:
        self._memory, self._pool, self._stage, self._tree, self._offset = memory, pool, stage, tree, offset
        highest = descriptors.highest(tree.granule, tree.bits)
        self.start = highest if tree.start is None else tree.start
        entries = 1 << tree.bits - descriptors.shift(tree.granule, self.start)
        self._root = pool.take(max(64, 8 * entries))
        self._tables: dict[tuple[int, int], int] = {}
        for one in tree.ranges:
            self.map(one)

    @property
    def root(self) -> int:
        return self._root + self._offset

    def map(self, mapping: Range) -> None:
        """Fill a range, with the largest leaves that fit. What is there already stays."""
        at, end, blocks = mapping.iova, mapping.iova + mapping.size, descriptors.block_levels(self._tree.granule)
        while at < end:
            output = mapping.pa + at - mapping.iova
            fitting = (
                level
                for level in (blocks if self._tree.blocks else ())
                if level >= self.start and not (at | output) % self._size(level) and at + self._size(level) <= end
            )
            level = next(fitting, descriptors.LAST)
            self._put(at, level, output, mapping)
            at += self._size(level)

    def _size(self, level: int) -> int:
        return 1 << descriptors.shift(self._tree.granule, level)

    def _put(self, address: int, last: int, output: int, mapping: Range) -> None:
        address &= (1 << self._tree.bits) - 1
        place, granule = self._root, self._tree.granule
        for level in range(self.start, last + 1):
            index = address >> descriptors.shift(granule, level)
            if level > self.start:
                index %= granule // 8
            entry = place + 8 * index
            if level == last:
                write_word(self._memory, entry, descriptors.leaf(self._stage, level, output, mapping))
                return
            key = (level, address >> descriptors.shift(granule, level))
            if key not in self._tables:
                self._tables[key] = self._pool.take(granule)
                writable = "t" not in mapping.prot or level != descriptors.LAST - 1
                word = descriptors.table(self._tables[key] + self._offset, writable=writable)
                write_word(self._memory, entry, word)
            place = self._tables[key]


def context(memory: Memory, pool: Pool, stage: Stage1, asid: int, offset: int = 0) -> int:
    """The CD of a stage 1, whose tables are built here: zeros are there. `offset` is as for a tree."""
    values = {"V": 1, "AA64": 1, "A": 1, "R": 1, "IPS": 4, "ASID": asid, "ASET": 1, "MAIR0": 0xFF}
    for which, tree, codes in ((0, stage.lower, _TG0), (1, stage.upper, _TG1)):
        if tree is None:
            values[f"EPD{which}"] = 1
            continue
        built = _Tree(memory, pool, 1, tree, offset)
        values |= {f"T{which}SZ": 64 - tree.bits, f"TG{which}": codes[tree.granule], f"TTB{which}": built.root}
    return Cd.encode(**{**values, **dict(stage.values)})


class Built:
    """Where the stream table is: values of the registers STRTAB_BASE and STRTAB_BASE_CFG."""

    def __init__(self, memory: Memory, configuration: Configuration) -> None:
        """`memory` holds zeros in TABLES."""
        self._memory = memory
        self._lower, self._upper = Pool(STAGE_1_AT), Pool(STAGE_2_AT)
        self._configuration = configuration
        self._cds: dict[tuple[int, int | None], int] = {}
        self._stages_2 = [self._stage_2(number, stage) for number, stage in enumerate(configuration.stages_2)]
        stes = {
            stream_id: self._ste(stream)
            for stream_id, stream in zip(STREAM_IDS, configuration.streams, strict=True)
            if stream
        }
        table = configuration.table
        self.strtab_base, split = LINEAR_AT, table.split
        if split is None:
            self.strtab_base_cfg = StrtabBaseCfg.encode(FMT=LINEAR, LOG2SIZE=table.size)
            for stream_id, ste in stes.items():
                memory.write(LINEAR_AT + _STE * stream_id, Ste.to_bytes(ste))
        else:
            self.strtab_base_cfg = StrtabBaseCfg.encode(FMT=TWO_LEVEL, LOG2SIZE=table.size, SPLIT=split)
            self._two_levels(stes, split)
        self.strtab_base = StrtabBase.encode(ADDR=self.strtab_base, RA=1)

    def _two_levels(self, stes: dict[int, int], split: int) -> None:
        self.strtab_base = self._upper.take(8 << max(3, self._configuration.table.size - split, 16 - split))
        for first in sorted({stream_id >> split for stream_id in stes}):
            mine = {stream_id % (1 << split): ste for stream_id, ste in stes.items() if stream_id >> split == first}
            span = split + 1 if self._configuration.table.whole else max(mine).bit_length() + 1
            array = self._upper.take(array_size(span))
            write_word(self._memory, self.strtab_base + 8 * first, L1Std.encode(Span=span, L2Ptr=array))
            for index, ste in mine.items():
                self._memory.write(array + _STE * index, Ste.to_bytes(ste))

    def _ste(self, stream: Stream) -> int:
        values = {"V": 1, "Config": _CONFIG[stream.config], "S1CSH": 3, "SHCFG": 1}
        seen = None
        if stream.stage_2 is not None:
            values |= self._stages_2[stream.stage_2]
            seen = stream.stage_2
        if stream.stage_1 is not None:
            values["S1ContextPtr"] = self._cd(stream.stage_1, seen)
        return Ste.encode(**{**values, **dict(stream.values)})

    def _stage_2(self, number: int, stage: Stage2) -> dict[str, int]:
        tree = _Tree(self._memory, self._upper, 2, stage.tree)
        tree.map(Range(stage.sees_stage_1, STAGE_1_AT[1], STAGE_1_AT[0], "rw"))
        code = 2 - tree.start if stage.tree.granule == 1 << 12 else 3 - tree.start
        values = {"S2VMID": VMID + number, "S2T0SZ": 64 - stage.tree.bits, "S2SL0": code, "S2TTB": tree.root}
        values |= {"S2TG": _S2TG[stage.tree.granule], "S2PS": 4, "S2AA64": 1, "S2R": 1}
        return {**values, **dict(stage.values)}

    def _cd(self, number: int, below: int | None) -> int:
        """The address of a CD in the address space that a stage 2 makes; each has tables of its own."""
        key = (number, below)
        if key not in self._cds:
            stage = self._configuration.stages_1[number]
            offset = 0 if below is None else self._configuration.stages_2[below].sees_stage_1 - STAGE_1_AT[0]
            address = self._lower.take(Cd.bits // 8)
            cd = context(self._memory, self._lower, stage, ASID + len(self._cds), offset)
            self._memory.write(address, Cd.to_bytes(cd))
            self._cds[key] = address + offset
        return self._cds[key]
