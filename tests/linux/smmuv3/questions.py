# SPDX-License-Identifier: Apache-2.0
"""What our unit must answer for the descriptors that lead to a page: worked out from their bits alone.

DDI0487 M.a.a section D8.4; the codes of faults are the event numbers of IHI0070 G.b section 7.3. All requests are those
of unprivileged devices.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from iommuctl.model import Access, Slot, Translation

NO_EVENT, BAD_STREAM, TRANSLATION, ADDR_SIZE, PERMISSION = 0, 0x02, 0x10, 0x11, 0x13
_PAGE = 4096
_USER, _READ_ONLY, _UXN = 1 << 6, 1 << 7, 1 << 54
_S2_READ, _S2_WRITE, _S2_NEVER = 1 << 6, 1 << 7, 3 << 53
_REQUESTS: tuple[Access, ...] = ("r", "w", "x")


class Page(NamedTuple):
    """A page: where it is and goes, and the last descriptor on the way to it, with its address."""

    iova: int
    size: int
    pa: int
    address: int
    raw: int
    stage: int

    @property
    def prot(self) -> str:
        """What it allows. The tables above it take nothing away."""
        if self.stage == 1:
            user, writable = self.raw & _USER, not self.raw & _READ_ONLY
            return f"r{'w' * writable}{'' if self.raw & _UXN else 'x'}" if user else ""
        rights = self.raw & _S2_READ, self.raw & _S2_WRITE, not self.raw & _S2_NEVER
        return "".join(letter for letter, right in zip("rwx", rights, strict=True) if right)


class Question(NamedTuple):
    """A request and its answer: a page that the address is in, or this fault."""

    slot: Slot
    iova: int
    access: Access
    page: Page | None
    fault: int | None

    def difference(self, answer: Translation) -> str:
        """What is wrong with an answer; nothing with a good one."""
        if (answer.fault and answer.fault.code) != self.fault:
            return f"{self}: {answer}"
        page = self.page
        if page is None:
            return ""
        last = answer.steps[-1]
        if (last.address, last.raw[0]) != (page.address, page.raw):
            return f"{self} ends at another descriptor: {answer}"
        if self.fault is not None:
            return ""
        wanted = page.pa + self.iova - page.iova, page.size, page.prot
        return "" if (answer.pa, answer.page_size, answer.prot) == wanted else f"{self}: {answer}"


def of_pages(
    slot: Slot, pages: Iterable[Page], width: int, too_large: int, *, guests: bool = False
) -> Iterator[Question]:
    """Both ends of every page and of everything between them, and an address of more than `width` bits.

    The latter has the fault `too_large`.

    Of a guest's pages, their content alone says where they are: nothing is asked of them here.
    """
    top, at = 1 << width, 0
    for page in sorted(pages):
        if at < page.iova:
            yield from _nothing(slot, TRANSLATION, at, page.iova - 1)
        at = page.iova + page.size
        if guests:
            continue
        for iova in (page.iova, at - 1):
            for access in _REQUESTS:
                yield Question(slot, iova, access, page, None if access in page.prot else PERMISSION)
    if at < top:
        yield from _nothing(slot, TRANSLATION, at, top - 1)
    yield from _nothing(slot, too_large, top)


def _nothing(slot: Slot, fault: int, *addresses: int) -> Iterator[Question]:
    return (Question(slot, iova, access, None, fault) for iova in addresses for access in _REQUESTS)


def refused(slot: Slot, fault: int) -> Question:
    """A request of a slot that translates nothing."""
    return Question(slot, 0, "r", None, fault)


def passed(slot: Slot) -> Question:
    """A request of a slot whose addresses are not translated. There is no descriptor."""
    return Question(slot, 3 * _PAGE, "w", None, None)
