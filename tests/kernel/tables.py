# SPDX-License-Identifier: Apache-2.0
"""HWPT_ALLOC, HWPT_INVALIDATE and DESTROY, with the checks in the kernel's order.

Source: drivers/iommu/iommufd/{hw_pagetable,main,eventq}.c, and arm_vsmmu_cache_invalidate of arm-smmu-v3-iommufd.c, of
Linux 7.3.
"""

import errno
import mmap
from ctypes import string_at
from typing import Any, NamedTuple

from iommuctl.iommufd import uapi
from tests.kernel.fault_queues import destroyed
from tests.kernel.files import File, Files, failure
from tests.kernel.objects import Device, FaultQueue, Hwpt, Ioas, Vdevice, Viommu, used
from tests.kernel.smmuv3_unit import INVALIDATE_TYPE, Smmuv3Unit
from tests.kernel.units import Places, Unit

COMMAND, BATCH, MOST = 16, 63, 1 << 19
"""Bytes of a command, commands that are sent at once, and entries of a call."""
_NESTED_FLAGS = uapi.IOMMU_HWPT_FAULT_ID_VALID | uapi.IOMMU_HWPT_ALLOC_PASID
_FLAGS = _NESTED_FLAGS | uapi.IOMMU_HWPT_ALLOC_NEST_PARENT | uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING


class Invalidated(NamedTuple):
    """One call for a vIOMMU: the commands that were sent, as they were given, and the one that was refused.

    Each call ends with one SYNC. Commands of the batch that a refused one is in were not sent.
    """

    viommu: int
    sent: tuple[bytes, ...]
    refused: bytes | None = None


class Tables:
    def __init__(self, files: Files, places: Places, invalidated: list[Invalidated]) -> None:
        self._files = files
        self._places = places
        self._invalidated = invalidated
        self.calls = {
            uapi.IOMMU_DESTROY: self._destroy,
            uapi.IOMMU_HWPT_ALLOC: self._alloc,
            uapi.IOMMU_HWPT_INVALIDATE: self._invalidate,
        }

    def _destroy(self, file: File, argument: Any) -> None:
        """A bound device has the driver as a user, and an event queue its open file (iommufd_eventq_init)."""
        number = argument.id
        found = file.any(number)
        if number in used(file.objects) or isinstance(found, Device) or self._files.queue(file, number):
            raise failure(errno.EBUSY)
        if isinstance(found, FaultQueue):
            destroyed(file, found)
        del file.objects[number]

    def _alloc(self, file: File, argument: Any) -> None:
        if getattr(argument, "__reserved"):
            raise failure(errno.EOPNOTSUPP)
        if bool(argument.data_type) != bool(argument.data_len):
            raise failure(errno.EINVAL)
        unit = self._places.of(file.get(argument.dev_id, Device)).unit
        under = file.any(argument.pt_id, missing=errno.EINVAL)
        data = string_at(argument.data_uptr, argument.data_len) if argument.data_len else b""
        flags, made = argument.flags, Hwpt(argument.pt_id, unit.name)
        made.pasids = bool(flags & uapi.IOMMU_HWPT_ALLOC_PASID)
        match under:
            case Ioas():
                self._check_paging(unit, flags, data)
                made.nest_parent = bool(flags & uapi.IOMMU_HWPT_ALLOC_NEST_PARENT)
            case Hwpt(nested=False):
                _check_parent(unit, under, flags, data)
                made.nested, made.data = True, data
            case Viommu():
                if under.unit != unit.name:
                    raise failure(errno.EINVAL)
                if flags & ~_NESTED_FLAGS or not data:
                    raise failure(errno.EOPNOTSUPP)
                assert isinstance(unit, Smmuv3Unit)
                made.nested, made.data = True, unit.vste(flags, argument.data_type, data)
            case _:
                raise failure(errno.EINVAL)
        if flags & uapi.IOMMU_HWPT_FAULT_ID_VALID:
            file.get(argument.fault_id, FaultQueue)
            made.fault = argument.fault_id
        argument.out_hwpt_id = file.add(made)

    @staticmethod
    def _check_paging(unit: Unit, flags: int, data: bytes) -> None:
        """iommufd_hwpt_paging_alloc: the kernel's own tables take no payload."""
        if data or flags & ~_FLAGS:
            raise failure(errno.EOPNOTSUPP)
        if flags & uapi.IOMMU_HWPT_FAULT_ID_VALID and flags & uapi.IOMMU_HWPT_ALLOC_NEST_PARENT:
            raise failure(errno.EOPNOTSUPP)
        if not unit.takes(flags & ~uapi.IOMMU_HWPT_FAULT_ID_VALID):
            raise failure(errno.EOPNOTSUPP)

    def _invalidate(self, file: File, argument: Any) -> None:
        """`entry_num` comes back as the number that was carried out, on errors as well."""
        asked, argument.entry_num = argument.entry_num, 0
        if getattr(argument, "__reserved"):
            raise failure(errno.EOPNOTSUPP)
        if asked and (not argument.data_uptr or not 0 < argument.entry_len <= mmap.PAGESIZE or asked > MOST):
            raise failure(errno.EINVAL)
        match file.any(argument.hwpt_id):
            case Hwpt(nested=True, unit=name):
                if not self._places.unit(name).nests_on_parents:
                    raise failure(errno.EOPNOTSUPP)
                argument.entry_num = asked
            case Viommu() as viommu:
                if argument.data_type != INVALIDATE_TYPE or not asked:
                    raise failure(errno.EINVAL)
                self._commands(file, argument, viommu, _entries(argument, asked))
            case _:
                raise failure(errno.EINVAL)

    def _commands(self, file: File, argument: Any, viommu: Viommu, commands: list[bytes]) -> None:
        """What precedes a refused command in its batch is counted as carried out, and was not."""
        unit = self._places.unit(viommu.unit)
        assert isinstance(unit, Smmuv3Unit)
        vdevices = [one for one in file.objects.values() if isinstance(one, Vdevice)]
        numbers = {one.virt_id for one in vdevices if one.viommu == argument.hwpt_id}
        refused = next((index for index, command in enumerate(commands) if unit.refuses(command, numbers)), None)
        if refused is None:
            argument.entry_num = len(commands)
            self._invalidated.append(Invalidated(argument.hwpt_id, tuple(commands)))
            return
        argument.entry_num = refused
        sent = tuple(commands[: refused // BATCH * BATCH])
        self._invalidated.append(Invalidated(argument.hwpt_id, sent, commands[refused]))
        raise failure(errno.EIO)


def _check_parent(unit: Unit, parent: Hwpt, flags: int, data: bytes) -> None:
    """iommufd_hwpt_nested_alloc."""
    if flags & ~_NESTED_FLAGS or not data or not unit.nests_on_parents:
        raise failure(errno.EOPNOTSUPP)
    if not parent.nest_parent or parent.unit != unit.name:
        raise failure(errno.EINVAL)


def _entries(argument: Any, number: int) -> list[bytes]:
    """Shorter entries are filled up with 0, and longer ones must end with it (copy_struct_from_user)."""
    size = argument.entry_len
    raw = string_at(argument.data_uptr, number * size)
    entries = [raw[first : first + size] for first in range(0, len(raw), size)]
    if any(any(entry[COMMAND:]) for entry in entries):
        raise failure(errno.E2BIG)
    return [entry[:COMMAND].ljust(COMMAND, b"\0") for entry in entries]
