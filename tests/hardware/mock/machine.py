# SPDX-License-Identifier: Apache-2.0
"""An address space with a mock device: what most refusals need, with calls that are right but for what is changed."""

import os
from typing import Any, NamedTuple

from iommuctl.iommufd import uapi as kernel
from iommuctl.iommufd.session import Iommufd
from tests.hardware.mock import uapi
from tests.hardware.mock.driver import Device, Mock

PAGE, START, END = 4096, uapi.MOCK_APERTURE_START, uapi.MOCK_APERTURE_LAST + 1
READ, WRITE = kernel.IOMMU_IOAS_MAP_READABLE, kernel.IOMMU_IOAS_MAP_WRITEABLE
KIND = uapi.IOMMU_HWPT_DATA_SELFTEST
NESTED = bytes(uapi.iommu_hwpt_selftest(iotlb=uapi.IOMMU_TEST_IOTLB_DEFAULT))


class Machine(NamedTuple):
    """An address space with a device, and 8 KiB of a memfd mapped read-only at START."""

    session: Iommufd
    mock: Mock
    ioas_id: int
    device: Device
    memfd: int

    def map(self, iova: int = START + 4 * PAGE, length: int = PAGE, **changed: int) -> None:
        values: dict[str, int] = {"start": 0, "flags": READ, "fd": self.memfd, "ioas_id": self.ioas_id} | changed
        self.session.ioas_map_file(iova=iova, length=length, **values)

    def copy(self, iova: int = START + 8 * PAGE, length: int = PAGE, **changed: int) -> None:
        values = {"source_id": self.ioas_id, "source_iova": START, "flags": READ, "ioas_id": self.ioas_id} | changed
        self.session.ioas_copy(iova=iova, length=length, **values)

    def unmap(self, iova: int, length: int) -> None:
        self.session.ioas_unmap(self.ioas_id, iova, length)

    def hwpt(self, flags: int = 0, **changed: Any) -> int:
        values = {"dev_id": self.device.dev_id, "pt_id": self.ioas_id} | changed
        return self.session.hwpt_alloc(flags=flags, **values)

    def parent(self) -> int:
        return self.hwpt(kernel.IOMMU_HWPT_ALLOC_NEST_PARENT)

    def map_own(self, user_va: int, flags: int = READ) -> None:
        self.session.ioas_map(self.ioas_id, START + 4 * PAGE, PAGE, user_va, flags)

    def track(self, hwpt_id: int) -> None:
        self.session.hwpt_set_dirty_tracking(hwpt_id, True)

    def nested(self, data: bytes = NESTED, flags: int = 0, *, parent: int = 0, data_type: int = KIND) -> int:
        return self.hwpt(flags, pt_id=parent or self.parent(), data_type=data_type, data=data)

    def allow(self, *ranges: tuple[int, int]) -> None:
        self.session.ioas_allow_iovas(self.ioas_id, ranges)

    def dirty(self, hwpt_id: int, *, iova: int = START, length: int = PAGE, page: int = PAGE) -> None:
        self.session.hwpt_get_dirty_bitmap(hwpt_id, iova, length, page)

    def viommu(self, hwpt_id: int = 0, type: int = uapi.IOMMU_VIOMMU_TYPE_SELFTEST) -> int:
        """On a parent of its own if none is named."""
        return self.session.viommu_alloc(self.device.dev_id, hwpt_id or self.parent(), type)[0]

    def executable(self) -> int:
        return os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
