# SPDX-License-Identifier: Apache-2.0
"""What a session hands to the kernel, byte by byte, and what it makes of the answer; no kernel takes part."""

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from iommuctl.errors import BackendUnavailable, DeviceNotBound, KernelRefused, PermissionRefused
from iommuctl.iommufd import evidence, refusals, session, uapi
from iommuctl.iommufd.refusals import InvalidationRefused
from iommuctl.iommufd.session import PLACEHOLDERS, HwInfo, Iommufd
from tests.iommufd.compiled import structures as declared

FD = 777
POINTER = "pointer"
"""Stands for an address in a structure: what it points to is looked at by itself."""


class Call(NamedTuple):
    """One call that is expected: its number, the words of its structure as they go in, and what is written to them."""

    request: int
    words: str
    """The format of the structure, as of the module struct."""
    goes_in: tuple[Any, ...]
    comes_out: dict[int, int] = {}  # noqa: RUF012
    """By position."""
    error: int = 0
    points_to: bytes = b""
    writes: bytes = b""
    """To where the pointer points."""


class Script:
    """An `ioctl` that expects certain calls, in order."""

    def __init__(self, *calls: Call) -> None:
        self.calls = list(calls)

    def __call__(self, fd: int, request: int, argument: Any) -> int:
        call = self.calls.pop(0)
        buffer = memoryview(argument).cast("B")
        assert (fd, request) == (FD, call.request)
        assert len(buffer) == struct.calcsize(call.words)
        words = list(struct.unpack(call.words, buffer))
        for position, word in enumerate(call.goes_in):
            if word is POINTER:
                assert ctypes.string_at(words[position], len(call.points_to)) == call.points_to
                ctypes.memmove(words[position], call.writes, len(call.writes))
            else:
                assert words[position] == word, position
        for position, word in call.comes_out.items():
            words[position] = word
        buffer[:] = struct.pack(call.words, *words)
        if call.error:
            raise OSError(call.error, os.strerror(call.error))
        return 0


Use = Callable[[Iommufd], object]
RANGES = struct.pack("4Q", 0, 0xFFF, 0x3000, 2**64 - 1)

