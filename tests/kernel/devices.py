# SPDX-License-Identifier: Apache-2.0
"""GET_HW_INFO, and BIND, ATTACH and DETACH of a VFIO device.

Source: drivers/iommu/iommufd/device.c, drivers/vfio/{device_cdev,iommufd}.c and drivers/iommu/iommu.c of Linux 7.3.
Each device has a group of its own.
"""

import errno
from ctypes import memmove, memset
from typing import Any

from iommuctl.iommufd import uapi
from iommuctl.iommufd import vfio_uapi as vfio
from tests.kernel.fault_queues import end
from tests.kernel.files import File, Files, failure
from tests.kernel.objects import Device, Hwpt, Vdevice
from tests.kernel.smmuv3_unit import Smmuv3Unit
from tests.kernel.units import Places


class Devices:
    def __init__(self, files: Files, places: Places) -> None:
        self._files = files
        self._places = places
        self.calls = {
            uapi.IOMMU_GET_HW_INFO: self._hw_info,
            vfio.VFIO_DEVICE_BIND_IOMMUFD: self._bind,
            vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT: self._attach,
            vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT: self._detach,
        }

    def _hw_info(self, file: File, argument: Any) -> None:
        """`data_len` comes back as the length that there is; what room is left is filled with 0."""
        place = self._places.of(file.get(argument.dev_id, Device))
        argument.out_data_type, data = place.unit.hw_info()
        if argument.data_len:
            memset(argument.data_uptr, 0, argument.data_len)
            memmove(argument.data_uptr, data, min(argument.data_len, len(data)))
        argument.data_len, argument.out_max_pasid_log2 = len(data), place.pasid_bits

    def _bind(self, file: File, argument: Any) -> None:
        iommufd = self._files.at(argument.iommufd)
        bound = [one for one in self._files.devices(file.node) if one.iommufd]
        if bound:
            raise failure(errno.EINVAL if file in bound else errno.EBUSY)
        file.iommufd = iommufd
        argument.out_devid = iommufd.add(Device(file.node))

    def _attach(self, file: File, argument: Any) -> None:
        """What is attached already is not looked at again; something else is replaced."""
        device, iommufd = _bound(file)
        found = iommufd.any(argument.pt_id)
        if not isinstance(found, Hwpt):
            raise failure(errno.EINVAL)
        pasid = _pasid(argument)
        if device.slots.get(pasid) == argument.pt_id:
            return
        stream = self._check(iommufd, device, found, pasid)
        end(iommufd, _number(iommufd, device), pasid)
        device.slots[pasid] = argument.pt_id
        if pasid is None:
            device.stream = stream

    def _check(self, iommufd: File, device: Device, found: Hwpt, pasid: int | None) -> tuple[int, int] | None:
        """iommufd_hwpt_pasid_compat, iommu_attach_device_pasid, and attach_dev of the driver; the new `stream`.

        That comes first which keeps an SMMUv3's own EBUSY, for a RID whose PASIDs are attached, from being seen.
        """
        place, slots = self._places.of(device), device.slots
        rid = iommufd.objects.get(slots.get(None, 0))
        if not found.pasids and (pasid is not None or slots.keys() - {None}):
            raise failure(errno.EINVAL)
        if pasid is not None and isinstance(rid, Hwpt) and not rid.pasids:
            raise failure(errno.EINVAL)
        if pasid is not None and place.device_bits and pasid >= 1 << place.pasid_bits:
            raise failure(errno.EINVAL)
        if found.unit != place.unit.name:
            raise failure(errno.EINVAL)
        if pasid is not None or not found.nested:
            return None
        stream = _stream(iommufd, device, found.under)
        if isinstance(place.unit, Smmuv3Unit):
            place.unit.check_attach(found.data, stream[1] if stream else None)
        return stream

    def _detach(self, file: File, argument: Any) -> None:
        (device, iommufd), pasid = _bound(file), _pasid(argument)
        end(iommufd, _number(iommufd, device), pasid)
        device.slots.pop(pasid, None)
        if pasid is None:
            device.stream = None


def _bound(file: File) -> tuple[Device, File]:
    """The object of a device, and the iommufd that it is bound to."""
    for found in file.iommufd.objects.values() if file.iommufd else ():
        if isinstance(found, Device) and found.node == file.node:
            assert file.iommufd
            return found, file.iommufd
    raise failure(errno.EINVAL)


def _number(iommufd: File, device: Device) -> int:
    return next(number for number, one in iommufd.objects.items() if one is device)


def _stream(iommufd: File, device: Device, viommu: int) -> tuple[int, int] | None:
    """iommufd_viommu_get_vdev_id, driver.c."""
    for one in iommufd.objects.values():
        if isinstance(one, Vdevice) and one.viommu == viommu and iommufd.objects[one.device] is device:
            return viommu, one.virt_id
    return None


def _pasid(argument: Any) -> int | None:
    pasid: int = argument.pasid
    return pasid if argument.flags else None
