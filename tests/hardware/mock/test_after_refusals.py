# SPDX-License-Identifier: Apache-2.0
"""What a refused call has done all the same, what shows only later, and what privileges have to do with it."""

import errno
import fcntl
import mmap
import os
import stat
import tempfile

import pytest

from iommuctl.errors import KernelRefused, PermissionRefused
from iommuctl.iommufd import uapi as kernel
from iommuctl.iommufd.refusals import InvalidationRefused
from iommuctl.iommufd.session import Iommufd
from tests.hardware.mock import uapi
from tests.hardware.mock.driver import Mock
from tests.hardware.mock.machine import PAGE, READ, START, Machine
from tests.hardware.mock.test_session import address_of, cache_request, iotlb_request
from tests.hardware.mock.users import unprivileged

NONE = 0x7777
"""An id that no object has."""


def test_what_precedes_a_partial_mapping_is_gone(machine: Machine) -> None:
    machine.map(START + 2 * PAGE, 2 * PAGE)
    with pytest.raises(KernelRefused, match="only in part"):
        machine.unmap(START, 3 * PAGE)
    assert machine.session.ioas_unmap(machine.ioas_id) == 2 * PAGE


def test_what_shows_only_at_attach(session: Iommufd, mock: Mock, memfd: int) -> None:
    """Without a device nothing is pinned: neither a bad address nor the end of a file is seen."""
    ioas_id, other_id = session.ioas_alloc(), session.ioas_alloc()
    device = mock.add_device(other_id)
    session.ioas_map(ioas_id, START, PAGE, PAGE, READ)
    with pytest.raises(KernelRefused, match="cannot be pinned") as caught:
        session.hwpt_alloc(device.dev_id, ioas_id)
    assert caught.value.errno == errno.EFAULT
    session.ioas_unmap(ioas_id)
    session.ioas_map_file(ioas_id, START, 2 * PAGE, memfd, start=(1 << 20) - PAGE, flags=READ)
    with pytest.raises(KernelRefused, match="beyond the end of its file") as caught:
        session.hwpt_alloc(device.dev_id, ioas_id)
    assert caught.value.errno == errno.EINVAL


def test_a_queue_whose_file_is_open(session: Iommufd) -> None:
    fault_id, fd = session.fault_queue_alloc()
    with pytest.raises(KernelRefused, match="or an open file") as caught:
        session.destroy(fault_id)
    assert caught.value.errno == errno.EBUSY
    os.close(fd)
    session.destroy(fault_id)


def test_vdevices_are_one_each(machine: Machine) -> None:
    viommu_id = machine.viommu()
    vdevice_id = machine.session.vdevice_alloc(viommu_id, machine.device.dev_id, 5)
    with pytest.raises(KernelRefused, match="is a vDEVICE already") as caught:
        machine.session.vdevice_alloc(viommu_id, machine.device.dev_id, 6)
    assert caught.value.errno == errno.EEXIST
    machine.session.destroy(vdevice_id)


def test_a_process_s_own_memory_does_not_change_hands(machine: Machine) -> None:
    memory = mmap.mmap(-1, PAGE)
    machine.session.ioas_map(machine.ioas_id, START + 8 * PAGE, PAGE, address_of(memory), READ)
    with pytest.raises(KernelRefused, match="own memory") as caught:
        machine.session.ioas_change_process()
    assert caught.value.errno == errno.EINVAL


IOTLB, CACHE = uapi.IOMMU_HWPT_INVALIDATE_DATA_SELFTEST, uapi.IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST


@pytest.mark.parametrize(
    ("wrong", "error", "because"),
    [
        (iotlb_request(9), errno.EINVAL, "request 2 is wrong"),
        (iotlb_request(0, 0x80), errno.EOPNOTSUPP, "request 2 has flags that are not known"),
    ],
)
def test_an_invalidation_that_fails_on_the_way(machine: Machine, wrong: bytes, error: int, because: str) -> None:
    """What precedes the wrong request is done, what follows it is not."""
    nested = machine.nested()
    entries = [iotlb_request(3), iotlb_request(1), wrong, iotlb_request(0)]
    with pytest.raises(InvalidationRefused, match=because) as caught:
        machine.session.hwpt_invalidate(nested, IOTLB, entries)
    assert (caught.value.done, caught.value.errno) == (2, error)
    assert [machine.mock.iotlb(nested, entry, 0) for entry in range(4)] == [False, True, False, True]


