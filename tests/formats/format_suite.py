# SPDX-License-Identifier: Apache-2.0
"""The suite that every page-table format must pass.

    class TestMyFormats(FormatSuite):
        formats = (MyFormat(48), MyFormat(57))
        prots = ("r", "rw")

The first tests look at entries alone, the others at what the engine makes of the format. Those that make trees at
random take their time: an architecture with many geometries says which of them stand for a kind of table.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import ClassVar, NamedTuple

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from iommuctl.errors import BadStructure, Overlap, PartialUnmap
from iommuctl.formats import radix
from iommuctl.formats.memory import write_word
from iommuctl.formats.radix import Entry, Format, Leaf
from tests.formats.toy import ToyMemory, pages_of

# The same methods run for every subclass, which hypothesis would take for a mistake.
examples = settings(deadline=None, derandomize=True, max_examples=20, suppress_health_check=list(HealthCheck))

WORDS = st.integers(0, (1 << 64) - 1)


class Range(NamedTuple):
    iova: int
    size: int
    pa: int


def pages(fmt: Format) -> list[tuple[int, int]]:
    """Levels that have pages, and the sizes of these, without contiguous runs."""
    sizes = ((level, 1 << fmt.shift(level)) for level in range(1, fmt.levels + 1))
    return [(level, size) for level, size in sizes if size in fmt.page_sizes]


def runs(fmt: Format) -> list[tuple[int, int]]:
    """Levels that have contiguous runs, and the sizes of these."""
    sizes = ((level, size * fmt.contiguous(level)) for level, size in pages(fmt) if fmt.contiguous(level) > 1)
    return [(level, size) for level, size in sizes if size <= 1 << fmt.width]


def leaf_entries(fmt: Format, size: int) -> int:
    """How many leaf entries a page of that size has."""
    return next((fmt.contiguous(level) for level, run in runs(fmt) if run == size), 1)


def table_memory(fmt: Format, size: int = 1 << 20) -> ToyMemory:
    """So much memory for tables, and what the root takes besides."""
    return ToyMemory(size + 2 * 8 * fmt.entries(fmt.levels))


def output_top(fmt: Format) -> int:
    """The first output address, a power of two, that does not fit an entry."""
    for bit in range(fmt.shift(1), 64):
        try:
            fmt.leaf(1, 1 << bit, "r")
        except BadStructure:
            return 1 << bit
    raise AssertionError(f"{fmt.name} takes any address")


def greedy(place: Range, prot: str, sizes: Sequence[int]) -> Iterator[Leaf]:
    """The pages of a mapping: at each place the largest that is aligned and fits."""
    iova, left, pa = place
    while left:
        size = max(size for size in sizes if size <= left and (iova | pa) % size == 0)
        yield Leaf(iova, size, pa, prot)
        iova, left, pa = iova + size, left - size, pa + size


@st.composite
def ranges(draw: st.DrawFn, fmt: Format, sizes: Sequence[int]) -> Range:
    """Ranges around boundaries of a page size, with a few pages each where pages of that size can be used."""
    unit, granule = draw(st.sampled_from(sizes)), min(sizes)
    top = 1 << fmt.width
    boundary = draw(st.sampled_from([0, 1, 2, fmt.entries(1), top // unit - 2, top // unit - 1])) * unit
    start = boundary - draw(st.integers(0, 3)) * granule
    end = boundary + draw(st.integers(0, 3)) * unit + draw(st.integers(0, 3)) * granule
    assume(0 <= start < end <= top)
    pa = start % unit + draw(st.integers(0, (output_top(fmt) - end + start) // unit - 1)) * unit
    return Range(start, end - start, pa)


def check_address_bits(size: int, top: int, encode: Callable[[int], int], decode: Callable[[int], Entry]) -> None:
    """Each address bit from `size` to `top` has one bit of the entry, and no other bit is taken for one."""
    empty = encode(0)
    bits = [1 << bit for bit in range(size.bit_length() - 1, top.bit_length() - 1)]
    for bit in bits:
        assert (encode(bit) ^ empty).bit_count() == 1
        assert decode(encode(bit)).address == bit
    assert encode(sum(bits)).bit_count() == empty.bit_count() + len(bits)
    moved = [decode(empty ^ 1 << bit).address for bit in range(64)]
    assert sorted(address for address in moved if address) == bits


class FormatSuite:
    formats: ClassVar[Sequence[Format]] = ()
    prots: ClassVar[Sequence[str]] = ("r", "rw")
    """What pages of these formats can allow, and decode to again."""
    kinds: ClassVar[Sequence[Format]] = ()
    """Those of the formats that random trees are made of: one for each kind of table. All, unless it says so."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "fmt" in metafunc.fixturenames:
            metafunc.parametrize("fmt", self.formats, ids=[fmt.name for fmt in self.formats])
        if "kind" in metafunc.fixturenames:
            kinds = self.kinds or self.formats
            metafunc.parametrize("kind", kinds, ids=[kind.name for kind in kinds])

    def test_levels_meet(self, fmt: Format) -> None:
        for level in range(1, fmt.levels):
            assert fmt.entries(level) * 8 == fmt.page_sizes[0]
            assert fmt.entries(level) << fmt.shift(level) == 1 << fmt.shift(level + 1)
        assert fmt.entries(fmt.levels) << fmt.shift(fmt.levels) == 1 << fmt.width
        assert fmt.page_sizes[0] == 1 << fmt.shift(1)
        assert list(fmt.page_sizes) == sorted(size for _, size in [*pages(fmt), *runs(fmt)])
        assert fmt.layout.bits == 64

    def test_zero_is_empty(self, fmt: Format) -> None:
        for level in range(1, fmt.levels + 1):
            assert fmt.decode(level, 0).kind == "empty"

    def test_pages_decode_to_what_was_encoded(self, fmt: Format) -> None:
        for (level, size), prot in itertools.product(pages(fmt), self.prots):
            for pa in (0, size, 5 * size, output_top(fmt) - size):
                assert fmt.decode(level, fmt.leaf(level, pa, prot)) == ("leaf", pa, prot, 0)

    def test_tables_decode_to_what_was_encoded(self, fmt: Format) -> None:
        granule = fmt.page_sizes[0]
        for level in range(2, fmt.levels + 1):
            for pa in (0, granule, 5 * granule, output_top(fmt) - granule):
                entry = fmt.decode(level, fmt.table(level, pa))
                assert (entry.kind, entry.address, entry.reserved) == ("table", pa, 0)
                assert set(entry.prot) & set("rwp") == set("rw"), "what is allowed is for the pages to say"

    def test_every_address_bit_is_decoded_once(self, fmt: Format) -> None:
        top = output_top(fmt)
        for level, size in pages(fmt):
            check_address_bits(size, top, partial(fmt.leaf, level, prot=self.prots[0]), partial(fmt.decode, level))
        for level in range(2, fmt.levels + 1):
            check_address_bits(fmt.page_sizes[0], top, partial(fmt.table, level), partial(fmt.decode, level))

    def test_addresses_that_do_not_fit_are_refused(self, fmt: Format) -> None:
        prot = self.prots[0]
        for pa in (output_top(fmt), 1 << 63, -fmt.page_sizes[0], fmt.page_sizes[0] >> 1):
            for level, _ in pages(fmt):
                with pytest.raises(BadStructure):
                    fmt.leaf(level, pa, prot)
            for level in range(2, fmt.levels + 1):
                with pytest.raises(BadStructure):
                    fmt.table(level, pa)

    @examples
    @given(data=st.data())
    def test_entries_are_linear(self, fmt: Format, data: st.DataObject) -> None:
        """Within each part of 2**linear bytes."""
        level, size = data.draw(st.sampled_from(list(pages(fmt))))
        prot = data.draw(st.sampled_from(self.prots))
        pa = data.draw(st.integers(0, output_top(fmt) // size - 1)) * size
        start = pa >> fmt.linear << fmt.linear
        assert fmt.leaf(level, pa, prot) == fmt.leaf(level, start, prot) + pa - start
        if fmt.levels > 1:
            level = data.draw(st.integers(2, fmt.levels))
            pa = data.draw(st.integers(0, output_top(fmt) // fmt.page_sizes[0] - 1)) * fmt.page_sizes[0]
            start = pa >> fmt.linear << fmt.linear
            assert fmt.table(level, pa) == fmt.table(level, start) + pa - start

    def test_the_hint_is_no_part_of_anything_else(self, fmt: Format) -> None:
        for (level, size), prot in itertools.product(pages(fmt), self.prots):
            for pa in (0, size, output_top(fmt) - size):
                raw = fmt.leaf(level, pa, prot)
                assert not raw & fmt.hint
                assert fmt.decode(level, raw | fmt.hint) == fmt.decode(level, raw)

    def test_contiguous_runs(self, fmt: Format) -> None:
        """The hint is where a whole run is mapped at once, with its size allowed; unmapping takes the run whole."""
        prot = self.prots[-1]
        for level, size in runs(fmt):
            entry = 1 << fmt.shift(level)
            for iova, sizes in itertools.product((0, (1 << fmt.width) - size), ((size,), (entry, size), (entry,))):
                memory = table_memory(fmt)
                root = radix.new_root(fmt, memory)
                radix.map_range(fmt, memory, root, iova, size, size, prot, sizes)
                found = [visit for visit in radix.entries(fmt, memory, root) if visit.entry.kind == "leaf"]
                hint = fmt.hint if size in sizes else 0
                assert [visit.raw for visit in found] == [
                    fmt.leaf(level, pa, prot) | hint for pa in range(size, 2 * size, entry)
                ]
                mapped = [Leaf(iova + offset, max(sizes), size + offset, prot) for offset in range(0, size, max(sizes))]
                assert list(radix.leaves(fmt, memory, root)) == mapped
                assert radix.check(fmt, memory, root) == []
                for part in ((iova, entry), (iova + entry, size - entry)):
                    if hint:
                        with pytest.raises(PartialUnmap):
                            radix.unmap_range(fmt, memory, root, *part)
                        assert list(radix.leaves(fmt, memory, root)) == mapped
                    else:
                        radix.unmap_range(fmt, memory, root, *part)
                if hint:
                    assert radix.unmap_range(fmt, memory, root, iova, size).leaves == fmt.contiguous(level)
                assert not list(radix.entries(fmt, memory, root))

    def test_a_hint_that_lies_is_found(self, fmt: Format) -> None:
        prot = self.prots[-1]
        for level, size in runs(fmt):
            memory = table_memory(fmt)
            root = radix.new_root(fmt, memory)
            radix.map_range(fmt, memory, root, 0, size, 0, prot, (size,))
            run = [visit for visit in radix.entries(fmt, memory, root) if visit.entry.kind == "leaf"]
            entry = run[1]
            for raw in (0, entry.raw & ~fmt.hint, fmt.leaf(level, size, prot) | fmt.hint):
                write_word(memory, entry.address, raw)
                complaints = [text for text in radix.check(fmt, memory, root) if f"run of {size:#x} bytes" in text]
                assert complaints
                assert sum(leaf.size for leaf in radix.leaves(fmt, memory, root)) == size - (not raw) * entry.size
                assert {leaf.size for leaf in radix.leaves(fmt, memory, root)} == {entry.size}
            for number, visit in enumerate(run):
                write_word(memory, visit.address, fmt.leaf(level, (number + 1) * visit.size, prot) | fmt.hint)
            assert len(radix.check(fmt, memory, root)) == 1, "it is consistent, but not aligned"

    def test_reserved_bits_are_found(self, fmt: Format) -> None:
        for level, _ in pages(fmt):
            good = fmt.leaf(level, 0, self.prots[0])
            for bit in (1 << number for number in range(64) if fmt.layout.reserved >> number & 1):
                entry = fmt.decode(level, good | bit)
                assert entry.kind == "reserved"
                assert entry.reserved & bit

    @examples
    @given(level=st.integers(1, 5), raw=WORDS)
    def test_decode_takes_any_word(self, fmt: Format, level: int, raw: int) -> None:
        level = min(level, fmt.levels)
        entry = fmt.decode(level, raw)
        assert entry.reserved & ~raw == 0
        assert entry.prot == "".join(letter for letter in "rwxp" if letter in entry.prot)
        if entry.kind == "leaf":
            assert 1 << fmt.shift(level) in fmt.page_sizes
            assert entry.address % (1 << fmt.shift(level)) == 0
        elif entry.kind == "table":
            assert level > 1
            assert entry.address % fmt.page_sizes[0] == 0
        else:
            assert entry[1:3] == (0, "")
        assert 0 <= entry.address < output_top(fmt)
        assert entry.kind == "reserved" or not entry.reserved

    def test_every_page_size_at_boundary_addresses(self, fmt: Format) -> None:
        prot = self.prots[-1]
        memory = table_memory(fmt, 2048 * fmt.page_sizes[0])
        root = radix.new_root(fmt, memory)
        before = set(memory.used)
        for level, size in [*pages(fmt), *runs(fmt)]:
            # Where a page of any level begins that this one can stand at.
            iovas = {0, *(other for other in fmt.page_sizes if other % size == 0), (1 << fmt.width) - size}
            for iova, pa in itertools.product(sorted(iovas), (0, size, output_top(fmt) - size)):
                radix.map_range(fmt, memory, root, iova, size, pa, prot, fmt.page_sizes)
                assert list(radix.leaves(fmt, memory, root)) == [Leaf(iova, size, pa, prot)]
                for at in (iova, iova + size - 1, iova - (1 << fmt.width)):
                    last = list(radix.walk(fmt, memory, root, at))[-1]
                    assert (last.level, last.entry.kind, last.size) == (level, "leaf", 1 << fmt.shift(level))
                    offset = at % (1 << fmt.width) // last.size * last.size - iova
                    assert (last.iova, last.entry.address) == (iova + offset, pa + offset)
                for at in (iova - 1, iova + size):
                    assert list(radix.walk(fmt, memory, root, at))[-1].entry.kind == "empty"
                freed, count = radix.unmap_range(fmt, memory, root, iova, size)
                assert count == leaf_entries(fmt, size)
                assert len(pages_of(freed)) == (fmt.levels - level) * fmt.page_sizes[0] // 4096
                for run in freed:
                    memory.free(run)
                assert memory.used == before
                assert not list(radix.entries(fmt, memory, root))

    def test_the_walk_reads_one_entry_at_a_time(self, fmt: Format) -> None:
        memory = table_memory(fmt)
        root = radix.new_root(fmt, memory)
        granule = fmt.page_sizes[0]
        radix.map_range(fmt, memory, root, 0, granule, 0, self.prots[0], (granule,))
        memory.reads.clear()
        for number, step in enumerate(radix.walk(fmt, memory, root, granule - 1), 1):
            assert memory.reads[number - 1 :] == [(step.address, 8)]
            assert step.level == fmt.levels + 1 - number

    def test_many_pages(self, fmt: Format) -> None:
        granule, prot = fmt.page_sizes[0], self.prots[-1]
        pages = (1 << fmt.width) // granule
        first = min(fmt.entries(1) - 3, pages // 4)
        count = min(2 * fmt.entries(1) + 5, pages - first)
        iova, pa = first * granule, 7 * granule
        memory = table_memory(fmt)
        root = radix.new_root(fmt, memory)
        radix.map_range(fmt, memory, root, iova, count * granule, pa, prot, (granule,))
        assert list(radix.leaves(fmt, memory, root)) == [
            Leaf(iova + offset, granule, pa + offset, prot) for offset in range(0, count * granule, granule)
        ]
        assert radix.check(fmt, memory, root) == []
        if fmt.levels > 1:
            hole = fmt.entries(1) * granule
            radix.unmap_range(fmt, memory, root, hole, hole)
            count -= fmt.entries(1)
        assert radix.unmap_range(fmt, memory, root, iova, (1 << fmt.width) - iova).leaves == count
        assert not list(radix.entries(fmt, memory, root))

    def test_pages_that_the_output_address_forbids(self, fmt: Format) -> None:
        prot = self.prots[-1]
        for small, large in pairwise(fmt.page_sizes):
            memory = table_memory(fmt)
            root = radix.new_root(fmt, memory)
            radix.map_range(fmt, memory, root, large, large, large + small, prot, fmt.page_sizes)
            assert list(radix.leaves(fmt, memory, root)) == [
                Leaf(large + offset, small, large + small + offset, prot) for offset in range(0, large, small)
            ]

    @examples
    @given(data=st.data())
    def test_the_largest_pages_that_fit(self, kind: Format, data: st.DataObject) -> None:
        sizes = data.draw(st.lists(st.sampled_from(kind.page_sizes), min_size=1, unique=True))
        place = data.draw(ranges(kind, sizes))
        prot = data.draw(st.sampled_from(self.prots))
        memory = table_memory(kind)
        root = radix.new_root(kind, memory)
        radix.map_range(kind, memory, root, *place, prot, sizes)
        assert list(radix.leaves(kind, memory, root)) == list(greedy(place, prot, sizes))
        assert radix.check(kind, memory, root) == []
        assert set(pages_of(radix.table_runs(kind, memory, root))) == memory.used

    @examples
    @given(data=st.data(), fragment=st.sampled_from([1, 2, 3, 7, 9, 1 << 20]))
    def test_bulk_is_one_by_one(self, kind: Format, data: st.DataObject, fragment: int) -> None:
        granule, prot = kind.page_sizes[0], self.prots[-1]
        last = (1 << kind.width) // granule - 1
        first = min(last, data.draw(st.integers(0, 2)) * kind.entries(1) + data.draw(st.integers(0, 40)))
        iova, count = first * granule, data.draw(st.integers(1, min(80, last + 1 - first)))
        pa = data.draw(st.integers(0, output_top(kind) // granule - count)) * granule
        # Runs of so many pages have room for a whole table, wherever they begin.
        bulk, single = table_memory(kind), table_memory(kind)
        bulk.fragment = max(fragment, 2 * granule // 4096 - 1)
        bulk_root, single_root = radix.new_root(kind, bulk), radix.new_root(kind, single)
        radix.map_range(kind, bulk, bulk_root, iova, count * granule, pa, prot, (granule,))
        for offset in range(0, count * granule, granule):
            radix.map_range(kind, single, single_root, iova + offset, granule, pa + offset, prot, (granule,))
        mapped = list(radix.leaves(kind, bulk, bulk_root))
        assert mapped == list(radix.leaves(kind, single, single_root))
        assert set(pages_of(radix.table_runs(kind, bulk, bulk_root))) == bulk.used
        assert len(bulk.used) == len(single.used)
        assert radix.unmap_range(kind, bulk, bulk_root, iova, count * granule).leaves == count
        assert not list(radix.entries(kind, bulk, bulk_root))

    @examples
    @given(data=st.data())
    def test_against_a_dict(self, kind: Format, data: st.DataObject) -> None:
        memory = table_memory(kind, 2 << 20)
        root = radix.new_root(kind, memory)
        model: dict[int, Leaf] = {}
        for _ in range(data.draw(st.integers(1, 6))):
            place = data.draw(ranges(kind, kind.page_sizes))
            start, end = place.iova, place.iova + place.size
            met = sorted(leaf for leaf in model.values() if leaf.iova < end and start < leaf.iova + leaf.size)
            if data.draw(st.booleans()):
                prot = data.draw(st.sampled_from(self.prots))
                if met:
                    with pytest.raises(Overlap):
                        radix.map_range(kind, memory, root, *place, prot, kind.page_sizes)
                else:
                    radix.map_range(kind, memory, root, *place, prot, kind.page_sizes)
                    model |= {leaf.iova: leaf for leaf in greedy(place, prot, kind.page_sizes)}
            elif not met or met[0].iova < start or met[-1].iova + met[-1].size > end:
                with pytest.raises(PartialUnmap):
                    radix.unmap_range(kind, memory, root, start, place.size)
            else:
                freed, count = radix.unmap_range(kind, memory, root, start, place.size)
                assert count == sum(leaf_entries(kind, leaf.size) for leaf in met)
                for run in freed:
                    memory.free(run)
                for leaf in met:
                    del model[leaf.iova]
            assert list(radix.leaves(kind, memory, root)) == sorted(model.values())
            assert set(pages_of(radix.table_runs(kind, memory, root))) == memory.used
        assert radix.check(kind, memory, root) == []
