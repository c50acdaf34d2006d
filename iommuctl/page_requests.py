# SPDX-License-Identifier: Apache-2.0
"""Page requests as the core has them: what queues held, and the groups that are answered, each exactly once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from iommuctl.model import Slot

if TYPE_CHECKING:
    from iommuctl.architecture import PageRequest, PageResponse


ENDED = "page requests ended"


def ended(slot: Slot) -> dict[str, object]:
    """An intent that a backend of real hardware notes before a call by which the kernel answers what waits in a slot.

    Where the operation does not come to its end, nobody can tell whether the call was made: then what waits there is
    answered invalid after the repair, by `iommuctl_respond` with PageAnswer.over.
    """
    return {ENDED: slot}


class Asked(NamedTuple):
    """A page request, and by what its group is answered: anything JSON holds, the same for all of a group.

    A slot has one group that waits by a token at a time.
    """

    request: "PageRequest"
    token: Any


class AskedPages(NamedTuple):
    """What queues held, the oldest first. With `overflow` some found no room: groups that have begun are forgotten."""

    asked: Sequence[Asked] = ()
    overflow: bool = False


class PageAnswer(NamedTuple):
    """Answer a group. With `over` its slot has changed since, so that the kernel may have answered it by itself."""

    slot: Slot
    token: Any
    response: "PageResponse"
    over: bool = False


class PageGroup(NamedTuple):
    """A group of page requests: `answer` is None while it waits, `by` says who gave it.

    `since` is when it was read from its queue and `answered` when it was answered, in seconds since 1970.
    """

    id: int
    slot: Slot
    token: Any
    requests: "tuple[PageRequest, ...]"
    since: int
    answer: "PageResponse | None" = None
    by: str = ""
    answered: int = 0
