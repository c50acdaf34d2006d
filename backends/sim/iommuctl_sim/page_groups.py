# SPDX-License-Identifier: Apache-2.0
"""The groups of page requests that devices have sent, as rows: which wait for an answer, and what others were answered.

A device gives an index to another group of a slot once the first one has been answered.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from iommuctl.architecture import PageRequest, PageResponse
from iommuctl.errors import InUse
from iommuctl.hookspecs import Rows
from iommuctl.model import Rid, Slot

KIND = "sim.page-group"
_NO_PASID = "-----"
_BEGUN, _WAITING = "begun", "waiting"
_ANSWERS: Mapping[str, PageResponse] = {"success": "success", "invalid": "invalid", "failure": "failure"}
"""The states of a group that is answered, which are the answers."""


class PageGroup(NamedTuple):
    """A group: `ended` once its last request was sent, so that the device waits until there is an answer."""

    slot: Slot
    group: int
    ended: bool
    answer: PageResponse | None


class PageGroups:
    """The groups of all devices. `warn` hears of answers to groups that no device waits for: devices ignore them."""

    def __init__(self, rows: Rows, warn: Callable[[str], None]) -> None:
        self._rows = rows
        self._warn = warn

    def sent(self, request: PageRequest) -> None:
        """A device sends a request now. Raises InUse where its index is that of a group which is not answered yet."""
        if request.stops:
            return
        key = _key(request.slot.rid.source_id, request.slot.pasid, request.group)
        if self._rows.get(KIND, key) == _WAITING:
            raise InUse(
                f"{request.slot} cannot send a page request of group {request.group}",
                because="it waits for an answer to a group of that index",
            )
        self._rows.put(KIND, key, _WAITING if request.last else _BEGUN)

    def all(self) -> list[PageGroup]:
        """Every group, in the order of slots and indices; of those with one index, the one that was sent last."""
        return [_group(key, state) for key, state in self._rows.scan(KIND)]

    def drop_device(self, rid: Rid) -> None:
        """The device is gone."""
        for key, _ in self._of(rid.source_id):
            self._rows.delete(KIND, key)

    def respond(self, source_id: int, pasid: int | None, group: int, response: PageResponse) -> None:
        """An answer, as `iommuctl.architecture.Bus` has it. Without PASID it is for every group of that index."""
        if pasid is None:
            keys = [key for key, _ in self._of(source_id) if key.endswith(f".{group:03x}")]
        else:
            keys = [_key(source_id, pasid, group)]
        waiting = [key for key in keys if self._rows.get(KIND, key) == _WAITING]
        for key in waiting:
            self._rows.put(KIND, key, response)
        if not waiting:
            who = Slot(Rid.of(source_id), pasid)
            self._warn(f"{who} was answered {response} for page request group {group}, and waits for no such group")

    def _of(self, source_id: int) -> list[tuple[str, str]]:
        return list(self._rows.scan(KIND, f"{source_id:04x}.", f"{source_id:04x}.~"))


def _key(source_id: int, pasid: int | None, group: int) -> str:
    return f"{source_id:04x}.{_NO_PASID if pasid is None else f'{pasid:05x}'}.{group:03x}"


def _group(key: str, state: str) -> PageGroup:
    source, pasid, index = key.split(".")
    slot = Slot(Rid.of(int(source, 16)), None if pasid == _NO_PASID else int(pasid, 16))
    return PageGroup(slot, int(index, 16), state != _BEGUN, _ANSWERS.get(state))
