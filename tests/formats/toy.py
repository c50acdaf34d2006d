# SPDX-License-Identifier: Apache-2.0
"""Formats that no hardware has, for tests of the engine, and memory to build tables in."""

from iommuctl.errors import BadStructure, NoRoom
from iommuctl.formats.bits import Address, Bit, Fixed, Ignored, Layout
from iommuctl.formats.memory import PAGE, Run, check_inside
from iommuctl.formats.radix import Entry, Format


class ToyEntry(Layout, bits=64, name="toy.entry"):
    """An entry whose permissions are granted bit by bit, with software's and hardware's own bits in between."""

    V = Bit(0)
    PAGE = Bit(1)
    R = Bit(2)
    W = Bit(3)
    X = Bit(4)
    P = Bit(5)
    USED = Ignored(6, 6)
    ADDR = Address(51, 12)
    MAGIC = Fixed(63, 60, 0b1010)


class WideEntry(Layout, bits=64, name="toy.wide-entry"):
    """An entry whose bits take permissions away, under an address that begins higher up."""

    V = Bit(0)
    PAGE = Bit(1)
    READ_ONLY = Bit(7)
    USED = Ignored(10, 10)
    ADDR = Address(47, 14)
    NO_EXECUTE = Bit(54)


class RunEntry(ToyEntry, variant="toy.run-entry"):
    """The same with a hint that makes entries one of a run."""

    HINT = Bit(7)


class ToyFormat(Format):
    """Tables of `granule` bytes, so many bits per level that they fill them, and a root for what is left of `width`."""

    layout: type[Layout] = ToyEntry

    def __init__(self, granule: int, width: int, levels: int, page_levels: int) -> None:
        self.name = f"toy-{granule >> 10}k-{width}-{levels}"
        self.levels = levels
        self.width = width
        self._granule = granule
        self._bits = granule.bit_length() - 4
        self.page_sizes = tuple(1 << self.shift(level) for level in range(1, page_levels + 1))

    def shift(self, level: int) -> int:
        return self._granule.bit_length() - 1 + self._bits * (level - 1)

    def entries(self, level: int) -> int:
        return 1 << (self.width - self.shift(level) if level == self.levels else self._bits)

    def leaf(self, level: int, pa: int, prot: str) -> int:
        if pa % (1 << self.shift(level)):
            raise BadStructure(f"{pa:#x} is not the address of a page of level {level}")
        return self.encode(pa, prot) | ToyEntry.PAGE.mask

    def table(self, level: int, pa: int) -> int:  # noqa: ARG002
        if pa % self._granule:
            raise BadStructure(f"{pa:#x} is not the address of a table")
        return self.encode(pa, "rwx")

    def encode(self, pa: int, prot: str) -> int:
        """A table entry that allows `prot`."""
        flags = {letter.upper(): int(letter in prot) for letter in "rwxp"}
        return ToyEntry.encode(V=1, ADDR=pa, MAGIC=0b1010, **flags)

    def prot(self, raw: int) -> str:
        return "".join(letter for letter in "rwxp" if ToyEntry.field(letter.upper()).get(raw))

    def decode(self, level: int, raw: int) -> Entry:
        if not raw & ToyEntry.V.mask:
            return Entry("empty")
        page = raw & ToyEntry.PAGE.mask
        address = self.layout.field("ADDR").get(raw)
        reserved = self.layout.reserved | address & (1 << self.shift(level if page else 1)) - 1
        if page and level > len(self.page_sizes):
            reserved |= ToyEntry.PAGE.mask
        if raw & reserved:
            return Entry("reserved", reserved=raw & reserved)
        if (level == 1 and not page) or self.layout.misfits(raw):
            return Entry("reserved")
        return Entry("leaf" if page else "table", address, self.prot(raw))


