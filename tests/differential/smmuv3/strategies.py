# SPDX-License-Identifier: Apache-2.0
"""Random configurations of SMMUv3, each with a number that makes it again."""

from collections.abc import Mapping, Sequence

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from iommuctl_smmuv3.ste import Ste
from iommuctl_smmuv3.tlb_commands import (
    TlbiNhAll,
    TlbiNhAsid,
    TlbiNhVa,
    TlbiNhVaa,
    TlbiNsnhAll,
    TlbiS2Ipa,
    TlbiS12Vmall,
)
from tests.differential.plans import DEVICES, Clear, Dma, Flip, Range
from tests.differential.smmuv3.build import ASID, VMID
from tests.differential.smmuv3.caches import TG
from tests.differential.smmuv3.descriptors import block_levels, highest, shift
from tests.differential.smmuv3.kinds import KINDS, Kind
from tests.differential.smmuv3.plans import (
    STAGE_1_AT,
    Commands,
    Config,
    Configuration,
    Event,
    Stage1,
    Stage2,
    Stream,
    StreamTable,
    Tree,
    Values,
)
from tests.differential.smmuv3.unit import FORGET
from tests.differential.strategies import Aim, Targets, aims, dmas, numbered

_GRANULES = (1 << 12, 1 << 14, 1 << 16)
_BITS_1 = (25, 30, 32, 36, 39, 40, 42, 44, 47, 48)
_BITS_2 = (32, 36, 39, 40, 42, 44)
_AREAS = (0, 1 << 24, 5 << 28, 1 << 31, 3 << 33, 5 << 37, 1 << 43, 3 << 46)
"""Where mappings begin, each far from the others."""
TARGETS = Targets(
    unmapped=(0x5000_0000, 0x5000_0000, 0xBFFF_F000, 1 << 44, 1 << 47, 1 << 50),
    wrong=(1 << 39, 1 << 43, 1 << 44, 1 << 47, 1 << 48, 1 << 52, 1 << 55, 0x5A << 56, 0xFF << 56),
    last=0x7FFF,
)
_CONFIGS: Mapping[tuple[int, ...], Sequence[Config]] = {
    (1,): ("stage 1",),
    (2,): ("stage 2",),
    (1, 2): ("both", "both", "stage 1", "stage 2"),
}
_FORGET = Commands(FORGET)


def configuration(number: int) -> Configuration:
    """The configuration of that number."""
    return numbered(number, configurations())


@st.composite
def configurations(draw: DrawFn) -> Configuration:
    """Any configuration."""
    kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    split = draw(st.sampled_from([6, 8, 10])) if kind.two_level else None
    size = draw(st.sampled_from([16, 16, 16, 16, 17, 15, 8]))
    table = StreamTable(size, split, draw(st.booleans()))
    stages_2 = tuple(draw(st.lists(_stages_2(), min_size=1, max_size=2))) if 2 in kind.stages else ()
    outputs = tuple(one for stage in stages_2 for one in stage.tree.ranges)
    stages_1 = tuple(draw(st.lists(contexts(outputs), min_size=1, max_size=2))) if 1 in kind.stages else ()
    streams = tuple(draw(_streams(kind, len(stages_1), len(stages_2))) for _ in DEVICES)
    plan = Configuration(kind.name, table, stages_1, stages_2, streams, (), recinvsid=draw(st.integers(0, 3)) > 0)
    if draw(st.integers(0, 3)) == 0:
        plan = _without_rights(plan)
        return plan._replace(events=tuple(draw(_caching(plan))))
    return plan._replace(events=tuple(draw(_events(plan))))


@st.composite
def _streams(draw: DrawFn, kind: Kind, stages_1: int, stages_2: int) -> Stream | None:
    choice = draw(st.integers(0, 15))
    if choice < 3:
        return (None, Stream("abort"), Stream("bypass"))[choice]
    config = draw(st.sampled_from(_CONFIGS[kind.stages]))
    stage_1 = draw(st.integers(0, stages_1 - 1)) if config in ("stage 1", "both") else None
    stage_2 = draw(st.integers(0, stages_2 - 1)) if config in ("stage 2", "both") else None
    return Stream(config, stage_1, stage_2)