def test_an_invalidation_of_devices_that_fails_on_the_way(machine: Machine) -> None:
    viommu_id = machine.viommu()
    vdevice_id = machine.session.vdevice_alloc(viommu_id, machine.device.dev_id, 5)
    entries = [cache_request(5, 0), cache_request(6, 1), cache_request(5, 2)]
    with pytest.raises(InvalidationRefused, match="request 1 is wrong") as caught:
        machine.session.hwpt_invalidate(viommu_id, CACHE, entries)
    assert (caught.value.done, caught.value.errno) == (1, errno.EINVAL)
    assert [machine.mock.cache(machine.device, entry, 0) for entry in range(4)] == [True, False, False, False]
    machine.session.destroy(vdevice_id)


@pytest.mark.parametrize(
    ("object_id", "kind", "entries", "because"),
    [
        (None, IOTLB, [b""], "0 bytes is not its length"),
        (None, IOTLB, [bytes(8192)], "8192 bytes is not its length"),
        (None, IOTLB, [b"1234"], "4 bytes is not its length"),
        (None, uapi.IOMMU_HWPT_INVALIDATE_DATA_SELFTEST_INVALID, [iotlb_request(0)], "type 0xdadbeef"),
        (None, uapi.IOMMU_HWPT_INVALIDATE_DATA_SELFTEST_INVALID, [], "type 0xdadbeef"),
        (NONE, IOTLB, [iotlb_request(0)], f"{NONE} (field hwpt_id)"),
        (1, IOTLB, [iotlb_request(0)], "1 is neither a nested page table nor a vIOMMU"),
        (None, IOTLB, [iotlb_request(0) + bytes(8)], "16 bytes is not its length"),
    ],
)
def test_invalidations_of_which_none_is_done(
    machine: Machine, object_id: int | None, kind: int, entries: list[bytes], because: str
) -> None:
    nested = machine.nested()
    with pytest.raises(InvalidationRefused) as caught:
        machine.session.hwpt_invalidate(nested if object_id is None else object_id, kind, entries)
    assert caught.value.done == 0
    assert caught.value.errno == (errno.ENOENT if object_id == NONE else errno.EINVAL)
    assert because in caught.value.because
    assert all(machine.mock.iotlb(nested, entry, uapi.IOMMU_TEST_IOTLB_DEFAULT) for entry in range(4))


def test_the_limit_of_locked_memory(machine: Machine) -> None:
    """One page more than a user may lock."""

    def mapped() -> str:
        machine.map(length=64 << 10)
        machine.session.ioas_unmap(machine.ioas_id, START + 4 * PAGE, 64 << 10)
        machine.map(length=(64 << 10) + PAGE)
        return "mapped"

    answer = unprivileged(mapped, locked=64 << 10)
    assert "the kernel refused IOMMU_IOAS_MAP_FILE: ENOMEM" in answer
    assert "RLIMIT_MEMLOCK lets this user lock 64 KiB" in answer
    assert "68 KiB more are to be" in answer
    assert "LimitMEMLOCK" in answer


def test_an_option_for_the_privileged(session: Iommufd) -> None:
    def set_option() -> str:
        session.option_set(kernel.IOMMU_OPTION_RLIMIT_MODE, 1)
        return "set"

    answer = unprivileged(set_option)
    assert "IOMMU_OPTION: EPERM" in answer
    assert "CAP_SYS_RESOURCE" in answer


def test_a_device_file_for_others(session: Iommufd) -> None:
    """A node of its own, so that the machine's stays as it is."""
    with tempfile.TemporaryDirectory() as folder:
        node = f"{folder}/iommu"
        os.mknod(node, stat.S_IFCHR | 0o600, os.fstat(session.fd).st_rdev)
        hidden = unprivileged(lambda: str(Iommufd.open(node).fd))
        os.chmod(folder, 0o755)
        shown = unprivileged(lambda: str(Iommufd.open(node).fd))
    assert hidden.startswith(f"error[{PermissionRefused.id}]: {node} cannot be opened")
    assert "may not enter its folder" in hidden
    assert "user 0, group 0, mode 600; this is user 65534" in shown


def test_a_structure_that_is_newer_than_the_kernel(session: Iommufd) -> None:
    """A tail of zeros is taken, another is not, whatever the call."""
    known = bytes(kernel.iommu_ioas_alloc(size=20))
    fcntl.ioctl(session.fd, kernel.IOMMU_IOAS_ALLOC, known + bytes(8))
    with pytest.raises(OSError, match="Argument list too long") as caught:
        fcntl.ioctl(session.fd, kernel.IOMMU_IOAS_ALLOC, known + b"12345678")
    assert caught.value.errno == errno.E2BIG
