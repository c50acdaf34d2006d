# SPDX-License-Identifier: Apache-2.0
"""What the real iommufd core refuses, by which error, and which field the session says is to blame."""

import errno
from collections.abc import Callable

import pytest

from iommuctl.errors import KernelRefused
from iommuctl.iommufd import uapi as kernel
from tests.hardware.mock.machine import END, KIND, NESTED, PAGE, READ, START, WRITE, Machine

NONE = 0x7777
"""An id that no object has."""
SIZE = 1 << 20
"""Of the memfd."""

Case = tuple[str, Callable[[Machine], object], str, str]
TRACKED, QUEUE = kernel.IOMMU_HWPT_ALLOC_DIRTY_TRACKING, kernel.IOMMU_HWPT_FAULT_ID_VALID
RLIMIT, HUGE = kernel.IOMMU_OPTION_RLIMIT_MODE, kernel.IOMMU_OPTION_HUGE_PAGES
CASES: list[Case] = [
    ("destroy nothing", lambda m: m.session.destroy(NONE), "ENOENT", f"{NONE} (field id)"),
    ("destroy in use", lambda m: m.session.destroy(m.ioas_id), "EBUSY", "something refers to object {ioas_id}"),
    ("ranges of nothing", lambda m: m.session.ioas_iova_ranges(NONE), "ENOENT", f"{NONE} (field ioas_id)"),
    ("ranges of a device", lambda m: m.session.ioas_iova_ranges(m.device.dev_id), "ENOENT", "is no address space"),
    ("allow reserved", lambda m: m.allow((0, PAGE)), "EADDRINUSE", "(field allowed_iovas)"),
    ("allow nothing", lambda m: m.allow((START, START)), "EINVAL", "does not end after its start"),
    ("allow twice", lambda m: m.allow((START, END - 1), (START, START + 9)), "EINVAL", "two overlap"),
    ("map twice", lambda m: m.map(START), "EEXIST", "something is mapped in 0x1000000+0x1000"),
    ("map odd iova", lambda m: m.map(START + 1), "EINVAL", "0x1000001 is not a multiple of 0x800"),
    ("map odd iova, by name", lambda m: m.map(START + 1), "EINVAL", "the alignment (field iova)"),
    ("map odd length", lambda m: m.map(length=100), "EINVAL", "the alignment (field length)"),
    ("map odd start", lambda m: m.map(start=5), "EINVAL", "the alignment (field start)"),
    ("map no length", lambda m: m.map(length=0), "EINVAL", "the length is 0 (field length)"),
    ("map no access", lambda m: m.map(flags=0), "EINVAL", "neither reading nor writing is allowed (field flags)"),
    ("map unknown flag", lambda m: m.map(flags=READ | 64), "EOPNOTSUPP", "flags 0x45 has unknown bits"),
    ("map below", lambda m: m.map(START - PAGE), "EINVAL", "allowed: 0x1000000..0x7fffffff (field iova)"),
    (
        "map across the end",
        lambda m: m.map(END - PAGE, 2 * PAGE),
        "EINVAL",
        "not all within the ranges that are allowed",
    ),
    ("map beyond 2^64", lambda m: m.map(2**64 - PAGE, 2 * PAGE), "EOVERFLOW", "beyond the last address"),
    ("map the last byte", lambda m: m.map(2**64 - 1), "EOVERFLOW", "beyond the last address"),
    ("map beyond the file", lambda m: m.map(start=SIZE), "EINVAL", "the file ends at 0x100000"),
    ("map no file", lambda m: m.map(fd=NONE), "EBADF", f"{NONE} is not an open file (field fd)"),
    ("map disk file", lambda m: m.map(fd=m.executable()), "EINVAL", "is not a memfd"),
    ("map to nothing", lambda m: m.map(ioas_id=NONE), "ENOENT", f"{NONE} (field ioas_id)"),
    ("map own odd", lambda m: m.map_own(0x1001), "EINVAL", "(field user_va)"),
    ("map bad address", lambda m: m.map_own(PAGE), "EFAULT", "(field user_va"),
    ("map high address", lambda m: m.map_own(2**64 - 9), "EOVERFLOW", "beyond the last"),
    ("map unknown flag to own", lambda m: m.map_own(PAGE, 65), "EOPNOTSUPP", "value of flags"),
    ("unmap part", lambda m: m.unmap(START, PAGE), "ENOENT", "lies in it only in part"),
    ("unmap nothing", lambda m: m.unmap(START + 4 * PAGE, PAGE), "ENOENT", "lies wholly in 0x1004000+0x1000"),
    ("unmap no length", lambda m: m.unmap(START, 0), "EINVAL", "the length is 0"),
    ("unmap beyond 2^64", lambda m: m.unmap(START, 2**64 - 2), "EOVERFLOW", "beyond the last address"),
    ("unmap from nothing", lambda m: m.session.ioas_unmap(NONE, START, PAGE), "ENOENT", f"{NONE} (field ioas_id)"),
    ("copy to mapped", lambda m: m.copy(START + PAGE), "EEXIST", "mapped in 0x1001000+0x1000 (fields dst_iova"),
    ("copy unmapped", lambda m: m.copy(source_iova=START + 2 * PAGE), "ENOENT", "is not all mapped (fields src_iova"),
    ("copy too much", lambda m: m.copy(length=3 * PAGE), "ENOENT", "is not all mapped (fields src_iova"),
    ("copy from nothing", lambda m: m.copy(source_id=NONE), "ENOENT", f"{NONE} (field src_ioas_id)"),
    ("copy to nothing", lambda m: m.copy(ioas_id=NONE), "ENOENT", f"{NONE} (field dst_ioas_id)"),
    ("copy odd", lambda m: m.copy(START + 8 * PAGE + 1), "EINVAL", "the alignment (field dst_iova)"),
    ("copy read-only to writable", lambda m: m.copy(flags=READ | WRITE), "EPERM", "mapped read-only at 0x1000000"),
    ("copy beyond 2^64", lambda m: m.copy(length=2**64 - PAGE), "EOVERFLOW", "(field length)"),
    ("option in use", lambda m: m.session.option_set(RLIMIT, 1), "EBUSY", "has objects already"),
    ("option unknown", lambda m: m.session.option_set(9, 1), "EOPNOTSUPP", "option 9 is unknown"),
    ("option of an object", lambda m: m.session.option_set(RLIMIT, 1, m.ioas_id), "EOPNOTSUPP", "of object"),
    ("option value", lambda m: m.session.option_set(HUGE, 2, m.ioas_id), "EINVAL", "value 2"),
    ("option of nothing", lambda m: m.session.option_get(HUGE, NONE), "ENOENT", "(field object_id)"),
    ("info of nothing", lambda m: m.session.get_hw_info(NONE), "ENOENT", f"{NONE} (field dev_id)"),
    ("info of no device", lambda m: m.session.get_hw_info(m.ioas_id), "ENOENT", "is no device (field dev_id)"),
    ("table of nothing", lambda m: m.hwpt(pt_id=NONE), "EINVAL", f"{NONE} (field pt_id)"),
    ("table of a device", lambda m: m.hwpt(pt_id=m.device.dev_id), "EINVAL", "neither a nest parent nor a vIOMMU"),
    ("table for nothing", lambda m: m.hwpt(dev_id=NONE), "ENOENT", f"{NONE} (field dev_id)"),
    ("table with type alone", lambda m: m.hwpt(data_type=KIND), "EINVAL", "a type needs a payload"),
    ("table with payload alone", lambda m: m.hwpt(data=NESTED), "EINVAL", "a payload a type"),
    ("table with unknown flag", lambda m: m.hwpt(1 << 9), "EOPNOTSUPP", "no tables with flags 0x200"),
    ("table with no queue", lambda m: m.hwpt(QUEUE, fault_id=NONE), "ENOENT", "(field fault_id)"),
    ("nested on no parent", lambda m: m.nested(parent=m.hwpt()), "EINVAL", "neither a nest parent"),
    ("nested of unknown type", lambda m: m.nested(data_type=1), "EOPNOTSUPP", "of type 0x1"),
    ("nested too short", lambda m: m.nested(b"1"), "EINVAL", "data_len 1 is not the length"),
    ("nested tracked", lambda m: m.nested(flags=TRACKED), "EOPNOTSUPP", "flags 0x2"),
    ("track untracked", lambda m: m.track(m.hwpt()), "EOPNOTSUPP", "not made for dirty tracking"),
    ("track nothing", lambda m: m.track(NONE), "ENOENT", f"{NONE} (field hwpt_id)"),
    ("bitmap untracked", lambda m: m.dirty(m.hwpt()), "EOPNOTSUPP", "not made for dirty tracking"),
    ("bitmap of nothing", lambda m: m.dirty(NONE), "ENOENT", f"{NONE} (field hwpt_id)"),
    ("bitmap odd", lambda m: m.dirty(m.hwpt(TRACKED), iova=START + 1), "EINVAL", "multiples of page_size 0x1000"),
    ("bitmap of no pages", lambda m: m.dirty(m.hwpt(TRACKED), page=0), "EINVAL", "multiples of page_size 0x0"),
    (
        "bitmap beyond 2^64",
        lambda m: m.dirty(m.hwpt(TRACKED), iova=2**64 - PAGE, length=2 * PAGE),
        "EOVERFLOW",
        "last address",
    ),
    ("vIOMMU of no type", lambda m: m.viommu(type=1), "EOPNOTSUPP", "no vIOMMU of type 0x1"),
    ("vIOMMU on no parent", lambda m: m.viommu(hwpt_id=m.hwpt()), "EINVAL", "is not a nest parent"),
    ("vIOMMU on nothing", lambda m: m.viommu(hwpt_id=NONE), "ENOENT", f"{NONE} (field hwpt_id)"),
    ("vDEVICE of nothing", lambda m: m.session.vdevice_alloc(NONE, m.device.dev_id, 1), "ENOENT", "(field viommu_id)"),
]


@pytest.mark.parametrize(("call", "error", "because"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_refusal(machine: Machine, call: Callable[[Machine], object], error: str, because: str) -> None:
    with pytest.raises(KernelRefused) as caught:
        call(machine)
    assert caught.value.errno == getattr(errno, error)
    assert caught.value.what.startswith("the kernel refused IOMMU_")
    assert caught.value.what.endswith(f": {error}")
    assert because.format(ioas_id=machine.ioas_id) in caught.value.because
