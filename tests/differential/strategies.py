# SPDX-License-Identifier: Apache-2.0
"""What random configurations of every architecture are made of, and how each number makes its own again."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from tests.differential.devices import EDU
from tests.differential.plans import DEVICES, Dma, Range

_DRAWS = 4
"""Examples that are drawn for a number; the last one counts, as the first is always the simplest."""

Drawn = TypeVar("Drawn")
Aim: TypeAlias = tuple[int, int]
"""A device and an input address."""


def numbered(number: int, strategy: st.SearchStrategy[Drawn]) -> Drawn:
    """The example of that number."""
    drawn: list[Drawn] = []

    @seed(number)
    @settings(
        max_examples=_DRAWS,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def draw(one: Drawn) -> None:
        drawn.append(one)

    draw()
    return drawn[-1]


class Targets(NamedTuple):
    """Where requests go besides what is mapped.

    `unmapped` are addresses for devices that have no mappings, `wrong` bits that take an address away from its mapping,
    and `last` is the last 4 KiB of a mapping that requests are for.
    """

    unmapped: Sequence[int]
    wrong: Sequence[int]
    last: int


@st.composite
def aims(draw: DrawFn, ranges: Sequence[Sequence[Range]], targets: Targets) -> Aim:
    """A device and an address: mostly one that is mapped for it. `ranges` are the mappings of each device."""
    devices = range(len(DEVICES))
    reaching = [device for device in devices if ranges[device]]
    device = draw(st.sampled_from([*reaching, *reaching, *reaching, *devices]))
    if not ranges[device]:
        return device, draw(st.sampled_from(targets.unmapped)) + draw(_WITHIN)
    mapping = draw(st.sampled_from(ranges[device]))
    pages = mapping.size >> 12
    page = min(targets.last, draw(st.sampled_from(sorted({0, pages - 1, pages // 2, min(7, pages - 1)}))))
    iova = mapping.iova + (page << 12)
    miss = draw(st.integers(0, 11))
    if miss == 0:
        iova = mapping.iova + mapping.size
    elif miss == 1:
        iova |= draw(st.sampled_from(targets.wrong))
    return device, (iova & (1 << 64) - 1) + draw(_WITHIN)


_WITHIN = st.one_of(st.just(0), st.integers(0, 0xFE0), st.sampled_from([4, 8, 0x123, 0xFD0]))
"""Where in a page of 4 KiB a request of at most 32 bytes begins."""


@st.composite
def dmas(draw: DrawFn, anywhere: st.SearchStrategy[Aim]) -> Dma:
    """A request; the device that can only write writes."""
    device, iova = draw(anywhere)
    writes = DEVICES[device][1] != EDU or draw(st.booleans())
    return Dma(device, "w" if writes else "r", iova, draw(st.sampled_from([4, 8, 12, 16, 29])))
