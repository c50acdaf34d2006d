# SPDX-License-Identifier: Apache-2.0
"""The TLBs of devices that have ATS on: translations that a device asked for and keeps until it is told to forget.

They never evict, and keep each page of 4 KiB by itself.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from iommuctl.architecture import Completion
from iommuctl.formats.memory import PAGE
from iommuctl.hookspecs import Rows
from iommuctl.model import Access, Rid, Slot, Step
from iommuctl_sim import devices

KIND = "sim.device-tlb"
_NO_PASID = "-----"


class Question(NamedTuple):
    """What a device asks its unit: where may it go at this address?"""

    slot: Slot
    iova: int
    access: Access
    privileged: bool


class Told(NamedTuple):
    """The answer: a page, what the device may do there, and what the unit made the translation of."""

    pa: int
    prot: str
    tag: tuple[int, ...]
    made_of: tuple[Step, ...]


class DeviceTlbs:
    """The TLBs of all devices, in rows, and what becomes of invalidations (iommuctl.architecture.Bus).

    A device may ask again as soon as it has forgotten. `ask_again` has the answer that would be wrong at that moment,
    or None: then the worst device that is allowed has it at once.
    """

    def __init__(self, rows: Rows, ask_again: Callable[[Question], Told | None]) -> None:
        self._rows = rows
        self._ask_again = ask_again

    def find(self, question: Question) -> Told | None:
        """What the device was told that allows the access."""
        value = self._rows.get(KIND, _key(question))
        return _told(value) if value and question.access in value[1] else None

    def fill(self, question: Question, told: Told) -> None:
        self._rows.put(KIND, _key(question), told)

    def size(self) -> int:
        return self._rows.count(KIND)

    def drop_device(self, rid: Rid) -> None:
        """The device is gone."""
        for key, _ in self._rows.scan(KIND, f"{rid.source_id:04x}.", f"{rid.source_id:04x}.~"):
            self._rows.delete(KIND, key)

    def invalidate(self, source_id: int, pasid: int | None, first: int, last: int) -> Completion:
        owner = _owner(source_id, pasid)
        return self._invalidate(source_id, f"{owner}{first:016x}", f"{owner}{last:016x}~", first, last)

    def invalidate_pasids(self, source_id: int, first: int, last: int) -> Completion:
        # Those without PASID have a sign there that comes before all numbers.
        return self._invalidate(source_id, f"{source_id:04x}.0", f"{source_id:04x}.~", first, last)

    def _invalidate(self, source_id: int, first_key: str, last_key: str, first: int, last: int) -> Completion:
        rid = Rid(0, source_id >> 8, source_id >> 3 & 0x1F, source_id & 7)
        device = devices.find(self._rows, rid)
        if not device or not device[0].ats:
            return "timeout"
        dropped = [
            (key, question, value)
            for key, value in self._rows.scan(KIND, first_key, last_key)
            if first <= (question := _question(rid, key)).iova <= last
        ]
        for key, _, _ in dropped:
            self._rows.delete(KIND, key)
        for _, question, value in dropped:
            again = question._replace(access="w" if "w" in value[1] else "r")
            if told := self._ask_again(again):
                self.fill(again, told)
        return "done"


def _owner(source_id: int, pasid: int | None) -> str:
    return f"{source_id:04x}.{_NO_PASID if pasid is None else f'{pasid:05x}'}."


def _key(question: Question) -> str:
    slot, iova, _, privileged = question
    return f"{_owner(slot.rid.source_id, slot.pasid)}{iova & -PAGE:016x}.{'p' if privileged else 'u'}"


def _question(rid: Rid, key: str) -> Question:
    _, pasid, iova, privilege = key.split(".")
    return Question(Slot(rid, None if pasid == _NO_PASID else int(pasid, 16)), int(iova, 16), "r", privilege == "p")


def _told(value: list[Any]) -> Told:
    pa, prot, tag, made_of = value
    return Told(pa, prot, tuple(tag), tuple(_steps(made_of)))


def _steps(made_of: list[Any]) -> Iterator[Step]:
    for structure, address, raw, fields, stage in made_of:
        yield Step(structure, address, tuple(raw), fields, stage)
