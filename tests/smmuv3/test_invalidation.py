# SPDX-License-Identifier: Apache-2.0
"""The commands of each scope as words, and that ranges mean the addresses that they are for."""

import random

import pytest

from iommuctl.model import Rid, Slot
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.invalidation import Span, Target, commands
from iommuctl_smmuv3.register_bank import DEFAULTS
from iommuctl_smmuv3.rules import INVALIDATIONS, Change, Scope
from iommuctl_smmuv3.tags import Tag

RID = Rid(0, 1, 1, 0)
WITH_RANGES = Features.of(DEFAULTS)
WITHOUT = WITH_RANGES._replace(ril=False)
K4, K16, K64, M2, M32 = 1 << 12, 1 << 14, 1 << 16, 1 << 21, 1 << 25
LOW = 0x4000_0000


def words(scope: Scope, target: Target, features: Features = WITH_RANGES) -> list[tuple[int, int]]:
    return [(raw & (1 << 64) - 1, raw >> 64) for raw in commands(scope, target, features)]


def target(
    span: Span | None = None, *, pasid: int | None = None, vmid: int = 0, asid: int | None = 0x12
) -> Target:  # fmt: skip
    return Target(Slot(RID, pasid), Tag(vmid, asid), span)


def pages(first: int, count: int, *, leaf: bool = True, granule: int = K4, page: int | None = None) -> Span:
    return Span(first, first + count * granule - 1, leaf, granule, granule if page is None else page)


@pytest.mark.parametrize(
    ("scope", "pasid", "expected"),
    [
        (Scope.EVERY_STREAM, None, (0x0000000000000004, 0x1F)),
        (Scope.BUS, None, (0x0000010000000004, 0x7)),
        (Scope.STREAM, None, (0x0000010800000003, 0x1)),
        (Scope.SUBSTREAM, 5, (0x0000010800005005, 0x1)),
        (Scope.SUBSTREAM, None, (0x0000010800000005, 0x1)),
        (Scope.SUBSTREAM_TABLE, 5, (0x0000010800005005, 0x0)),
        (Scope.ALL_SUBSTREAMS, 5, (0x0000010800000006, 0x0)),
        (Scope.VMID, None, (0x0000002A00000028, 0)),
        (Scope.STAGE_1_OF_VMID, 5, (0x0000002A00000010, 0)),
        (Scope.ASID, 5, (0x0012002A00000011, 0)),
        (Scope.DEVICE_TLB, 5, (0x0000010800005840, 0x34)),
        (Scope.DEVICE_TLB, None, (0x0000010800000040, 0x34)),
    ],
)
def test_commands_without_addresses(scope: Scope, pasid: int | None, expected: tuple[int, int]) -> None:
    assert words(scope, target(pasid=pasid, vmid=0x2A)) == [expected]


def test_everything_is_also_of_el2() -> None:
    """Where there are StreamWorlds of EL2: CMD_TLBI_EL2_ALL is ILLEGAL elsewhere."""
    assert words(Scope.EVERY_TRANSLATION, target()) == [(0x20, 0), (0x30, 0)]
    assert words(Scope.EVERY_TRANSLATION, target(), WITH_RANGES._replace(hyp=False)) == [(0x30, 0)]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        # 512 pages of 4 KB.
        (pages(LOW, 512), [(0x0012000000900012, 0x40000701)]),
        # 499 pages: 19, and 15 times 32.
        (pages(LOW, 499), [(0x0012000000012012, 0x40000701), (0x001200000050E012, 0x40013701)]),
        # One page is no range.
        (pages(0xFFFF_F000_1000, 1), [(0x0012000000000012, 0xFFFF_F000_1001)]),
        # Where tables went, no level is told; and 33 pages are taken for 34, as one page alone would be no range.
        (pages(LOW, 512, leaf=False), [(0x0012000000900012, 0x40000400)]),
        (pages(LOW, 33, leaf=False), [(0x0012000000110012, 0x40000400)]),
        (pages(LOW, 33), [(0x0012000000000012, 0x40000701), (0x0012000000500012, 0x40001701)]),
        # One block, or pages of several sizes.
        (pages(LOW, 512, page=M2), [(0x0012000000000012, 0x40000001)]),
        # 514 pages: once 2, and 16 times 32.
        (pages(LOW, 513, page=0), [(0x0012000000100012, 0x40000401), (0x0012000000900012, 0x40002401)]),
        (pages(LOW, 3, granule=K16), [(0x0012000000002012, 0x40000B01)]),
        (pages(LOW, 3, granule=K64), [(0x0012000000002012, 0x40000F01)]),
    ],
)  # fmt: skip
def test_addresses_of_an_asid(span: Span, expected: list[tuple[int, int]]) -> None:
    assert words(Scope.ADDRESSES, target(span)) == expected


