# SPDX-License-Identifier: Apache-2.0
"""Each call of a session does on the real iommufd core what its docstring says."""

import mmap
import os
import select
from ctypes import addressof, c_char, sizeof

import pytest

from iommuctl.iommufd import uapi as kernel
from iommuctl.iommufd.session import PLACEHOLDERS, HwInfo, Iommufd
from tests.hardware.mock import uapi
from tests.hardware.mock.driver import Mock
from tests.hardware.mock.machine import NESTED, PAGE, READ, START, WRITE
from tests.hardware.mock.users import unprivileged

LAST = uapi.MOCK_APERTURE_LAST
EVERYTHING = (0, 2**64 - 1)


def address_of(memory: mmap.mmap) -> int:
    return addressof(c_char.from_buffer(memory))


def iotlb_request(entry: int, flags: int = 0) -> bytes:
    return bytes(uapi.iommu_hwpt_invalidate_selftest(flags=flags, iotlb_id=entry))


def cache_request(number: int, entry: int, flags: int = 0) -> bytes:
    return bytes(uapi.iommu_viommu_invalidate_selftest(flags=flags, vdev_id=number, cache_id=entry))


@pytest.mark.parametrize("name", [name for name in vars(kernel) if name.startswith("IOMMU_")])
def test_which_calls_the_kernel_has(session: Iommufd, name: str) -> None:
    """The kernel of these tests has all that is declared; numbers that are no call's it does not."""
    number = vars(kernel)[name]
    if number >> 8 == ord(";"):
        assert session.has(number)


def test_numbers_of_no_call(session: Iommufd) -> None:
    assert not session.has(0x3B96)
    assert not session.has(0x3BF0)


def test_probing_makes_nothing(session: Iommufd) -> None:
    first = session.ioas_alloc()
    session.destroy(first)
    assert session.has(kernel.IOMMU_IOAS_ALLOC)
    assert session.ioas_alloc() == first  # ids are used again at once


def test_a_new_address_space_allows_everything(session: Iommufd) -> None:
    """A dry run says the same of one that it has only imagined."""
    dry = Iommufd(session.fd, dry=True)
    assert session.ioas_iova_ranges(session.ioas_alloc()) == dry.ioas_iova_ranges(dry.ioas_alloc()) == ([EVERYTHING], 1)


def test_a_device_narrows_the_ranges(session: Iommufd, mock: Mock) -> None:
    ioas_id = session.ioas_alloc()
    device = mock.add_device(ioas_id)
    assert session.ioas_iova_ranges(ioas_id) == ([(START, LAST)], uapi.MOCK_PAGE_SIZE)
    session.destroy(device.stdev_id)
    assert session.ioas_iova_ranges(ioas_id) == ([EVERYTHING], 1)


def test_more_ranges_than_there_was_room_for(session: Iommufd, mock: Mock) -> None:
    asked: list[dict[str, int]] = []
    logged = Iommufd(session.fd, log=lambda _, fields: asked.append(fields))
    ioas_id = session.ioas_alloc()
    for hole in range(40):
        mock.add_reserved(ioas_id, (2 * hole + 1) * PAGE, PAGE)
    ranges, _ = logged.ioas_iova_ranges(ioas_id)
    assert len(ranges) == 41
    assert ranges[0] == (0, PAGE - 1)
    assert ranges[1] == (2 * PAGE, 3 * PAGE - 1)
    assert ranges[-1] == (80 * PAGE, 2**64 - 1)
    assert [fields["num_iovas"] for fields in asked] == [16, 41]


def test_what_is_kept_allowed(session: Iommufd) -> None:
    ioas_id = session.ioas_alloc()
    session.ioas_allow_iovas(ioas_id, [(START, START + PAGE - 1), (START + 2 * PAGE, LAST)])
    assert session.ioas_iova_ranges(ioas_id)[0] == [EVERYTHING]
    session.ioas_allow_iovas(ioas_id, [])


def test_map_and_unmap_of_own_memory(session: Iommufd, mock: Mock) -> None:
    ioas_id = session.ioas_alloc()
    device = mock.add_device(ioas_id)
    memory = mmap.mmap(-1, 4 * PAGE)
    address = address_of(memory)
    session.ioas_map(ioas_id, START, 4 * PAGE, address, READ | WRITE)
    assert mock.maps(device.hwpt_id, START, 4 * PAGE, address)
    assert not mock.maps(device.hwpt_id, START, PAGE, address + PAGE)
    assert mock.pinned(address, 4 * PAGE, 1)
    assert session.ioas_unmap(ioas_id, START, 4 * PAGE) == 4 * PAGE
    assert mock.pinned(address, 4 * PAGE, 0)


