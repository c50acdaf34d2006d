# SPDX-License-Identifier: Apache-2.0
"""What machines for tests are made of, whatever the architecture: memory with holes, rows in a dict, quiet devices."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from iommuctl.architecture import Completion, PageResponse
from iommuctl.errors import NoRoom, OutsideMemory
from iommuctl.formats.memory import PAGE, Run


class SparseMemory:
    """RAM that is made of ranges (first, size). It keeps its writes in order; `on_write` is called after each word.

    Hardware stores 64 bits at once and no more, so that is how longer writes become visible here. In a page that nobody
    has read since it was allocated nobody can tell one word from the next: `on_write` is called once for all of them.
    """

    def __init__(self, *ranges: tuple[int, int], tables: tuple[int, int] = (0, 0)) -> None:
        self._ranges = ranges
        self._pages: dict[int, bytearray] = {}
        self._seen: set[int] = set()
        """Pages that were read since they were allocated."""
        self._next, self._end = tables[0], sum(tables)
        self.writes: list[tuple[int, bytes]] = []
        self.freed: list[Run] = []
        self.held: set[int] = set()
        """Pages that were allocated and not given back."""
        self.on_write: Callable[[], None] | None = None
        self.read_only: tuple[int, int] = (0, 0)
        """A range (first, size) whose writes fail."""

    def read(self, address: int, size: int) -> bytes:
        self._check(address, size)
        data = bytearray()
        while len(data) < size:
            at = address + len(data)
            self._seen.add(at & -PAGE)
            page = self._pages.get(at & -PAGE) or bytes(PAGE)
            data += page[at % PAGE :][: size - len(data)]
        return bytes(data)

    def write(self, address: int, data: bytes) -> None:
        self._check(address, len(data))
        first, extent = self.read_only
        if address < first + extent and first < address + len(data):
            raise OutsideMemory(f"{address:#x} cannot be written")
        self.writes.append((address, bytes(data)))
        done = 0
        while done < len(data):
            at = address + done
            part = data[done : done + (8 if self.on_write and at & -PAGE in self._seen else PAGE - at % PAGE)]
            self._store(at, part)
            done += len(part)
            if self.on_write:
                self.on_write()

    def allocate(self, pages: int) -> list[Run]:
        return [Run(self.allocate_run(pages), pages)]

    def allocate_run(self, pages: int) -> int:
        """Pages full of garbage, in ascending order, none of them twice."""
        address, self._next = self._next, self._next + pages * PAGE
        if self._next > self._end:
            raise NoRoom("no table memory is left")
        for page in range(address, self._next, PAGE):
            self._pages[page] = bytearray(b"\xa5" * PAGE)
            self._seen.discard(page)
            self.held.add(page)
        return address

    def free(self, run: Run) -> None:
        pages = set(range(run.address, run.address + run.pages * PAGE, PAGE))
        assert pages <= self.held, "given back twice, or never taken"
        self.held -= pages
        self.freed.append(run)

    def put(self, words: Mapping[int, int]) -> None:
        """Store 64-bit words by address, as another program would: nothing is noted."""
        for address, word in words.items():
            self._check(address, 8)
            self._store(address, word.to_bytes(8, "little"))

    def word(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")

    def words(self) -> dict[int, int]:
        """Every word that is not zero."""
        return {
            page + offset: word
            for page, content in sorted(self._pages.items())
            for offset in range(0, PAGE, 8)
            if (word := int.from_bytes(content[offset : offset + 8], "little"))
        }

    def _store(self, address: int, data: bytes) -> None:
        done = 0
        while done < len(data):
            at = address + done
            part = data[done : done + PAGE - at % PAGE]
            page = self._pages.setdefault(at & -PAGE, bytearray(PAGE))
            page[at % PAGE : at % PAGE + len(part)] = part
            done += len(part)

    def _check(self, address: int, size: int) -> None:
        if not any(first <= address and address + size <= first + extent for first, extent in self._ranges):
            raise OutsideMemory(f"{size} bytes at {address:#x} are not in memory")


class DictRows:
    """hookspecs.Rows, in a dict. Values go through JSON, as they do in a state folder."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, str]] = {}

    def get(self, kind: str, key: str) -> Any:
        text = self._of(kind).get(key)
        return None if text is None else json.loads(text)

    def put(self, kind: str, key: str, value: Any) -> None:
        self._rows.setdefault(kind, {})[key] = json.dumps(value)

    def delete(self, kind: str, key: str) -> None:
        self._of(kind).pop(key, None)

    def scan(
        self, kind: str, first: str = "", last: str | None = None, *, limit: int = -1
    ) -> Iterator[tuple[str, Any]]:
        keys = sorted(key for key in self._of(kind) if first <= key and (last is None or key <= last))
        return iter([(key, self.get(kind, key)) for key in (keys if limit < 0 else keys[:limit])])

    def count(self, kind: str) -> int:
        return len(self._of(kind))

    def _of(self, kind: str) -> dict[str, str]:
        return self._rows.get(kind, {})


class SilentBus:
    """Devices that do what they are told, and a record of it: (source id, PASID or None or "all", first, last)."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int | str | None, int, int]] = []
        self.completions: dict[int, Completion] = {}
        """What comes of invalidations, by source id; of others, that they are done."""
        self.answers: list[tuple[int, int | None, int, PageResponse]] = []
        """What groups of page requests were answered: source id, PASID, group, and the answer."""

    def respond(self, source_id: int, pasid: int | None, group: int, response: PageResponse) -> None:
        self.answers.append((source_id, pasid, group, response))

    def invalidate(self, source_id: int, pasid: int | None, first: int, last: int) -> Completion:
        self.told.append((source_id, pasid, first, last))
        return self.completions.get(source_id, "done")

    def invalidate_pasids(self, source_id: int, first: int, last: int) -> Completion:
        self.told.append((source_id, "all", first, last))
        return self.completions.get(source_id, "done")
