# SPDX-License-Identifier: Apache-2.0
"""Random configurations, each with a number that makes it again."""

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from iommuctl_vtd.pasid_entry import PasidEntry
from tests.differential.plans import DEVICES, Clear, Dma, Flip, Range
from tests.differential.strategies import Aim, Targets, aims, dmas, numbered
from tests.differential.vtd.descriptors import descriptor_streams, global_invalidation
from tests.differential.vtd.kinds import KINDS, Kind
from tests.differential.vtd.plans import Attach, Configuration, Event, Queue, Space, Tail, Unmap

_AREAS = (
    0,
    1 << 30,
    3 << 31,
    0x3FFF << 25,
    1 << 38,
    (1 << 46) + (5 << 30),
    (1 << 47) - (1 << 30),
    (1 << 48) - (1 << 30),
)
"""Where mappings begin, at a multiple of 1 GiB or a little below it; each has room for 1 GiB."""
_SIZES = (0x1000, 0x1000, 0x2000, 0x5000, 0x20_0000, 0x20_1000, 0x40_0000, 0x4000_0000)
_PAGES = (1 << 12, 1 << 21, 1 << 30)


def configuration(number: int) -> Configuration:
    """The configuration of that number."""
    return numbered(number, configurations())


@st.composite
def configurations(draw: DrawFn) -> Configuration:
    """Any configuration."""
    kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    spaces = tuple(draw(st.lists(_spaces(kind), min_size=1, max_size=3)))
    numbers = st.sampled_from([*range(len(spaces)), *range(len(spaces)), *range(len(spaces)), None])
    slots = tuple(draw(numbers) for _ in DEVICES)
    events = draw(draw(st.sampled_from((_flips, _caches, _caches, _changes)))(kind, spaces, slots))
    return Configuration(kind.name, spaces, slots, tuple(events))


@st.composite
def _spaces(draw: DrawFn, kind: Kind) -> Space:
    stage = draw(st.sampled_from(["tables", "tables", "tables", "tables", "through"]))
    width = draw(st.sampled_from(kind.widths))
    if stage == "through":
        return Space("through", max(kind.widths), (), ())
    first = kind.first_stage
    sizes = draw(st.sampled_from([_PAGES, _PAGES, _PAGES[:1], _PAGES[:2]]))
    # A first stage has bits 46:0 and their upper half, which is made by the bit above.
    limit = 47 if first else width
    areas = [area for area in _AREAS if area < 1 << limit]
    chosen = draw(st.lists(st.sampled_from(areas), min_size=1, max_size=5, unique=True))
    ranges = tuple(draw(_ranges(area, sizes, first=first)) for area in chosen)
    return Space("first" if first else "second", width, sizes, ranges, used=draw(st.booleans()) or not first)