@st.composite
def _values(draw: DrawFn, choices: tuple[tuple[str, tuple[int, ...]], ...]) -> Values:
    """Values of some of these fields."""
    chosen = draw(st.lists(st.sampled_from(choices), max_size=3, unique_by=lambda choice: choice[0]))
    return tuple((name, draw(st.sampled_from(values))) for name, values in chosen)


@st.composite
def contexts(draw: DrawFn, outputs: tuple[Range, ...]) -> Stage1:
    """A CD, whose mappings mostly lead to `outputs`."""
    lower = draw(_trees_1(outputs, upper=False)) if draw(st.integers(0, 4)) else None
    upper = draw(_trees_1(outputs, upper=True)) if lower is None or draw(st.booleans()) else None
    fields = (("R", (0,)), ("AFFD", (1,)), ("IPS", (0, 1, 2, 3, 5)), ("TBI0", (1,)), ("TBI1", (1,)), ("HAD0", (1,)))
    return Stage1(lower, upper, draw(_values((*fields, ("HAD1", (1,)), ("PAN", (1,)), ("EPD1", (1,))))))


@st.composite
def _trees_1(draw: DrawFn, outputs: tuple[Range, ...], *, upper: bool) -> Tree:
    granule, bits = draw(st.sampled_from(_GRANULES)), draw(st.sampled_from(_BITS_1))
    blocks = draw(st.booleans())
    first = (1 << 64) - (1 << bits) if upper else 0
    areas = draw(st.lists(st.sampled_from([a for a in _AREAS if a < 1 << bits]), min_size=1, max_size=3, unique=True))
    return Tree(
        granule, bits, blocks, tuple(draw(_ranges(granule, first + area, outputs, blocks=blocks)) for area in areas)
    )


@st.composite
def _ranges(draw: DrawFn, granule: int, area: int, outputs: tuple[Range, ...], *, blocks: bool) -> Range:
    prot = draw(st.sampled_from(["rwu", "rwu", "rwu", "ru", "rwut", "rw", "rwun"]))
    size, align = draw(_sizes(granule, blocks=blocks))
    if draw(st.integers(0, 4)) and outputs:
        near = draw(st.sampled_from(outputs))
        output = near.iova & -align
    else:
        output = draw(_memory(align))
    return Range(area, size, output, prot)


@st.composite
def _sizes(draw: DrawFn, granule: int, *, blocks: bool) -> tuple[int, int]:
    """The size of a mapping, and what its addresses are multiples of."""
    if blocks and draw(st.booleans()):
        level = draw(st.sampled_from(block_levels(granule)))
        block = 1 << shift(granule, level)
        return block + draw(st.sampled_from([0, granule])), block
    return granule * draw(st.sampled_from([1, 1, 2, 5])), granule


