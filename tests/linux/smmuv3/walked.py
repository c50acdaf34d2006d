# SPDX-License-Identifier: Apache-2.0
"""Our reading of the tables that Linux wrote: every structure that is there, from STRTAB_BASE down to the last page."""

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import NamedTuple, cast

from iommuctl.errors import OutsideMemory
from iommuctl.formats import checks, radix
from iommuctl.formats.bits import Layout, bit_names
from iommuctl.formats.format import Format
from iommuctl.formats.memory import Memory
from iommuctl.hookspecs import Context
from iommuctl.model import Rid, Slot
from iommuctl_smmuv3 import cd as cds
from iommuctl_smmuv3 import ste as stes
from iommuctl_smmuv3.cd import Cd, L1Cd
from iommuctl_smmuv3.cd_rules import TG1_GRANULES
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.id_registers import IDR0, IDR1, IDR3, IDR5
from iommuctl_smmuv3.registers import TWO_LEVEL, StrtabBase, StrtabBaseCfg
from iommuctl_smmuv3.stage1 import Stage1Format
from iommuctl_smmuv3.stage2 import Stage2Format
from iommuctl_smmuv3.stage2_geometry import GRANULES, start_level
from iommuctl_smmuv3.ste import BYPASS, LINEAR, TWO_LEVEL_64K, WITH_STAGE_1, WITH_STAGE_2, Ste
from iommuctl_smmuv3.stream_table import L1Std
from iommuctl_smmuv3.unit import Unit
from tests.machine import DictRows, SilentBus

_IDENTITY: Mapping[str, type[Layout]] = {"IDR0": IDR0, "IDR1": IDR1, "IDR3": IDR3, "IDR5": IDR5}
_WRITTEN = ("STRTAB_BASE", "STRTAB_BASE_CFG", "CR1", "CR2", "CR0")
"""The registers that Linux writes, in an order in which ours takes them."""


class Stream(NamedTuple):
    """An STE, and the StreamID whose it is."""

    rid: Rid
    ste: int


class Tree(NamedTuple):
    """Page tables: those of a slot, read through `memory`, where the guest's are behind the host's stage 2."""

    slot: Slot
    fmt: Format
    root: int
    memory: Memory
    guests: bool = False


class Through:
    """Memory as it is seen through stage 2 page tables."""

    def __init__(self, memory: Memory, fmt: Format, root: int) -> None:
        self._memory, self._fmt, self._root = memory, fmt, root

    def physical(self, address: int) -> int:
        """Raises OutsideMemory."""
        *_, last = radix.walk(self._fmt, self._memory, self._root, address)
        if last.entry.kind != "leaf":
            raise OutsideMemory(f"stage 2 does not translate {address:#x}")
        return last.entry.address | address & last.size - 1

    def read(self, address: int, size: int) -> bytes:
        ends = [min(at + 4096, address + size) for at in range(address & -4096, address + size, 4096)]
        starts = [address, *ends[:-1]]
        return b"".join(self._memory.read(self.physical(at), end - at) for at, end in zip(starts, ends, strict=True))

    def write(self, address: int, data: bytes) -> None:
        raise TypeError(f"nobody writes {len(data)} bytes at {address:#x}")