class WideFormat(ToyFormat):
    """The same with the other entry."""

    layout = WideEntry

    def encode(self, pa: int, prot: str) -> int:
        return WideEntry.encode(V=1, ADDR=pa, READ_ONLY=int("w" not in prot), NO_EXECUTE=int("x" not in prot))

    def prot(self, raw: int) -> str:
        writable = not WideEntry.READ_ONLY.get(raw)
        return "r" + "w" * writable + "x" * (not WideEntry.NO_EXECUTE.get(raw))


class RunFormat(ToyFormat):
    """The same with contiguous runs: four pages of the lowest level, eight of the next."""

    layout = RunEntry
    hint = RunEntry.HINT.mask

    def __init__(self, granule: int, width: int, levels: int, page_levels: int) -> None:
        super().__init__(granule, width, levels, page_levels)
        self.name += "-runs"
        runs = {self.contiguous(level) << self.shift(level) for level in range(1, page_levels + 1)}
        self.page_sizes = tuple(sorted({*self.page_sizes, *runs}))

    def contiguous(self, level: int) -> int:
        return {1: 4, 2: 8}.get(level, 1)


class SplitFormat(ToyFormat):
    """The same with the upper bits of addresses turned by one: entries are linear in 4 MiB only."""

    linear = 22

    def __init__(self, granule: int, width: int, levels: int, page_levels: int) -> None:
        super().__init__(granule, width, levels, page_levels)
        self.name += "-split"

    def encode(self, pa: int, prot: str) -> int:
        upper = pa >> 22 & (1 << 30) - 1
        turned = (upper << 1 | upper >> 29) & (1 << 30) - 1
        return super().encode(pa + (turned - upper << 22), prot)

    def decode(self, level: int, raw: int) -> Entry:
        entry = super().decode(level, raw)
        turned = entry.address >> 22
        return entry._replace(address=entry.address + ((turned >> 1 | (turned & 1) << 29) - turned << 22))


class BytesMemory:
    """Memory in a bytearray that starts at address `base`."""

    def __init__(self, data: bytearray, base: int = 0) -> None:
        self._data = data
        self._base = base

    def read(self, address: int, size: int) -> bytes:
        start = self._start(address, size)
        return bytes(self._data[start : start + size])

    def write(self, address: int, data: bytes) -> None:
        start = self._start(address, len(data))
        self._data[start : start + len(data)] = data

    def _start(self, address: int, size: int) -> int:
        check_inside(address, size, self._base, len(self._data))
        return address - self._base


class ToyMemory(BytesMemory):
    """Memory full of garbage that hands its pages out in ascending order, `fragment` at a time, and keeps accounts."""

    def __init__(self, size: int = 1 << 20, base: int = 0x4000_3000, fragment: int = 1 << 20) -> None:
        super().__init__(bytearray(b"\xa5" * size), base)
        self.free_pages = [base + offset for offset in range(0, size, PAGE)]
        self.fragment = fragment
        self.used: set[int] = set()
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.allocations = 0

    def read(self, address: int, size: int) -> bytes:
        self.reads.append((address, size))
        return super().read(address, size)

    def write(self, address: int, data: bytes) -> None:
        super().write(address, data)
        self.writes.append((address, len(data)))

    def allocate(self, pages: int) -> list[Run]:
        runs = []
        while pages:
            part = min(pages, self.fragment)
            runs.append(Run(self.allocate_run(part), part))
            # A hole, so that the next run is no continuation of this one.
            del self.free_pages[: self.fragment < 1 << 20]
            pages -= part
        return runs

    def allocate_run(self, pages: int) -> int:
        self.allocations += 1
        if pages > len(self.free_pages):
            raise NoRoom("no table memory is left")
        taken, self.free_pages = self.free_pages[:pages], self.free_pages[pages:]
        self.used |= set(taken)
        return taken[0]

    def free(self, run: Run) -> None:
        pages = set(range(run.address, run.address + run.pages * PAGE, PAGE))
        assert pages <= self.used
        self.used -= pages


def pages_of(runs: list[Run]) -> list[int]:
    """Addresses of all pages of some runs."""
    return [run.address + number * PAGE for run in runs for number in range(run.pages)]