def test_map_and_unmap_of_a_file(session: Iommufd, mock: Mock, memfd: int) -> None:
    """The page table has the memory of the file, from its start on."""
    ioas_id = session.ioas_alloc()
    device = mock.add_device(ioas_id)
    memory = mmap.mmap(memfd, 1 << 20)
    memory[:] = bytes(1 << 20)
    session.ioas_map_file(ioas_id, START, 2 * PAGE, memfd, start=3 * PAGE, flags=READ | WRITE)
    session.ioas_map_file(ioas_id, START + 8 * PAGE, PAGE, memfd, start=0, flags=READ)
    assert mock.maps(device.hwpt_id, START, 2 * PAGE, address_of(memory) + 3 * PAGE)
    assert mock.maps(device.hwpt_id, START + 8 * PAGE, PAGE, address_of(memory))
    assert session.ioas_unmap(ioas_id, START + PAGE // 2 - PAGE, 8 * PAGE) == 2 * PAGE  # a range may hold more
    assert session.ioas_unmap(ioas_id) == PAGE
    assert session.ioas_unmap(ioas_id) == 0


def test_memory_is_pinned_when_a_device_is_there(session: Iommufd, mock: Mock, memfd: int) -> None:
    ioas_id = session.ioas_alloc()
    memory = mmap.mmap(memfd, PAGE)
    memory[:] = bytes(PAGE)
    session.ioas_map_file(ioas_id, START, PAGE, memfd, start=0, flags=READ)
    assert mock.pinned(address_of(memory), PAGE, 0)
    mock.add_device(ioas_id)
    assert mock.pinned(address_of(memory), PAGE, 1)


def test_the_core_pins_in_small_steps(session: Iommufd, mock: Mock, memfd: int) -> None:
    ioas_id = session.ioas_alloc()
    device = mock.add_device(ioas_id)
    memory = mmap.mmap(memfd, 1 << 20)
    with mock.memory_limit(12):
        session.ioas_map_file(ioas_id, START, 1 << 20, memfd, start=0, flags=READ | WRITE)
    assert mock.maps(device.hwpt_id, START, 1 << 20, address_of(memory))


def test_copy_pins_once(session: Iommufd, mock: Mock) -> None:
    source, target = session.ioas_alloc(), session.ioas_alloc()
    memory = mmap.mmap(-1, 4 * PAGE)
    address = address_of(memory)
    session.ioas_map(source, 0x10000, 4 * PAGE, address, READ | WRITE)
    session.ioas_copy(target, START, 4 * PAGE, source_id=source, source_iova=0x10000, flags=READ)
    # A part of a mapping can be copied, too.
    session.ioas_copy(target, START + 8 * PAGE, PAGE, source_id=source, source_iova=0x11000, flags=READ)
    device = mock.add_device(target)
    assert mock.maps(device.hwpt_id, START, 4 * PAGE, address)
    assert mock.maps(device.hwpt_id, START + 8 * PAGE, PAGE, address + PAGE)
    assert mock.pinned(address, 4 * PAGE, 1)


def test_change_of_process(session: Iommufd, mock: Mock, memfd: int) -> None:
    """Who has been given the iommufd is charged for what another process mapped."""
    ioas_id = session.ioas_alloc()
    mock.add_device(ioas_id)

    def mapped_and_given_away() -> str:
        session.ioas_map_file(ioas_id, START, 4 * PAGE, memfd, start=0, flags=READ)
        before = pinned_by_this_process()
        taken = unprivileged(taken_over)
        return f"{before} {taken} {pinned_by_this_process()}"

    def taken_over() -> str:
        before = pinned_by_this_process()
        session.ioas_change_process()
        return f"{before} {pinned_by_this_process()}"

    assert unprivileged(mapped_and_given_away) == "16 0 16 0"


def pinned_by_this_process() -> int:
    """KiB. Nothing is charged to a process with CAP_IPC_LOCK."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmPin"))


def test_options(session: Iommufd) -> None:
    session.option_set(kernel.IOMMU_OPTION_RLIMIT_MODE, 1)
    assert session.option_get(kernel.IOMMU_OPTION_RLIMIT_MODE) == 1
    session.option_set(kernel.IOMMU_OPTION_RLIMIT_MODE, 0)
    assert session.option_get(kernel.IOMMU_OPTION_RLIMIT_MODE) == 0
    ioas_id = session.ioas_alloc()
    assert session.option_get(kernel.IOMMU_OPTION_HUGE_PAGES, ioas_id) == 1
    session.option_set(kernel.IOMMU_OPTION_HUGE_PAGES, 0, ioas_id)
    assert session.option_get(kernel.IOMMU_OPTION_HUGE_PAGES, ioas_id) == 0


@pytest.mark.parametrize("pasid_bits", [0, uapi.MOCK_PASID_WIDTH])
def test_hw_info(session: Iommufd, mock: Mock, pasid_bits: int) -> None:
    flags = uapi.MOCK_FLAGS_DEVICE_PASID if pasid_bits else 0
    device = mock.add_device(session.ioas_alloc(), flags=flags)
    data = bytes(uapi.iommu_test_hw_info(test_reg=uapi.IOMMU_HW_INFO_SELFTEST_REGVAL))
    capabilities = kernel.IOMMU_HW_CAP_DIRTY_TRACKING | kernel.IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED
    info = HwInfo(uapi.IOMMU_HW_INFO_TYPE_SELFTEST, data, capabilities, pasid_bits)
    assert session.get_hw_info(device.dev_id) == info
    no_dirty = mock.add_device(session.ioas_alloc(), flags=uapi.MOCK_FLAGS_DEVICE_NO_DIRTY)
    assert not session.get_hw_info(no_dirty.dev_id).capabilities & kernel.IOMMU_HW_CAP_DIRTY_TRACKING


def test_page_tables_and_their_pasids(session: Iommufd, mock: Mock, memfd: int) -> None:
    ioas_id, other_id = session.ioas_alloc(), session.ioas_alloc()
    device = mock.add_device(ioas_id, flags=uapi.MOCK_FLAGS_DEVICE_PASID)
    first, second = (
        session.hwpt_alloc(device.dev_id, one, kernel.IOMMU_HWPT_ALLOC_PASID) for one in (ioas_id, other_id)
    )
    assert mock.replace(device, first) == first
    mock.pasid_attach(device, 5, first)
    assert mock.pasid_has(device, 5, first)
    assert not mock.pasid_has(device, 5, second)
    mock.pasid_replace(device, 5, second)
    assert mock.pasid_has(device, 5, second)
    mock.pasid_detach(device, 5)
    assert mock.pasid_has(device, 5, 0)
    memory = mmap.mmap(memfd, PAGE)
    session.ioas_map_file(other_id, START, PAGE, memfd, start=0, flags=READ)
    assert mock.maps(second, START, PAGE, address_of(memory))
    session.destroy(second)


def test_dirty_pages(session: Iommufd, mock: Mock, memfd: int) -> None:
    """An entry of the page table is dirty as a whole, so that pages that happen to be neighbours must not share one."""
    ioas_id = session.ioas_alloc()
    session.option_set(kernel.IOMMU_OPTION_HUGE_PAGES, 0, ioas_id)
    device = mock.add_device(ioas_id)
    hwpt_id = session.hwpt_alloc(device.dev_id, ioas_id, kernel.IOMMU_HWPT_ALLOC_DIRTY_TRACKING)
    mock.replace(device, hwpt_id)
    length, page = 128 * PAGE, PAGE
    session.ioas_map_file(ioas_id, START, length, memfd, start=0, flags=READ | WRITE)
    session.hwpt_set_dirty_tracking(hwpt_id, True)
    written = 1 | 1 << 17 | 1 << 127
    assert mock.dirty(hwpt_id, START, length, page, written) == 3
    expected = written.to_bytes(16, "little")
    assert session.hwpt_get_dirty_bitmap(hwpt_id, START, length, page, clear=False) == expected
    assert session.hwpt_get_dirty_bitmap(hwpt_id, START, length, page) == expected
    assert session.hwpt_get_dirty_bitmap(hwpt_id, START, length, page) == bytes(16)
    session.hwpt_set_dirty_tracking(hwpt_id, False)


def test_invalidation_of_a_nested_page_table(session: Iommufd, mock: Mock) -> None:
    ioas_id = session.ioas_alloc()
    device = mock.add_device(ioas_id)
    parent = session.hwpt_alloc(device.dev_id, ioas_id, kernel.IOMMU_HWPT_ALLOC_NEST_PARENT)
    nested = session.hwpt_alloc(device.dev_id, parent, data_type=uapi.IOMMU_HWPT_DATA_SELFTEST, data=NESTED)
    assert mock.replace(device, nested) == nested
    kind, full = uapi.IOMMU_HWPT_INVALIDATE_DATA_SELFTEST, uapi.IOMMU_TEST_IOTLB_DEFAULT
    assert session.hwpt_invalidate(nested, kind, []) == 0
    assert all(mock.iotlb(nested, entry, full) for entry in range(4))
    assert session.hwpt_invalidate(nested, kind, [iotlb_request(2), iotlb_request(0)]) == 2
    assert [mock.iotlb(nested, entry, 0) for entry in range(4)] == [True, False, True, False]
    assert session.hwpt_invalidate(nested, kind, [iotlb_request(0, uapi.IOMMU_TEST_INVALIDATE_FLAG_ALL)]) == 1
    assert all(mock.iotlb(nested, entry, 0) for entry in range(4))


def test_invalidation_of_a_viommu(session: Iommufd, mock: Mock) -> None:
    ioas_id = session.ioas_alloc()
    device = mock.add_device(ioas_id)
    parent = session.hwpt_alloc(device.dev_id, ioas_id, kernel.IOMMU_HWPT_ALLOC_NEST_PARENT)
    viommu_id, none = session.viommu_alloc(device.dev_id, parent, uapi.IOMMU_VIOMMU_TYPE_SELFTEST)
    assert none == b""
    session.destroy(viommu_id)
    data = bytes(uapi.iommu_viommu_selftest(in_data=0x1234))
    viommu_id, answer = session.viommu_alloc(device.dev_id, parent, uapi.IOMMU_VIOMMU_TYPE_SELFTEST, data)
    assert uapi.iommu_viommu_selftest.from_buffer_copy(answer).out_data == 0x1234
    nested = session.hwpt_alloc(device.dev_id, viommu_id, data_type=uapi.IOMMU_HWPT_DATA_SELFTEST, data=NESTED)
    vdevice_id = session.vdevice_alloc(viommu_id, device.dev_id, 0x99)
    mock.replace(device, nested)
    kind, full = uapi.IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST, uapi.IOMMU_TEST_DEV_CACHE_DEFAULT
    assert session.hwpt_invalidate(viommu_id, kind, []) == 0
    assert all(mock.cache(device, entry, full) for entry in range(4))
    assert session.hwpt_invalidate(viommu_id, kind, [cache_request(0x99, 1), cache_request(0x99, 3)]) == 2
    assert [mock.cache(device, entry, 0) for entry in range(4)] == [False, True, False, True]
    mock.replace(device, ioas_id)
    for object_id in (vdevice_id, nested, viommu_id, parent):
        session.destroy(object_id)


def test_page_faults(session: Iommufd, mock: Mock) -> None:
    ioas_id = session.ioas_alloc()
    device = mock.add_device(ioas_id)
    parent = session.hwpt_alloc(device.dev_id, ioas_id, kernel.IOMMU_HWPT_ALLOC_NEST_PARENT)
    fault_id, fd = session.fault_queue_alloc()
    nested = session.hwpt_alloc(
        device.dev_id,
        parent,
        kernel.IOMMU_HWPT_FAULT_ID_VALID,
        data_type=uapi.IOMMU_HWPT_DATA_SELFTEST,
        data=NESTED,
        fault_id=fault_id,
    )
    mock.replace(device, nested)
    mock.trigger_iopf(device, 0xDEADBEA0, group=7, permissions=kernel.IOMMU_PGFAULT_PERM_READ)
    assert select.select([fd], [], [], 5)[0]
    fault = kernel.iommu_hwpt_pgfault.from_buffer_copy(os.read(fd, sizeof(kernel.iommu_hwpt_pgfault)))
    assert (fault.dev_id, fault.grpid, fault.addr) == (device.dev_id, 7, 0xDEADBEA0)
    assert fault.flags == kernel.IOMMU_PGFAULT_FLAGS_LAST_PAGE
    response = kernel.iommu_hwpt_page_response(cookie=fault.cookie, code=kernel.IOMMUFD_PAGE_RESP_SUCCESS)
    assert os.write(fd, bytes(response)) == 8
    mock.replace(device, ioas_id)
    session.destroy(nested)
    os.close(fd)
    session.destroy(fault_id)


def test_a_dry_run_changes_nothing(session: Iommufd, mock: Mock, memfd: int) -> None:
    calls: list[str] = []
    dry = Iommufd(session.fd, log=lambda name, _: calls.append(name), dry=True)
    ioas_id = session.ioas_alloc()
    device = mock.add_device(ioas_id)
    imagined = dry.ioas_alloc()
    assert imagined >= PLACEHOLDERS
    assert dry.hwpt_alloc(device.dev_id, imagined) == imagined + 1
    dry.ioas_map_file(ioas_id, START, PAGE, memfd, start=0, flags=READ)
    dry.ioas_unmap(ioas_id)
    dry.destroy(ioas_id)
    assert dry.get_hw_info(device.dev_id).type == uapi.IOMMU_HW_INFO_TYPE_SELFTEST
    assert dry.ioas_iova_ranges(ioas_id) == ([(START, LAST)], uapi.MOCK_PAGE_SIZE)
    assert session.ioas_unmap(ioas_id) == 0
    assert calls[:4] == ["IOMMU_IOAS_ALLOC", "IOMMU_HWPT_ALLOC", "IOMMU_IOAS_MAP_FILE", "IOMMU_IOAS_UNMAP"]
