# SPDX-License-Identifier: Apache-2.0
"""QEMU's edu device, which has a DMA engine, driven through its VFIO character device.

Its registers: docs/specs/edu.rst of QEMU. It has a buffer of 4 KiB and, unless told otherwise, 28 address bits.
"""

import os
import struct
import time

from iommuctl.iommufd import vfio_uapi
from iommuctl.iommufd.vfio import Cdev

BUFFER = 0x40000
_SOURCE, _DESTINATION, _COUNT, _COMMAND = 0x80, 0x88, 0x90, 0x98
_RUN, _TO_MEMORY = 1, 2
_PCI_COMMAND, _MASTER = 4, 1 << 2 | 1 << 1
_SECONDS = 10


class Edu:
    """The device behind an open `vfioN`, which is bound to an iommufd."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        cdev = Cdev(descriptor, "edu")
        self._registers = cdev.region(0).offset
        config = cdev.region(vfio_uapi.VFIO_PCI_CONFIG_REGION_INDEX).offset
        (command,) = struct.unpack("<H", os.pread(descriptor, 2, config + _PCI_COMMAND))
        os.pwrite(descriptor, struct.pack("<H", command | _MASTER), config + _PCI_COMMAND)

    def load(self, iova: int, size: int, at: int = 0) -> None:
        """Have the device read `size` bytes of memory into its buffer, from `at` on."""
        self.begin_load(iova, size, at)
        self.wait()

    def store(self, iova: int, size: int, at: int = 0) -> None:
        """Have the device write `size` bytes of its buffer, from `at` on, to memory."""
        self.begin_store(iova, size, at)
        self.wait()

    def begin_load(self, iova: int, size: int, at: int) -> None:
        """As `load`, which this does not wait for: a DMA takes a tenth of a second."""
        self._begin(iova, BUFFER + at, size, _RUN)

    def begin_store(self, iova: int, size: int, at: int) -> None:
        """As `store`, which this does not wait for."""
        self._begin(BUFFER + at, iova, size, _RUN | _TO_MEMORY)

    def _begin(self, source: int, destination: int, size: int, command: int) -> None:
        for register, value in ((_SOURCE, source), (_DESTINATION, destination), (_COUNT, size), (_COMMAND, command)):
            os.pwrite(self._fd, struct.pack("<Q", value), self._registers + register)

    def wait(self) -> None:
        """Until the DMA that was begun has come to its end."""
        end = time.monotonic() + _SECONDS
        while os.pread(self._fd, 8, self._registers + _COMMAND)[0] & _RUN:
            assert time.monotonic() < end, "the device does not come to an end"
            time.sleep(0.01)
