# SPDX-License-Identifier: Apache-2.0
"""Who answers page requests: the handlers of slots and domains."""

from typing import Literal, NamedTuple

from iommuctl.model import Occupant, Slot
from iommuctl.page_requests import PageGroup

HandlerKind = Literal["queue", "reject", "exec", "demand-map"]


class Pages(NamedTuple):
    """Memory that pages are taken from, one after the other: `used` bytes of it are taken.

    `start` counts from the start of named memory; where `memory` is None it is an address, of what the slot's table
    leads to: a GPA for a page table of ours, a physical address for a domain.
    """

    memory: str | None
    start: int
    size: int
    used: int = 0


class Handler(NamedTuple):
    """What becomes of page requests.

    `queue`: they wait for `fault respond`. `reject`: they are answered invalid. `exec`: a program answers each group.
    `demand-map`: the page is mapped to the next one of `pages`.
    """

    kind: HandlerKind
    program: tuple[str, ...] = ()
    pages: Pages | None = None


class HandlerOf(NamedTuple):
    """A handler, and the domain or slot that it was set for; the other one is None."""

    domain: str | None
    slot: Slot | None
    handler: Handler


class Waiting(NamedTuple):
    """A group that waits, what its slot holds, and who is to answer: None where nobody was named."""

    group: PageGroup
    held: Occupant | None
    handler: Handler | None
