# SPDX-License-Identifier: Apache-2.0
"""The two PCI devices of QEMU that do DMA when they are told to.

`iommu-testdev` writes a known word again and again, and says whether the bus took it. `edu` reads and writes through a
buffer of its own, which only its DMA can reach; it says nothing about errors, and needs the clock to go on.
"""

from enum import Enum

from tests.differential.qtest import Qtest, clock_step, reading, writing

TESTDEV, EDU = "iommu-testdev", "edu"
IDENTITIES = {TESTDEV: (0x1B36, 0x0005), EDU: (0x1234, 0x11E8)}
"""Vendor and device ids."""
EDU_BUFFER = 4096
_EDU_BUFFER_AT = 0x40000
_WORD = (0x1234_5678).to_bytes(4, "little")


class Answer(Enum):
    """What a device says of its DMA."""

    DONE = "done"
    REFUSED = "refused"
    NOT_TOLD = "not told"


class TestDevice:
    """`iommu-testdev` at the address of its BAR 0."""

    __test__ = False

    def __init__(self, qtest: Qtest, bar: int) -> None:
        self._qtest = qtest
        self._bar = bar

    @staticmethod
    def data(size: int) -> bytes:
        """What it writes."""
        return (_WORD * (size // 4 + 1))[:size]

    def write(self, iova: int, size: int, expected: int) -> Answer:
        """Have it write. It reads physical address `expected` afterwards, which has no influence on the answer."""
        bar = self._bar
        registers = {
            0x04: iova & 0xFFFF_FFFF, 0x08: iova >> 32, 0x0C: size, 0x1C: expected & 0xFFFF_FFFF, 0x20: expected >> 32,
            0x14: 1,
        }  # fmt: skip
        requests = [writing(bar + offset, value, 4) for offset, value in registers.items()]
        answers = self._qtest.batch([*requests, reading(bar, 4), reading(bar + 0x10, 4)])
        result = int(answers[-1], 16)
        # Refused on the bus; or taken, and what is at `expected` may be the same or not.
        return {0xDEAD0002: Answer.REFUSED, 0: Answer.DONE, 0xDEAD0003: Answer.DONE, 0xDEAD0004: Answer.DONE}[result]


class Edu:
    """`edu` at the address of its BAR 0. It must have been started with all bits in its `dma_mask`."""

    OPTIONS = "dma_mask=0xffffffffffffffff"

    def __init__(self, qtest: Qtest, bar: int) -> None:
        self._qtest = qtest
        self._bar = bar

    def read(self, iova: int, size: int, offset: int) -> None:
        """Have it read into its buffer at `offset`."""
        self._run(iova, _EDU_BUFFER_AT + offset, size, 1)

    def write(self, iova: int, size: int, offset: int) -> None:
        """Have it write what is in its buffer at `offset`."""
        self._run(_EDU_BUFFER_AT + offset, iova, size, 3)

    def _run(self, source: int, target: int, size: int, command: int) -> None:
        # A range beyond the buffer would be QEMU's own memory.
        inside = target if command == 1 else source
        assert _EDU_BUFFER_AT <= inside <= inside + size <= _EDU_BUFFER_AT + EDU_BUFFER
        values = {0x80: source, 0x88: target, 0x90: size, 0x98: command}
        requests = [writing(self._bar + offset, value, 8) for offset, value in values.items()]
        busy = self._qtest.batch([*requests, clock_step(100_000_001), reading(self._bar + 0x98, 8)])[-1]
        assert not int(busy, 16) & 1, "edu has not finished"