def test_intermediate_addresses() -> None:
    of_vmid = target(pages(LOW, 512), vmid=0x2A, asid=None)
    assert words(Scope.IPAS, of_vmid) == [(0x0000002A0090002A, 0x40000701)]
    block = target(pages(LOW, 1024, page=M2), vmid=0x2A, asid=None)
    # Two blocks of 2 MB: 1024 pages, of level 2.
    assert words(Scope.IPAS, block) == [(0x0000002A00A0002A, 0x40000601)]
    assert words(Scope.IPAS, target(None, vmid=0x2A, asid=None)) == [(0x0000002A00000028, 0)]


def test_without_ranges() -> None:
    assert words(Scope.ADDRESSES, target(pages(LOW, 3)), WITHOUT) == [
        (0x0012000000000012, LOW + n * K4 | 1) for n in range(3)
    ]
    blocks = Span(LOW, LOW + 3 * M2 - 1, True, K4, M2)
    assert words(Scope.ADDRESSES, target(blocks), WITHOUT) == [(0x0012000000000012, LOW + n * M2 | 1) for n in range(3)]
    assert len(words(Scope.ADDRESSES, target(pages(LOW, 512)), WITHOUT)) == 512
    assert words(Scope.ADDRESSES, target(pages(LOW, 513)), WITHOUT) == [(0x0012000000000011, 0)]
    nested = target(pages(LOW, 513), vmid=0x2A)
    assert words(Scope.ADDRESSES, nested, WITHOUT) == [(0x0000002A00000010, 0)], "a guest may have global pages"
    ipas = target(pages(LOW, 513), vmid=0x2A, asid=None)
    assert words(Scope.IPAS, ipas, WITHOUT) == [(0x0000002A00000028, 0)]


def test_more_than_a_range_can_say() -> None:
    assert words(Scope.ADDRESSES, target(Span(0, (1 << 48) - 1, False))) == [(0x0012000000000011, 0)]
    largest = words(Scope.ADDRESSES, target(Span(0, (1 << 43) - 1, False)))
    # 2 times 2^30 pages.
    assert largest == [(0x0012000001F00012, 0x400)]


def test_addresses_of_a_device() -> None:
    assert words(Scope.DEVICE_TLB_ADDRESSES, target(Span(0x7000, 0xAFFF, True))) == [(0x0000010800000040, 0x4)]
    assert words(Scope.DEVICE_TLB_ADDRESSES, target(Span(0x7000, 0x7FFF, True), pasid=5)) == [
        (0x0000010800005840, 0x7000)
    ]
    assert words(Scope.DEVICE_TLB_ADDRESSES, target(Span(0x20_0000, 0x3F_FFFF, True))) == [
        (0x0000010800000040, 0x20_0009)
    ]


def meant(raw: int, granule: int) -> tuple[int, int]:
    """First address and end of what a command with a range means: IHI0070 G.b section 4.4."""
    first = raw >> 76 << 12
    if not raw >> 74 & 3:
        return first, first + granule
    return first, first + ((raw >> 12 & 31) + 1 << (raw >> 20 & 31)) * granule


@pytest.mark.parametrize("granule", [K4, K16, K64])
def test_every_range_is_covered(granule: int) -> None:
    """And no more, but for one page where a level is not told."""
    chance = random.Random(7)
    for _ in range(2000):
        count, leaf = chance.randrange(1, 1 << chance.randrange(1, 24)), chance.random() < 0.5
        first = chance.randrange(1 << 20) * granule
        span = pages(first, count, granule=granule, leaf=leaf)
        at = first
        for raw in commands(Scope.ADDRESSES, target(span), WITH_RANGES):
            low, end = meant(raw, granule)
            assert low == at
            at = end
            # CERROR_ILL.
            assert not raw >> 74 & 3 or raw >> 12 & 31 or raw >> 20 & 31 or raw >> 72 & 3
        assert at - span.last - 1 in ((0,) if leaf else (0, granule))


def test_the_order_of_phases() -> None:
    """Structures, stage 2, stage 1, devices: IHI0070 G.b section 3.21."""
    for change in Change:
        phases = [scope.phase for scope in INVALIDATIONS[change]]
        assert phases == sorted(phases)
    sent = [(scope.phase, raw & 0xFF) for scope in Scope for raw in commands(scope, target(vmid=1), WITH_RANGES)]
    opcodes = [sorted({opcode for at, opcode in sent if at == phase}) for phase in range(4)]
    assert opcodes == [[0x03, 0x04, 0x05, 0x06], [0x20, 0x28, 0x30], [0x10, 0x11], [0x40]]
