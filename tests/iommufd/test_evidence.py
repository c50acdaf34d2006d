# SPDX-License-Identifier: Apache-2.0
"""Which field of a refused mapping is said to be wrong, and what is said of the limit of locked memory."""

import os
import resource
from ctypes import Structure
from pathlib import Path

import pytest

from iommuctl.iommufd import evidence, uapi

ALLOWED = ([(0x1000, 0x7FFFF), (0x100000, 0xFFFFFFFF)], 0x1000)


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "ranges", lambda _fd, ioas_id: ALLOWED if ioas_id == 5 else None)


def own(**changed: int) -> Structure:
    right = {"flags": 7, "ioas_id": 5, "user_va": 0x4000, "length": 0x2000, "iova": 0x1000}
    return uapi.iommu_ioas_map(**right | changed)


def copy(**changed: int) -> Structure:
    right = {"flags": 7, "dst_ioas_id": 5, "src_ioas_id": 6, "dst_iova": 0x1000, "src_iova": 0x1001, "length": 0x2000}
    return uapi.iommu_ioas_copy(**right | changed)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (own(), ""),
        (own(flags=1), "neither reading nor writing is allowed (field flags)"),
        (own(length=0), "the length is 0 (field length)"),
        (own(ioas_id=9), ""),
        (own(iova=0x1800), "0x1800 is not a multiple of 0x1000, the alignment (field iova)"),
        (own(length=0x800), "0x800 is not a multiple of 0x1000, the alignment (field length)"),
        (own(user_va=0x4010), "0x4010 is not a multiple of 0x1000, the alignment (field user_va)"),
        (own(length=0x7F000), ""),
        (
            own(length=0x80000),
            "0x1000..0x80fff is not all within the ranges that are allowed: 0x1000..0x7ffff, 0x100000..0xffffffff "
            "(field iova); others are reserved, or out of a device's reach",
        ),
        (copy(), ""),
        (copy(dst_iova=0x1800), "0x1800 is not a multiple of 0x1000, the alignment (field dst_iova)"),
        (copy(dst_ioas_id=9), ""),
    ],
)
def test_which_field_of_a_mapping_is_wrong(argument: Structure, said: str) -> None:
    assert evidence.range_refused(-1, argument) == said


def test_a_file_that_ends_too_early_or_is_none_that_can_be_pinned(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(bytes(0x3000))
    fd = os.open(path, os.O_RDWR)
    right = {"flags": 7, "ioas_id": 5, "fd": fd, "length": 0x2000, "iova": 0x1000}
    short = evidence.range_refused(-1, uapi.iommu_ioas_map_file(**right, start=0x2000))
    assert short == "the file ends at 0x3000, before start 0x2000 and length 0x2000 do"
    kind = evidence.range_refused(-1, uapi.iommu_ioas_map_file(**right, start=0x1000))
    assert kind == f"{fd} is not a memfd, a file of a tmpfs or of hugetlbfs (field fd)"
    os.close(fd)


def limited(monkeypatch: pytest.MonkeyPatch, folder: Path, limit: int, capabilities: str) -> None:
    status = folder / "status"
    status.write_text(f"Name:\tpython\nCapPrm:\tffff\nCapEff:\t{capabilities}\nCapBnd:\tffff\n")
    monkeypatch.setattr(evidence, "_STATUS", str(status))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, resource.RLIM_INFINITY))


def test_the_limit_of_locked_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limited(monkeypatch, tmp_path, 8 << 20, "00000000")
    because, hint = evidence.locked_memory(16 << 20)
    assert because == (
        "RLIMIT_MEMLOCK lets this user lock 8192 KiB, other pinned memory of the user included, and 16384 KiB more are "
        "to be"
    )
    assert "ulimit -l unlimited" in hint
    assert "more are to be" not in evidence.locked_memory(0)[0]


@pytest.mark.parametrize(
    ("limit", "capabilities"),
    [(resource.RLIM_INFINITY, "00000000"), (8 << 20, "00004000")],
    ids=["none", "CAP_IPC_LOCK"],
)
def test_no_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: int, capabilities: str) -> None:
    limited(monkeypatch, tmp_path, limit, capabilities)
    assert evidence.locked_memory(4096) == (
        "the kernel has no memory for it; no limit of locked memory is in the way",
        "",
    )