@st.composite
def _memory(draw: DrawFn, align: int) -> int:
    """An address of RAM, above what the harness uses."""
    return -(-draw(st.sampled_from([0x5000_0000, 0x5123_0000, 0x6000_0000, 0x7FF0_0000, 0x9000_0000])) // align) * align


@st.composite
def _stages_2(draw: DrawFn) -> Stage2:
    granule, bits = draw(st.sampled_from(_GRANULES)), draw(st.sampled_from(_BITS_2))
    blocks = draw(st.booleans())
    areas = [area for area in _AREAS if area < 1 << bits and area != 1 << 24]
    ranges = []
    for area in draw(st.lists(st.sampled_from(areas), min_size=1, max_size=3, unique=True)):
        size, align = draw(_sizes(granule, blocks=blocks))
        prot = draw(st.sampled_from(["rw", "rw", "rw", "r", "w", "rwn"]))
        ranges.append(Range(area, size, draw(_memory(align)), prot))
    start = highest(granule, bits)
    # So many tables side by side as are allowed, instead of one level more.
    lower = start < 3 and bits <= shift(granule, start) + 4 and draw(st.booleans())
    above = [base + STAGE_1_AT[0] for base in (1 << 33, 1 << 41) if 2 * base <= 1 << bits]
    values = _values((("S2R", (0,)), ("S2AFFD", (1,)), ("S2PS", (0, 1, 2, 3, 5)), ("S2PTW", (1,))))
    tree = Tree(granule, bits, blocks, tuple(ranges), start + 1 if lower else None)
    return Stage2(tree, draw(values), draw(st.sampled_from([STAGE_1_AT[0], STAGE_1_AT[0], *above])))


def _aims(plan: Configuration) -> st.SearchStrategy[Aim]:
    """A device and an address: mostly one that is mapped for it."""
    return aims(tuple(plan.ranges(device) for device in range(len(DEVICES))), TARGETS)


@st.composite
def _events(draw: DrawFn, plan: Configuration) -> list[Event]:
    """Requests to good tables; then one bit of some entry is wrong, it is mended, and another one is wrong."""
    anywhere = _aims(plan)
    events: list[Event] = []
    for dma in draw(st.lists(dmas(anywhere), min_size=4, max_size=8)):
        events += [dma, _FORGET]
    for _ in range(draw(st.integers(0, 3))):
        device, iova = draw(anywhere)
        bits = st.one_of(st.integers(0, 11), st.integers(0, 63), st.integers(0, Ste.bits - 1))
        flip = Flip(device, iova, draw(st.integers(0, 24)), draw(bits))
        own = st.tuples(st.just(device), st.just(iova))
        asked = [draw(dmas(own)), draw(dmas(own)), *draw(st.lists(dmas(anywhere), min_size=1, max_size=3))]
        events += [flip, _FORGET, *(event for dma in asked for event in (dma, _FORGET)), flip, _FORGET]
    return events


def _without_rights(plan: Configuration) -> Configuration:
    """The same with everything allowed: what comes of a request that cached rights refuse is a unit's own affair."""

    def all_rights(tree: Tree | None) -> Tree | None:
        return tree and tree._replace(ranges=tuple(one._replace(prot="rwu") for one in tree.ranges))

    stages_1 = tuple(one._replace(lower=all_rights(one.lower), upper=all_rights(one.upper)) for one in plan.stages_1)
    stages_2 = tuple(one._replace(tree=all_rights(one.tree) or one.tree) for one in plan.stages_2)
    return plan._replace(stages_1=stages_1, stages_2=stages_2)


@st.composite
def _caching(draw: DrawFn, plan: Configuration) -> list[Event]:
    """Pages change behind the caches' backs, and commands come that take some of what is cached away."""
    anywhere = _aims(plan)
    events: list[Event] = [*draw(st.lists(dmas(anywhere), min_size=3, max_size=5))]
    for _ in range(draw(st.integers(1, 4))):
        known = [event for event in events if isinstance(event, Dma)]
        target = draw(st.sampled_from(known))
        if draw(st.booleans()):
            # Never so far that it is not RAM.
            events.append(Flip(target.device, target.iova, 0, draw(st.integers(12, 26)), paging=True))
        else:
            events.append(Clear(target.device, target.iova))
        near = draw(st.sampled_from(known)).iova
        if draw(st.booleans()):
            events.append(Commands(tuple(draw(st.lists(_invalidations(plan, (target.iova, near)), max_size=3)))))
        events += [Dma(target.device, target.access, target.iova, 8), draw(st.sampled_from(known))]
        events += draw(st.lists(dmas(anywhere), max_size=2))
    return events


@st.composite
def _invalidations(draw: DrawFn, plan: Configuration, addresses: tuple[int, ...]) -> int:
    """A command, mostly for what is in use."""
    stages = KINDS[plan.kind].stages
    stage_1 = (TlbiNhAll, TlbiNhAsid, TlbiNhVa, TlbiNhVa, TlbiNhVaa) if 1 in stages else ()
    stage_2 = (TlbiS12Vmall, TlbiS2Ipa, TlbiS2Ipa) if 2 in stages else ()
    layout = draw(st.sampled_from((*stage_1, *stage_2, TlbiNsnhAll)))
    tags = {"VMID": draw(st.sampled_from([0, VMID, VMID + 1])) if 2 in stages else 0}
    tags["ASID"] = draw(st.sampled_from([ASID, ASID, ASID + 1, ASID + 2]))
    tags["Addr"] = draw(st.sampled_from(addresses)) & -4096
    tags["Leaf"] = draw(st.integers(0, 1))
    if draw(st.booleans()):
        granule = draw(st.sampled_from(_GRANULES))
        tags |= {"TG": TG[granule], "NUM": draw(st.integers(1, 31)), "SCALE": draw(st.sampled_from([0, 0, 1, 5]))}
        tags["Addr"] &= -granule
    if layout is TlbiS2Ipa:
        tags["Addr"] &= (1 << 52) - 1
    raw: int = layout.encode(**{name: value for name, value in tags.items() if name in layout.values(0)})
    return raw