class Tables:
    """All tables of a unit with these registers. `unit` is it, and translates by them.

    `streams` are its valid STEs, `trees` the page tables of those that translate, `cds` the valid CDs of each of them.
    """

    def __init__(self, memory: Memory, registers: Mapping[str, int]) -> None:
        self._memory = memory
        # This is all that a unit needs of a context.
        context = cast(Context, SimpleNamespace(memory=memory, rows=DictRows()))
        Unit.reset(context, {name.lower(): f"{registers[name]:#x}" for name in _IDENTITY})
        self.unit = Unit(context, SilentBus())
        for name in _WRITTEN:
            self.unit.write_register(name, registers[name])
        self.features = Features.of(registers)
        fields = {name: layout.values(registers[name]) for name, layout in _IDENTITY.items()}
        self._has = lambda capability: any(values.get(capability) for values in fields.values())
        self.counts: dict[str, int] = {}
        self.findings: list[str] = []
        self.streams: list[Stream] = []
        self.trees: list[Tree] = []
        for stream in self._all_streams(registers["STRTAB_BASE"], registers["STRTAB_BASE_CFG"]):
            self.streams.append(stream)
            self._add_stream(*stream)

    def _all_streams(self, base: int, config: int) -> Iterator[Stream]:
        table, bits = StrtabBase.ADDR.get(base), StrtabBaseCfg.LOG2SIZE.get(config)
        if StrtabBaseCfg.FMT.get(config) != TWO_LEVEL:
            yield from self._streams(0, table, 1 << bits)
            return
        split = StrtabBaseCfg.SPLIT.get(config)
        for number, raw in self._present(L1Std, self._memory, table, 1 << bits - split):
            yield from self._streams(number << split, L1Std.L2Ptr.get(raw), 1 << L1Std.Span.get(raw) - 1)

    def _streams(self, first: int, table: int, count: int) -> Iterator[Stream]:
        for number, raw in self._present(Ste, self._memory, table, count):
            yield Stream(Rid(0, first + number >> 8, first + number >> 3 & 31, first + number & 7), raw)

    def _add_stream(self, rid: Rid, ste: int) -> None:
        if because := stes.illegal(ste, self.features):
            self.findings.append(f"the STE of {rid} is ILLEGAL: {because}")
            return
        config = Ste.Config.get(ste)
        name = Ste.Config.values[config if config & BYPASS else 0]
        self.counts[f"STEs: {name}"] = self.counts.get(f"STEs: {name}", 0) + 1
        memory = self._memory
        if config in WITH_STAGE_2:
            tree = Tree(Slot(rid), self._stage2(ste), Ste.S2TTB.get(ste), memory)
            self.trees.append(tree)
            # CDs and stage 1 tables are the guest's, in its memory.
            memory = Through(memory, tree.fmt, tree.root)
        if config in WITH_STAGE_1:
            for number, cd in self._cds(ste, memory):
                if because := cds.illegal(cd, ste, self.features):
                    self.findings.append(f"CD {number} of {rid} is ILLEGAL: {because}")
                    continue
                slot = Slot(rid, number or None)
                for half in (0, 1):
                    if not Cd.field(f"EPD{half}").get(cd):
                        root = Cd.field(f"TTB{half}").get(cd)
                        self.trees.append(Tree(slot, self._stage1(cd, half), root, memory, config in WITH_STAGE_2))

    def _cds(self, ste: int, memory: Memory) -> Iterator[tuple[int, int]]:
        table, most = Ste.S1ContextPtr.get(ste), Ste.S1CDMax.get(ste)
        form = Ste.S1Fmt.get(ste) if most else LINEAR
        if form == LINEAR:
            yield from self._present(Cd, memory, table, 1 << most)
            return
        bits = 10 if form == TWO_LEVEL_64K else 6
        for upper, raw in self._present(L1Cd, memory, table, 1 << max(0, most - bits)):
            for lower, cd in self._present(Cd, memory, L1Cd.L2Ptr.get(raw), 1 << bits):
                yield upper << bits | lower, cd

    def _stage1(self, cd: int, half: int) -> Stage1Format:
        granule = (TG1_GRANULES if half else GRANULES)[Cd.field(f"TG{half}").get(cd)]
        output = self.features.output_bits(Cd.IPS.get(cd), granule, 0)
        return Stage1Format(granule, 64 - Cd.field(f"T{half}SZ").get(cd), output=output, oas=self.features.oas)

    def _stage2(self, ste: int) -> Stage2Format:
        code = Ste.S2TG.get(ste)
        return Stage2Format(
            GRANULES[code],
            64 - Ste.S2T0SZ.get(ste),
            output=self.features.output_bits(Ste.S2PS.get(ste), GRANULES[code], 0),
            oas=self.features.oas,
            start_level=start_level(code, Ste.S2SL0.get(ste), 0, ds=False),
            xnx=self.features.xnx,
        )

    def _present(self, layout: type[Layout], memory: Memory, table: int, entries: int) -> Iterator[tuple[int, int]]:
        """Numbers and values of the present ones of a table. Counts them, and notes what is wrong with them."""
        size = layout.bits // 8
        try:
            data = memory.read(table, size * entries)
        except OutsideMemory:
            self.findings.append(f"{entries} structures {layout.name} at {table:#x} are outside memory")
            return
        for number in range(entries):
            raw = int.from_bytes(data[size * number : size * (number + 1)], "little")
            if layout.checked(raw):
                self.counts[layout.name] = self.counts.get(layout.name, 0) + 1
                wrong = checks.problems(layout, raw)
                if bad := raw & layout.checked(raw) & layout.reserved_without(self._has) & ~layout.reserved:
                    wrong.append(f"{bit_names(bad)} set, which this unit reserves")
                self.findings += [f"{layout.name} at {table + size * number:#x}: {one}" for one in wrong]
                yield number, raw
