# SPDX-License-Identifier: Apache-2.0
"""When the virtual machine structure is fetched, of which nothing is used: IHI0070 G.b sections 5.2, 5.6 and 17.2."""

import pytest

from iommuctl.model import Slot
from tests.smmuv3.fault_cases import MPAM, NO_VMS, with_bits
from tests.smmuv3.handmade import BOTH, NOWHERE, ONE, RW, TWO, Ask, handmade, ste
from tests.smmuv3.machine import idr0_with

VMS = 0xC0000
S1MPAM = 1 << 26


def pointing(where: Slot, address: int) -> dict[int, int]:
    """An STE with S1MPAM and VMSPtr."""
    return with_bits(ste(where) + 8, S1MPAM) | {ste(where) + 40: address}


def test_a_vms_that_can_be_read() -> None:
    machine = handmade(pointing(BOTH, VMS), **MPAM)
    for _ in range(2):
        assert machine.goes(BOTH, RW) == machine.reaches(BOTH, RW) == 0x98000
    assert machine.records() == []


def test_the_whole_map_is_read() -> None:
    """64 bytes, of which the last ones may be what is not there."""
    machine = handmade(pointing(BOTH, VMS), **MPAM)
    read = machine.memory.read
    asked: list[tuple[int, int]] = []

    def noted(address: int, size: int) -> bytes:
        asked.append((address, size))
        return read(address, size)

    machine.memory.read = noted  # type: ignore[method-assign]
    assert machine.goes(BOTH, RW) == 0x98000
    assert (VMS, 64) in asked


@pytest.mark.parametrize(
    ("where", "iova", "pa", "changes", "options"),
    [
        # Without the feature: MPAM, PARTIDs, S1MPAM; then in a configuration that is not nested.
        (BOTH, RW, 0x98000, pointing(BOTH, NOWHERE), {}),
        (BOTH, RW, 0x98000, pointing(BOTH, NOWHERE), MPAM | {"mpamidr": 0xFF_0000}),
        (BOTH, RW, 0x98000, {ste(BOTH) + 40: NOWHERE}, MPAM),
        (ONE, RW, 0x30000, pointing(ONE, NOWHERE), MPAM),
        (ONE, RW, 0x30000, pointing(ONE, NOWHERE), MPAM | {"idr0": idr0_with(S2P=0)}),
        (TWO, 0x30123, 0x98123, pointing(TWO, NOWHERE), MPAM),
    ],
)
def test_where_there_is_none(
    where: Slot, iova: int, pa: int, changes: dict[int, int], options: dict[str, int]
) -> None:  # fmt: skip
    machine = handmade(changes, **options)
    assert machine.goes(where, iova) == pa
    assert machine.records() == []


def test_nothing_of_it_is_kept() -> None:
    """So no command is needed when it changes or goes; what is in the TLB does not help a request that has none."""
    machine = handmade(pointing(BOTH, VMS), **MPAM)
    assert machine.goes(BOTH, RW) == 0x98000
    machine.memory.put({ste(BOTH) + 40: NOWHERE})
    assert machine.goes(BOTH, RW) == 0x98000
    assert machine.send((10 << 32 | 3, 1)) == 0
    assert machine.goes(BOTH, RW) == "F_VMS_FETCH"
    machine.memory.put({ste(BOTH) + 40: VMS})
    assert machine.send((10 << 32 | 3, 1)) == 0
    assert machine.goes(BOTH, RW) == 0x98000


def test_translated_requests_need_none() -> None:
    machine = handmade(NO_VMS, cr0=0x1D, **MPAM)
    assert Ask(BOTH, 0x5678, kind="translated").of(machine) == 0x5678


def test_ats_comes_first() -> None:
    """Which of the two a unit looks at first is not laid down."""
    machine = handmade(NO_VMS | {ste(BOTH) + 8: S1MPAM | 0xD6}, **MPAM)
    assert Ask(BOTH, RW, kind="translation").of(machine) == "F_BAD_ATS_TREQ"