CALLS: list[tuple[str, Use, Call, object]] = [
    ("destroy", lambda s: s.destroy(5), Call(0x3B80, "2I", (8, 5)), None),
    ("ioas_alloc", lambda s: s.ioas_alloc(), Call(0x3B81, "3I", (12, 0, 0), {2: 9}), 9),
    (
        "ioas_allow_iovas",
        lambda s: s.ioas_allow_iovas(5, [(0, 0xFFF), (0x3000, 2**64 - 1)]),
        Call(0x3B82, "4IQ", (24, 5, 2, 0, POINTER), points_to=RANGES),
        None,
    ),
    (
        "ioas_copy",
        lambda s: s.ioas_copy(5, 0x1000, 0x2000, source_id=6, source_iova=0x7000, flags=4),
        Call(0x3B83, "4I3Q", (40, 5, 5, 6, 0x2000, 0x1000, 0x7000)),
        None,
    ),
    (
        "ioas_iova_ranges",
        lambda s: s.ioas_iova_ranges(5),
        Call(0x3B84, "4I2Q", (32, 5, 16, 0, POINTER, 0), {2: 2, 5: 4096}, writes=RANGES),
        ([(0, 0xFFF), (0x3000, 2**64 - 1)], 4096),
    ),
    (
        "ioas_map",
        lambda s: s.ioas_map(5, 0x1000, 0x2000, 0x7F0000, 2),
        Call(0x3B85, "4I3Q", (40, 3, 5, 0, 0x7F0000, 0x2000, 0x1000)),
        None,
    ),
    (
        "ioas_unmap",
        lambda s: s.ioas_unmap(5, 0x1000, 0x9000),
        Call(0x3B86, "2I2Q", (24, 5, 0x1000, 0x9000), {3: 0x2000}),
        0x2000,
    ),
    ("ioas_unmap all", lambda s: s.ioas_unmap(5), Call(0x3B86, "2I2Q", (24, 5, 0, 2**64 - 1), {3: 0}), 0),
    ("option_get", lambda s: s.option_get(1, 5), Call(0x3B87, "2I2HIQ", (24, 1, 1, 0, 5, 0), {5: 1}), 1),
    ("option_set", lambda s: s.option_set(1, 7, 5), Call(0x3B87, "2I2HIQ", (24, 1, 0, 0, 5, 7)), None),
    (
        "hwpt_alloc",
        lambda s: s.hwpt_alloc(3, 5, 12, data_type=2, data=b"payload.", fault_id=8),
        Call(0x3B89, "8IQ2I", (48, 12, 3, 5, 0, 0, 2, 8, POINTER, 8, 0), {4: 11}, points_to=b"payload."),
        11,
    ),
    ("hwpt_alloc plain", lambda s: s.hwpt_alloc(3, 5), Call(0x3B89, "8IQ2I", (48, 0, 3, 5, 0, 0, 0, 0), {4: 11}), 11),
    (
        "hwpt_set_dirty_tracking",
        lambda s: s.hwpt_set_dirty_tracking(5, True),
        Call(0x3B8B, "4I", (16, 1, 5, 0)),
        None,
    ),
    (
        "hwpt_set_dirty_tracking off",
        lambda s: s.hwpt_set_dirty_tracking(5, False),
        Call(0x3B8B, "4I", (16, 0, 5, 0)),
        None,
    ),
    (
        "hwpt_get_dirty_bitmap",
        lambda s: s.hwpt_get_dirty_bitmap(5, 0x1000, 65 * 4096, 4096),
        Call(
            0x3B8C,
            "4I4Q",
            (48, 5, 0, 0, 0x1000, 65 * 4096, 4096, POINTER),
            points_to=bytes(16),
            writes=b"0123456789abcdef",
        ),
        b"0123456789abcdef",
    ),
    (
        "hwpt_get_dirty_bitmap no clear",
        lambda s: s.hwpt_get_dirty_bitmap(5, 0x1000, 4096, 4096, clear=False),
        Call(0x3B8C, "4I4Q", (48, 5, 1, 0, 0x1000, 4096, 4096)),
        bytes(8),
    ),
    (
        "hwpt_invalidate",
        lambda s: s.hwpt_invalidate(5, 1, [b"one.", b"two."]),
        Call(0x3B8D, "2IQ4I", (32, 5, POINTER, 1, 4, 2, 0), points_to=b"one.two."),
        2,
    ),
    ("hwpt_invalidate nothing", lambda s: s.hwpt_invalidate(5, 1, []), Call(0x3B8D, "2IQ4I", (32, 5)), 0),
    (
        "fault_queue_alloc",
        lambda s: s.fault_queue_alloc(),
        Call(0x3B8E, "4I", (16, 0, 0, 0xFFFFFFFF), {2: 7, 3: 44}),
        (7, 44),
    ),
    (
        "ioas_map_file",
        lambda s: s.ioas_map_file(5, 0x1000, 0x2000, 33, start=0x8000, flags=6),
        Call(0x3B8F, "3Ii3Q", (40, 7, 5, 33, 0x8000, 0x2000, 0x1000)),
        None,
    ),
    (
        "viommu_alloc",
        lambda s: s.viommu_alloc(3, 5, 1, b"in  "),
        Call(0x3B90, "8IQ", (40, 0, 1, 3, 5, 0, 4, 0, POINTER), {5: 12}, points_to=b"in  ", writes=b"out."),
        (12, b"out."),
    ),
    ("vdevice_alloc", lambda s: s.vdevice_alloc(12, 3, 0x99), Call(0x3B91, "4IQ", (24, 12, 3, 0, 0x99), {3: 13}), 13),
    (
        "veventq_alloc",
        lambda s: s.veventq_alloc(12, 1, 64),
        Call(0x3B93, "8I", (32, 0, 12, 1, 64, 0, 2**32 - 1, 0), {5: 14, 6: 35}),
        (14, 35),
    ),
    ("ioas_change_process", lambda s: s.ioas_change_process(), Call(0x3B92, "2I", (8, 0)), None),
]


def plays(monkeypatch: pytest.MonkeyPatch, *calls: Call) -> Script:
    script = Script(*calls)
    monkeypatch.setattr(session, "ioctl", script)
    monkeypatch.setattr(evidence, "ioctl", script)
    return script


@pytest.mark.parametrize("logged", [False, True])
@pytest.mark.parametrize(("use", "call", "result"), [one[1:] for one in CALLS], ids=[one[0] for one in CALLS])
def test_call(monkeypatch: pytest.MonkeyPatch, use: Use, call: Call, result: object, *, logged: bool) -> None:
    script = plays(monkeypatch, call)
    log: list[tuple[str, dict[str, int]]] = []
    assert use(Iommufd(FD, log=(lambda *one: log.append(one)) if logged else None)) == result
    assert not script.calls
    assert [vars(uapi)[name] for name, _ in log] == [call.request] * logged


def test_every_call_of_a_session_is_in_the_list() -> None:
    names = {name for name, value in vars(Iommufd).items() if callable(value) and name[0] != "_"}
    assert names - {one[0].split()[0] for one in CALLS} == {"close", "has", "get_hw_info"}


