# SPDX-License-Identifier: Apache-2.0
"""The calls on an IOAS. Source: drivers/iommu/iommufd/{ioas,io_pagetable}.c of Linux 7.3."""

import errno
import os
from typing import Any

from iommuctl.iommufd import uapi
from tests.kernel.files import File, failure
from tests.kernel.objects import Ioas, Mapped

EVERYTHING = 2**64 - 1


class Spaces:
    """What is mapped; the files are held open, as the kernel holds them, and can be read by their names."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self.calls = {
            uapi.IOMMU_IOAS_ALLOC: self._alloc,
            uapi.IOMMU_IOAS_IOVA_RANGES: self._ranges,
            uapi.IOMMU_IOAS_MAP_FILE: self._map_file,
            uapi.IOMMU_IOAS_UNMAP: self._unmap,
        }

    def read(self, ioas: Ioas, iova: int, size: int) -> bytes | None:
        """What a device reads there, in one mapping; None if it is not mapped."""
        for one in ioas.mapped:
            if one.iova <= iova and iova + size <= one.iova + one.size:
                return os.pread(self._files[one.file], size, one.start + iova - one.iova)
        return None

    def close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _alloc(self, file: File, argument: Any) -> None:
        argument.out_ioas_id = file.add(Ioas())

    def _ranges(self, file: File, argument: Any) -> None:
        file.get(argument.ioas_id, Ioas)
        room, argument.num_iovas, argument.out_iova_alignment = argument.num_iovas, 1, 1
        if not room:
            raise failure(errno.EMSGSIZE)
        array = (uapi.iommu_iova_range * 1).from_address(argument.allowed_iovas)
        array[0].start, array[0].last = 0, EVERYTHING

    def _map_file(self, file: File, argument: Any) -> None:
        mapped = file.get(argument.ioas_id, Ioas).mapped
        iova, size = argument.iova, argument.length
        if any(one.iova < iova + size and iova < one.iova + one.size for one in mapped):
            raise failure(errno.EEXIST)
        name = os.readlink(f"/proc/self/fd/{argument.fd}")
        mapped.append(Mapped(iova, size, name, argument.start, argument.flags & ~uapi.IOMMU_IOAS_MAP_FIXED_IOVA))
        held, self._files[name] = self._files.get(name), os.dup(argument.fd)
        if held is not None:
            os.close(held)

    def _unmap(self, file: File, argument: Any) -> None:
        mapped = file.get(argument.ioas_id, Ioas).mapped
        first, last = argument.iova, argument.iova + argument.length
        argument.length = 0
        for one in sorted(one for one in mapped if one.iova < last and first < one.iova + one.size):
            if one.iova < first or one.iova + one.size > last:
                raise failure(errno.ENOENT)
            mapped.remove(one)
            argument.length += one.size
        if not argument.length and last != EVERYTHING:
            raise failure(errno.ENOENT)