@st.composite
def _ranges(draw: DrawFn, area: int, page_sizes: tuple[int, ...], *, first: bool) -> Range:
    size = draw(st.sampled_from([size for size in _SIZES if size < 1 << 30 or 1 << 30 in page_sizes]))
    prot = draw(st.sampled_from(["rw", "rw", "rw", "r", "rwp" if first else "w"]))
    if size == 1 << 30:
        return Range(area // size * size, size, size, prot)
    offset = draw(st.sampled_from([0, 0, 0x20_0000, 0x1000, 0x1F_F000]))
    pa = 0x1000_0000 + draw(st.integers(0, 0x3F)) * 0x40_0000 + draw(st.sampled_from([0, 0, offset, 0x3000]))
    if draw(st.integers(0, 24)) == 0:
        # Pages in the interrupt range, and those around it that share a large page with it.
        pa = draw(st.sampled_from([0xFEE0_0000, 0xFEE0_3000]))
    return Range(area + offset, size, pa, prot)


def _aims(spaces: tuple[Space, ...], slots: tuple[int | None, ...]) -> st.SearchStrategy[Aim]:
    """A device and an address: mostly one that is mapped for it."""
    ranges = tuple(spaces[slot].ranges if slot is not None else () for slot in slots)
    # In a page of 1 GiB, the end is beyond what one wrong bit of the address may reach.
    return aims(ranges, Targets(_UNMAPPED, _WRONG, 0x7FFF))


_UNMAPPED = (0x1000_0000, 0x1000_0000, 0x7FFF_F000, 1 << 47, 1 << 50)
_WRONG = (1 << 39, 1 << 47, 1 << 48, 1 << 57, 0xFFFF << 48, 0x1FFFF << 47)


@st.composite
def _flips(draw: DrawFn, kind: Kind, spaces: tuple[Space, ...], slots: tuple[int | None, ...]) -> list[Event]:
    """One bit of some entry is wrong from the start; then it is mended, and another one is wrong."""
    events: list[Event] = []
    for _ in range(draw(st.integers(1, 3))):
        anywhere = _aims(spaces, slots)
        device, iova = draw(anywhere)
        # The lowest bits are those that say what an entry is.
        bits = st.one_of(st.integers(0, 11), st.integers(0, 63), st.integers(0, PasidEntry.bits - 1))
        flip = Flip(device, iova, draw(st.integers(0, 7)), draw(bits))
        own = st.tuples(st.just(device), st.just(iova))
        events += [flip, Queue(global_invalidation(kind)), draw(dmas(own)), draw(dmas(own))]
        events += draw(st.lists(dmas(anywhere), min_size=2, max_size=4))
        events += [flip, Queue(global_invalidation(kind))]
    return events


@st.composite
def _caches(draw: DrawFn, kind: Kind, spaces: tuple[Space, ...], slots: tuple[int | None, ...]) -> list[Event]:
    """Entries change behind the caches' backs, and descriptors of all kinds come, good and bad."""
    anywhere = _aims(spaces, slots)
    events: list[Event] = [*draw(st.lists(dmas(anywhere), min_size=3, max_size=6))]
    for _ in range(draw(st.integers(1, 3))):
        # Aim at what was asked before: it may be cached.
        known = [event for event in events if isinstance(event, Dma)]
        target = draw(st.sampled_from(known))
        slot = slots[target.device]
        walks = slot is not None and spaces[slot].stage != "through"
        # Only paging entries: whether entries before them are cached, or fetched early, is a unit's own affair.
        change = draw(st.integers(0, 2)) if walks else 2
        if change == 0:
            events.append(Flip(target.device, target.iova, 0, draw(st.integers(0, 63)), paging=True))
        elif change == 1:
            events.append(Clear(target.device, target.iova))
        if draw(st.booleans()):
            addresses = tuple({target.iova & -4096, draw(st.sampled_from(known)).iova & -4096})
            events.append(Queue(draw(descriptor_streams(kind, addresses, len(spaces)))))
        if draw(st.integers(0, 4)) == 0:
            events.append(
                Tail(draw(st.sampled_from([0x2000, 0x4000, 0x40000] if kind.legacy else [0x10, 0x2000, 0x40010])))
            )
        events += [draw(st.sampled_from(known)), Dma(target.device, target.access, target.iova, 8)]
        events += draw(st.lists(dmas(anywhere), max_size=3))
    return events


@st.composite
def _changes(draw: DrawFn, kind: Kind, spaces: tuple[Space, ...], slots: tuple[int | None, ...]) -> list[Event]:
    """Our driver changes things, and tells the caches what it must."""
    anywhere = _aims(spaces, slots)
    events: list[Event] = []
    mapped = [(number, index) for number, space in enumerate(spaces) for index in range(len(space.ranges))]
    second = [number for number, space in enumerate(spaces) if space.stage == "second"]
    movable = [number for number, slot in enumerate(slots) if slot is None or slot in second]
    gone: set[tuple[int, int]] = set()
    for _ in range(draw(st.integers(1, 3))):
        asked = draw(st.lists(dmas(anywhere), min_size=3, max_size=6))
        events += asked
        left = [pair for pair in mapped if pair not in gone]
        moves = draw(st.booleans())
        if second and movable and moves:
            events.append(Attach(draw(st.sampled_from(movable)), draw(st.sampled_from([*second, None]))))
        elif left:
            pair = draw(st.sampled_from(left))
            gone.add(pair)
            events.append(Unmap(*pair))
        events += asked
    return events