def test_the_packed_structures_are_filled_each_time_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has written to them."""
    unmap = Call(0x3B86, "2I2Q", (24, 5, 0x1000, 0x9000), {0: 0, 1: 0, 2: 0, 3: 0x2000})
    plays(monkeypatch, unmap, unmap)
    opened = Iommufd(FD)
    assert [opened.ioas_unmap(5, 0x1000, 0x9000) for _ in range(2)] == [0x2000, 0x2000]


def test_ranges_are_asked_for_again_when_there_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    many = struct.pack("80Q", *range(80))
    script = plays(
        monkeypatch,
        Call(0x3B84, "4I2Q", (32, 5, 16), {2: 30}, errno.EMSGSIZE),
        Call(0x3B84, "4I2Q", (32, 5, 30), {2: 40}, errno.EMSGSIZE),
        Call(0x3B84, "4I2Q", (32, 5, 40, 0, POINTER), {2: 40, 5: 1}, writes=many),
    )
    assert Iommufd(FD).ioas_iova_ranges(5) == ([(at, at + 1) for at in range(0, 80, 2)], 1)
    assert not script.calls


def test_hw_info_is_asked_for_with_room(monkeypatch: pytest.MonkeyPatch) -> None:
    info = {3: 8, 5: 0xFEED, 6: 20, 10: 9}
    asked = "4IQI4BQ"
    plays(
        monkeypatch,
        Call(0x3B8A, asked, (40, 0, 3, 0), info),
        Call(0x3B8A, asked, (40, 0, 3, 8, POINTER), info, writes=b"12345678"),
    )
    assert Iommufd(FD).get_hw_info(3) == HwInfo(0xFEED, b"12345678", 9, 20)


@pytest.mark.parametrize(("error", "known"), [(errno.ENOTTY, False), (errno.EINVAL, True)])
def test_a_call_that_the_kernel_has_or_has_not(monkeypatch: pytest.MonkeyPatch, error: int, known: bool) -> None:
    def ioctl(fd: int, request: int, argument: bytes) -> int:
        assert (fd, request, argument) == (FD, 0x3B94, bytes(4))
        raise OSError(error, "")

    monkeypatch.setattr(session, "ioctl", ioctl)
    assert Iommufd(FD).has(uapi.IOMMU_HW_QUEUE_ALLOC) is known


def test_nothing_is_known_of_a_file_that_is_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def ioctl(fd: int, request: int, argument: bytes) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(session, "ioctl", ioctl)
    with pytest.raises(OSError, match="Bad file descriptor"):
        Iommufd(FD).has(uapi.IOMMU_DESTROY)


def test_the_log_has_the_inputs() -> None:
    """Neither sizes, outputs and reserved fields, nor pointers."""
    log: list[tuple[str, dict[str, int]]] = []
    dry = Iommufd(None, log=lambda *one: log.append(one), dry=True)
    dry.hwpt_alloc(3, 5, 1, data_type=2, data=b"payload.")
    dry.ioas_map_file(5, 0x1000, 0x2000, 33, start=0x8000, flags=6)
    dry.hwpt_invalidate(5, 1, [b"one.", b"two."])
    fields = {"flags": 7, "ioas_id": 5, "fd": 33, "start": 0x8000, "length": 0x2000, "iova": 0x1000}
    assert log == [
        ("IOMMU_HWPT_ALLOC", {"flags": 1, "dev_id": 3, "pt_id": 5, "data_type": 2, "data_len": 8, "fault_id": 0}),
        ("IOMMU_IOAS_MAP_FILE", fields),
        ("IOMMU_HWPT_INVALIDATE", {"hwpt_id": 5, "data_type": 1, "entry_len": 4, "entry_num": 2}),
    ]


def test_a_dry_run_makes_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    plays(monkeypatch)
    dry = Iommufd(None, dry=True)
    made = [dry.ioas_alloc(), dry.hwpt_alloc(3, 5), dry.viommu_alloc(3, 5, 1, b"1234")[0], dry.vdevice_alloc(12, 3, 0)]
    assert made[0] >= PLACEHOLDERS
    assert made == [made[0] + number for number in range(4)]
    assert dry.fault_queue_alloc() == (made[0] + 4, -1)
    assert dry.veventq_alloc(made[2], 1, 64) == (made[0] + 5, -1)
    assert dry.ioas_iova_ranges(made[0]) == ([(0, 2**64 - 1)], 1)
    dry.ioas_map(5, 0, 0x1000, 0x1000, 2)
    dry.destroy(5)
    assert dry.ioas_unmap(5, 0, 0x1000) == 0x1000
    assert dry.hwpt_invalidate(5, 1, [b"one."]) == 1


def test_a_dry_run_knows_nothing_of_a_device_that_it_has_bound() -> None:
    with pytest.raises(DeviceNotBound, match="a dry run binds no device"):
        Iommufd(None, dry=True).get_hw_info(PLACEHOLDERS)


def test_open(tmp_path: Path) -> None:
    """Any file will do to see that it is opened for both, and not inherited."""
    path = tmp_path / "iommu"
    path.touch()
    opened = Iommufd.open(str(path))
    assert not os.get_inheritable(opened.fd)
    assert os.write(opened.fd, b"1") == 1
    opened.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened.fd)


def test_no_device_file(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="there is no /") as caught:
        Iommufd.open(str(tmp_path / "iommu"))
    assert "CONFIG_IOMMUFD" in caught.value.because
    assert "modprobe iommufd" in caught.value.hint


@pytest.mark.parametrize(
    ("number", "kind", "because"),
    [
        (errno.EACCES, PermissionRefused, "mode 640; this is user"),
        (errno.ENODEV, BackendUnavailable, "CONFIG_IOMMUFD"),
        (errno.EMFILE, BackendUnavailable, "Too many open files"),
    ],
)
def test_a_device_file_that_cannot_be_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, kind: type[Exception], because: str
) -> None:
    path = tmp_path / "iommu"
    path.touch(mode=0o640)

    def refuse(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind, match=because):
        Iommufd.open(str(path))


UNMAP = Call(0x3B86, "2I2Q", (24, 5))


def test_an_error_has_the_kernel_s_number(monkeypatch: pytest.MonkeyPatch) -> None:
    plays(monkeypatch, UNMAP._replace(error=errno.EBUSY))
    with pytest.raises(KernelRefused) as caught:
        Iommufd(FD).ioas_unmap(5, 0x1000, 0x2000)
    assert caught.value.errno == errno.EBUSY
    assert caught.value.what == "the kernel refused IOMMU_IOAS_UNMAP: EBUSY"
    assert "0x1000+0x2000" in caught.value.because


@pytest.mark.parametrize("logged", [False, True])
def test_an_error_that_no_table_knows(monkeypatch: pytest.MonkeyPatch, *, logged: bool) -> None:
    plays(monkeypatch, UNMAP._replace(error=errno.ENOSTR))
    with pytest.raises(KernelRefused) as caught:
        Iommufd(FD, log=(lambda *_: None) if logged else None).ioas_unmap(5, 0x1000, 0x2000)
    assert str(caught.value) == "error[kernel-refused]: the kernel refused IOMMU_IOAS_UNMAP: ENOSTR"


@pytest.mark.parametrize(
    ("number", "name", "because"),
    [
        (errno.ENOTTY, "ENOTTY", "this kernel has no such call"),
        (errno.E2BIG, "E2BIG", "a field that this kernel does not know is not 0"),
        (errno.EOPNOTSUPP, "EOPNOTSUPP", "not this value of flags"),
        (errno.EBADF, "EBADF", "the iommufd is not open"),
        (errno.EFAULT, "EFAULT", "not readable"),
    ],
)
def test_errors_of_any_call(monkeypatch: pytest.MonkeyPatch, number: int, name: str, because: str) -> None:
    plays(monkeypatch, UNMAP._replace(error=number))
    with pytest.raises(KernelRefused, match=because) as caught:
        Iommufd(FD).ioas_unmap(5, 0x1000, 0x2000)
    assert caught.value.what == f"the kernel refused IOMMU_IOAS_UNMAP: {name}"


INVALIDATE = Call(0x3B8D, "2IQ4I", (32, 5, POINTER, 1, 4, 3, 0))


@pytest.mark.parametrize(("number", "left", "done"), [(errno.EIO, 2, 2), (errno.ENOTTY, 3, 0), (errno.ENOMEM, 3, 0)])
def test_an_invalidation_tells_how_far_it_came(
    monkeypatch: pytest.MonkeyPatch, number: int, left: int, done: int
) -> None:
    """When the call itself is not known, the kernel does not touch the number."""
    plays(monkeypatch, INVALIDATE._replace(error=number, comes_out={5: left}))
    with pytest.raises(InvalidationRefused) as caught:
        Iommufd(FD).hwpt_invalidate(5, 1, [b"one.", b"two.", b"3rd."])
    assert (caught.value.done, caught.value.errno) == (done, number)


def test_every_sentence_names_fields_that_the_structure_has() -> None:
    """What stands in braces is filled from the structure of the call: {iova:#x}."""
    structures = {request: kind for kind in declared(uapi).values() for request in names_of(kind)}
    for name, by_error in refusals._CALLS.items():
        values = dict.fromkeys((field for field, *_ in structures[name]._fields_), 1)
        for said in by_error.values():
            if not callable(said):
                assert all(text.format(**values) is not None for text in said)
            assert name in vars(uapi)


def names_of(kind: type) -> list[str]:
    """The calls that take a structure: its docstring begins with them."""
    return [
        word.rstrip(":") for word in (kind.__doc__ or "").split() if word.startswith("IOMMU_") and word.endswith(":")
    ]
