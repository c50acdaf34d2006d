# SPDX-License-Identifier: Apache-2.0
"""Faults that hardware recorded: what a queue of events tells, and what is kept of it.

They are unrecoverable: nobody waits for an answer, and the request is over. Page requests wait for one:
iommuctl.page_requests.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from iommuctl.model import Access, Rid
from iommuctl.page_requests import PageGroup


class RecordedFault(NamedTuple):
    """A request that was refused, as far as its record tells: `pasid`, `iova` and `access` are None where it does not.

    `code` and `name` are the architecture's. `iova` may be that of the page alone. `structure` is the name of the
    record's layout, "" for one that is not known; `raw` are the record's 64-bit words.
    """

    code: int
    name: str
    reason: str
    rid: Rid
    pasid: int | None
    iova: int | None
    access: Access | None
    structure: str
    raw: tuple[int, ...]


class Events(NamedTuple):
    """What one queue held, the oldest first, and how many events came that are in it no more.

    `source` names the queue: the unit that it belongs to, or the vIOMMU. With `exact` false, `lost` is the least that
    it can have been, as hardware may tell of a loss and not of its size. `position` is anything JSON holds, for the
    backend to find out by what was lost since: it gets it back with the next request.
    """

    source: str
    faults: Sequence[RecordedFault]
    lost: int = 0
    exact: bool = True
    position: Any = None


class KnownFault(NamedTuple):
    """A fault that is kept, with the record that came last.

    The same fault again, of the same slot with the same code and access in the same 4 KiB, is counted in `times`.
    `first` and `last` are when it was read from its queue, in seconds since 1970: no record has a time.
    """

    id: int
    source: str
    fault: RecordedFault
    times: int
    first: int
    last: int


class Incomplete(NamedTuple):
    """What is missing of a source: events that were `lost` before they were read, at least so many if not `exact`.

    `dropped` is the number of faults that were kept and made room for newer ones.
    """

    source: str
    lost: int
    exact: bool
    dropped: int


class FaultList(NamedTuple):
    """Every fault that is kept, the one that came last at the end, and what is missing; the page requests that wait."""

    faults: list[KnownFault]
    incomplete: list[Incomplete]
    waiting: tuple[PageGroup, ...] = ()


class Mark(NamedTuple):
    """How far somebody knows what has happened: faults by their order, groups of page requests by their states."""

    faults: int = 0
    groups: Mapping[int, str] = {}


class News(NamedTuple):
    """What has happened since a mark: faults that came, for the first time or again; groups that are new or answered.

    Either is in order. `mark` is for the next time.
    """

    faults: list[KnownFault]
    groups: list[PageGroup]
    mark: Mark
