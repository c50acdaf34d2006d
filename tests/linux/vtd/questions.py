# SPDX-License-Identifier: Apache-2.0
"""What our unit must answer for tables that the kernel printed: worked out from the printed words alone.

Both stages have what a table or a page allows in bits 1:0: P, which lets read, or R; RW or W. VT-d 4.1 sections 9.7
and 9.8; the codes of faults are those of its section 7.1.3.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from iommuctl.model import Access, Slot, Translation
from tests.linux.vtd.kernel_dump import Device, Page

_PAGE = 4096
_FIRST_STAGE, _SECOND_STAGE, _THROUGH = 1, 2, 4
_THROUGH_LEGACY = 2
_INTERRUPTS = range(0xFEE0_0000, 0xFEF0_0000)
_ADDRESS = (1 << 52) - _PAGE


class _Codes(NamedTuple):
    """Faults: may not be written, may not be read, an entry is not present (for a read, for a write), too large."""

    write: int
    read: int
    absent: int
    absent_write: int
    limit: int


_LEGACY = _Codes(0x05, 0x06, 0x06, 0x05, 0x04)
_FIRST, _SECOND = _Codes(0x85, 0x86, 0x71, 0x71, 0x80), _Codes(0x85, 0x86, 0x79, 0x79, 0x84)
NO_CONTEXT = (0x01, 0x02, 0x39, 0x41)
"""Faults of a device without a root or a context entry."""
NO_PASID = (0x51, 0x59)
"""Faults of a device without a PASID directory or a PASID table entry."""


class Question(NamedTuple):
    """A request and its answer: a physical address, page size and rights, or one of these faults.

    `words` is what the kernel printed of the structures on the way, where it did.
    """

    slot: Slot
    iova: int
    access: Access
    pa: int | None
    size: int | None
    prot: str | None
    faults: tuple[int, ...]
    words: tuple[tuple[int, ...], ...] | None

    def difference(self, answer: Translation) -> str:
        """What is wrong with an answer; nothing with a good one."""
        if (answer.fault and answer.fault.code) not in (self.faults or (None,)):
            return f"{self}: {answer.fault} instead of one of {self.faults}"
        if (answer.pa, answer.page_size, answer.prot) != (self.pa, self.size, self.prot):
            return f"{self}: {answer} instead of {self.pa}, {self.size}, {self.prot}"
        if self.words is None:
            return ""
        # The kernel prints no PASID directory entries, and other structures in part.
        steps = [step.raw for step in answer.steps if step.structure != "vtd.pasid-directory-entry"]
        seen = tuple(raw[: len(words)] for raw, words in zip(steps, self.words, strict=False))
        return "" if seen == self.words and len(steps) == len(seen) else f"{self}: {steps} instead of {self.words}"


def page_size(page: Page) -> int:
    """The size of a page in bytes."""
    level = next(level for level, word in enumerate(reversed(page.words), 1) if word)
    return 1 << 9 * level + 3


def of_device(device: Device, pages: tuple[Page, ...], width: int) -> Iterator[Question]:
    """Both ends of every page and of everything between the pages, read and written; and an address too large.

    `width` is how many bits of address its tables translate.
    """
    slot = Slot(device.rid, device.pasid or None)
    above: tuple[tuple[int, ...], ...] = (device.root, device.context)
    if device.pasid is None:
        kind, codes = _SECOND_STAGE if device.context[0] >> 2 & 3 != _THROUGH_LEGACY else _THROUGH, _LEGACY
    else:
        above, kind = (*above, device.entry), device.entry[0] >> 6 & 7
        codes = _FIRST if kind == _FIRST_STAGE else _SECOND
    if kind == _THROUGH:
        for iova in (0, 0x1000_0000, (1 << width) - 1):
            yield Question(slot, iova, "r", iova, _PAGE, "rw", (), above)
            yield Question(slot, iova, "w", iova, _PAGE, "rw", (), above)
        return
    for page in pages:
        yield from _of_page(slot, page, above, codes)
    # The first stage takes addresses of which the upper bits are all alike.
    top = 1 << (width - 1 if kind == _FIRST_STAGE else width)
    for first, last in _gaps(pages, top):
        for iova in (first, last):
            yield Question(slot, iova, "r", None, None, None, (codes.absent,), None)
            yield Question(slot, iova, "w", None, None, None, (codes.absent_write,), None)
    yield Question(slot, top, "r", None, None, None, (codes.limit,), above)


def without(slot: Slot, faults: tuple[int, ...]) -> Question:
    """A request of a slot that has no tables."""
    return Question(slot, 0, "r", None, None, None, faults, None)


def _of_page(slot: Slot, page: Page, above: tuple[tuple[int, ...], ...], codes: _Codes) -> Iterator[Question]:
    words = [word for word in page.words if word]
    allowed = 3
    for word in words:
        allowed &= word
    size, steps = page_size(page), (*above, *((word,) for word in words))
    pa, prot = words[-1] & _ADDRESS & -size, ("", "r", "w", "rw")[allowed]
    wanted: tuple[tuple[Access, int], ...] = (("r", codes.read), ("w", codes.write))
    for at in (0, size - 1):
        for access, code in wanted:
            if access in prot:
                yield Question(slot, page.iova + at, access, pa + at, size, prot, (), steps)
            else:
                yield Question(slot, page.iova + at, access, None, None, None, (code,), steps)


def _gaps(pages: Iterable[Page], top: int) -> Iterator[tuple[int, int]]:
    """First and last addresses of what no page translates, without the addresses of interrupts, which none has to."""
    taken = [range(page.iova, page.iova + page_size(page)) for page in pages]
    at = 0
    for one in sorted([*taken, _INTERRUPTS, range(top, top)], key=lambda one: one.start):
        if at < one.start:
            yield at, one.start - 1
        at = one.stop
