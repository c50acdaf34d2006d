# SPDX-License-Identifier: Apache-2.0
"""A guest's stage 1 under an edu device, and what the device reads through it."""

from iommuctl.formats.memory import PAGE
from iommuctl.iommufd.vfio import Cdev
from tests.hardware.edu import Edu
from tests.hardware.smmuv3.guest import Guest, Stage1

RESULT = 0x18_0000
"""A GPA, and an IOVA: every stage 1 here maps 64 KiB there one to one, so that the device can say what it has read."""
ONE, OTHER = 0x10_0000, 0x11_0000
"""GPAs with words of their own."""
IOVA, HOLE = 0x40_0000, 0x50_0000
"""QEMU has stage 2 translate the address of a table, not of an entry: where guest memory is not contiguous, it finds
the entries in the first 4 KiB of a table alone. Those of IOVAs below 8 MiB are there, whatever the granule."""
NOTHING = bytes(8)
_WORD = 8


class Nested:
    """A stage 1 of a granule, with the word of ONE at IOVA. The device must be a vDEVICE."""

    def __init__(self, guest: Guest, device: Cdev, edu: Edu, granule: int = PAGE) -> None:
        self.guest, self._device, self._edu = guest, device, edu
        self.words = {gpa: f"at {gpa >> 16:04x}.".encode() for gpa in (ONE, OTHER)}
        for gpa, word in self.words.items():
            guest.memory.write(gpa, word)
        self.stage_1 = self.another(granule=granule, gpa=ONE)
        self.hwpt = self.attach(guest.translating(self.stage_1))

    def another(self, *, granule: int = PAGE, gpa: int = OTHER, asid: int = 1) -> Stage1:
        """A further stage 1, with what is at a GPA at IOVA."""
        stage_1 = self.guest.stage_1(granule, asid)
        stage_1.map(RESULT, RESULT)
        stage_1.map(IOVA, gpa)
        return stage_1

    def attach(self, payload: bytes) -> int:
        """Have the device use an STE; the nested page table that the kernel made of it."""
        hwpt = self.guest.nested(payload)
        self._device.attach(hwpt)
        return hwpt

    def seen(self, iova: int = IOVA) -> bytes:
        """The word that the device reads; NOTHING if its DMA fails."""
        self.guest.memory.write(RESULT, NOTHING)
        self._edu.load(RESULT, _WORD)
        self._edu.load(iova, _WORD)
        self._edu.store(RESULT, _WORD)
        return self.guest.memory.read(RESULT, _WORD)

    def write(self, iova: int) -> None:
        """Have the device write a word."""
        self._edu.store(iova, _WORD)
