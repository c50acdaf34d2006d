# SPDX-License-Identifier: Apache-2.0
"""Taking mappings out of a tree, and the tables that become empty with them."""

from collections.abc import Sequence
from typing import NamedTuple

from iommuctl.errors import DamagedTable, PartialUnmap
from iommuctl.formats.contiguous import page
from iommuctl.formats.format import WORD, Format, Visit, index, present, visit
from iommuctl.formats.live import LiveTables, check_range
from iommuctl.formats.memory import PAGE, Memory, Run
from iommuctl.formats.runs import page_runs, progression


class Unmapped(NamedTuple):
    """What `unmap_range` took away: table pages that nothing points to any more, and how many leaf entries."""

    freed: list[Run]
    leaves: int


def unmap_range(fmt: Format, memory: Memory, root: int, iova: int, size: int) -> Unmapped:
    """Take away all that is mapped in `size` bytes from `iova` on, and the tables that become empty.

    The pages of these tables are still the caller's, to be given back when the caches have been invalidated.

    Raises ZeroSize; Misaligned; OutOfAperture; PartialUnmap where a page, or a contiguous run, is only partly in the
    range and where nothing is mapped; DamagedTable. Nothing has been written then.
    """
    check_range(fmt, iova, size, 0, fmt.page_sizes[0])
    remover = _Remover(fmt, memory)
    remover.clear(fmt.levels, root, iova, iova + size)
    if not remover.leaves:
        raise PartialUnmap(f"nothing is mapped in IOVA {iova:#x}..{iova + size - 1:#x}")
    for address, words in remover.writes:
        memory.write(address, words)
    return Unmapped(page_runs(remover.freed), remover.leaves)


class _Remover:
    """Plans what has to be written to take a range away."""

    def __init__(self, fmt: Format, memory: Memory) -> None:
        self._fmt = fmt
        self._live = LiveTables(fmt, memory)
        self.writes: list[tuple[int, bytes]] = []
        self.freed: list[int] = []
        self.leaves = 0

    def clear(self, level: int, table: int, iova: int, end: int) -> bool:
        """Take iova..end out of a table. True if it becomes empty: then it is not written, unless it is the root."""
        shift = self._fmt.shift(level)
        data = self._live.read(level, table, 0, self._fmt.entries(level))
        first = index(self._fmt, level, iova)
        stop = first + (end - 1 >> shift) - (iova >> shift) + 1
        span = data[WORD * first : WORD * stop]
        going: Sequence[int]
        if not (iova | end) % (1 << shift) and self._is_run(level, first, span):
            going = range(first, stop)
            self.leaves += stop - first
        else:
            going = [
                first + offset
                for offset, raw in present(span)
                if self._goes(visit(self._fmt, level, table, iova + (offset << shift), raw), iova, end)
            ]
        low, high = (WORD * going[0], WORD * going[-1] + WORD) if going else (0, 0)
        if level < self._fmt.levels and not any(data[:low] + data[high:]):
            return True
        if going:
            self.writes.append((table + low, bytes(high - low)))
        return False

    def _is_run(self, level: int, number: int, span: bytes) -> bool:
        """Whether these entries, from that number on, map adjacent pages, all in the same way, with no contiguous run
        beginning before them or ending behind: then the first and the last stand for all.
        """
        first, count = int.from_bytes(span[:WORD], "little"), len(span) // WORD
        size = 1 << self._fmt.shift(level)
        last = first + (count - 1) * size
        if int.from_bytes(span[-WORD:], "little") != last:
            return False
        ends = [self._fmt.decode(level, raw) for raw in (first, last)]
        return (
            all(entry.kind == "leaf" for entry in ends)
            and ends[1].address - ends[0].address == last - first
            and not (first & self._fmt.hint and (number | count) % self._fmt.contiguous(level))
            and span == b"".join(progression(first, size, count))
        )

    def _goes(self, found: Visit, iova: int, end: int) -> bool:
        """Whether an entry that the range meets is to be cleared."""
        match found.entry.kind:
            case "reserved":
                raise DamagedTable(found.complaint(self._fmt))
            case "leaf":
                # The other entries of a run could lose the hint, but some hardware does not allow that in a live table.
                start, size = page(self._fmt, found)
                if start < iova or end < start + size:
                    raise PartialUnmap(
                        f"the page of {size:#x} bytes at IOVA {start:#x} is only partly in the range",
                        because=f"the range is IOVA {iova:#x}..{end - 1:#x}",
                    )
                self.leaves += 1
            case "table":
                child = found.entry.address
                if not self.clear(found.level - 1, child, max(iova, found.iova), min(end, found.iova + found.size)):
                    return False
                self.freed += range(child, child + self._fmt.page_sizes[0], PAGE)
            case "empty":
                return iova <= found.iova and found.iova + found.size <= end
        return True
