# SPDX-License-Identifier: Apache-2.0
"""The calls on a VFIO device: what they pass to the kernel, and what is said of each of its refusals."""

import ctypes
import errno
import os
from collections.abc import Callable

import pytest

from iommuctl.errors import (
    BackendUnavailable,
    GroupNotViable,
    IommuError,
    KernelRefused,
    NoSuchDevice,
    PermissionRefused,
)
from iommuctl.iommufd import vfio
from iommuctl.iommufd.vfio import Cdev, Info, Region
from iommuctl.model import Rid
from tests.iommufd.host import Host

NIC = Rid(0, 0, 3, 0)


class Kernel:
    """Answers ioctls with an error, or by `answer`, which may write into the structure."""

    def __init__(self, number: int = 0, answer: Callable[[ctypes.Structure], int] = lambda _: 0) -> None:
        self.number = number
        self.answer = answer
        self.calls: list[tuple[int, int, bytes]] = []

    def __call__(self, fd: int, request: int, argument: ctypes.Structure) -> int:
        self.calls.append((fd, request, bytes(argument)))
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        return self.answer(argument)


@pytest.fixture
def cdev(host: Host) -> Cdev:
    host.driver("vfio-pci")
    host.device(str(NIC), driver="vfio-pci")
    return Cdev(7, "vfio0", host.sysfs)


def refused(monkeypatch: pytest.MonkeyPatch, number: int, call: Callable[[], object]) -> IommuError:
    monkeypatch.setattr(vfio, "ioctl", Kernel(number))
    with pytest.raises(IommuError) as error:
        call()
    assert error.value.because
    return error.value


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


def test_what_is_passed_to_the_kernel(cdev: Cdev, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are `_IO(';', 100 + n)`. Byte for byte as include/uapi/linux/vfio.h lays it out."""
    kernel = Kernel()
    monkeypatch.setattr(vfio, "ioctl", kernel)
    cdev.bind(5)
    cdev.attach(9)
    cdev.attach(9, pasid=3)
    cdev.detach()
    cdev.detach(pasid=3)
    cdev.info()
    cdev.region(2)
    cdev.dma_buf(1, 0x1000, 0x2000)
    flags = os.O_RDWR | os.O_CLOEXEC
    assert kernel.calls == [
        (7, 0x3B76, words(24, 0, 5, 0, 0, 0)),
        (7, 0x3B77, words(16, 0, 9, 0)),
        (7, 0x3B77, words(16, 1, 9, 3)),
        (7, 0x3B78, words(12, 0, 0)),
        (7, 0x3B78, words(12, 1, 3)),
        (7, 0x3B6B, words(24, 0, 0, 0, 0, 0)),
        (7, 0x3B6C, words(32, 0, 2, 0, 0, 0, 0, 0)),
        (7, 0x3B75, words(40, 0x1000B, 1, flags, 0, 1, 0x1000, 0, 0x2000, 0)),
    ]


def test_what_the_kernel_gives_back(cdev: Cdev, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(argument: ctypes.Structure) -> int:
        for name, value in {
            "out_devid": 4, "pt_id": 11, "num_regions": 9, "num_irqs": 5, "flags": 7, "size": 0x4000, "offset": 1 << 40,
        }.items():  # fmt: skip
            if hasattr(argument, name):
                setattr(argument, name, value)
        return 21

    monkeypatch.setattr(vfio, "ioctl", Kernel(answer=answer))
    assert cdev.bind(5) == 4
    assert cdev.attach(9) == 11
    assert cdev.info() == Info(reset=True, regions=9, interrupts=5)
    assert cdev.region(0) == Region(size=0x4000, offset=1 << 40, mappable=True)
    assert cdev.dma_buf(0, 0, 0x1000) == 21


def test_the_log_comes_before_the_call(cdev: Cdev, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, dict[str, int]]] = []
    monkeypatch.setattr(vfio, "ioctl", Kernel(errno.EBUSY))
    cdev.log = lambda name, fields: told.append((name, fields))
    with pytest.raises(KernelRefused):
        cdev.attach(9, pasid=3)
    assert told == [("VFIO_DEVICE_ATTACH_IOMMUFD_PT", {"flags": 1, "pt_id": 9, "pasid": 3})]


def test_a_dry_run_opens_nothing_and_calls_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Placeholders are beyond the kernel's ids, of which two devices have two."""
    kernel = Kernel()
    monkeypatch.setattr(vfio, "ioctl", kernel)
    told: list[str] = []
    cdev = Cdev.open("vfio7", host.sysfs, log=lambda name, _: told.append(name), dry=True)
    first, second = cdev.bind(5), cdev.bind(5)
    assert 0x8000_0000 < first < second < 1 << 32
    assert cdev.attach(9) == 9
    assert cdev.dma_buf(0, 0, 4096) == -1
    cdev.close()
    assert len(told) == 4
    assert kernel.calls == []


def test_open_by_name_and_by_path(host: Host) -> None:
    host.node = "/dev/null"
    host.driver("vfio-pci")
    host.device(str(NIC), driver="vfio-pci")
    for name in ("vfio0", host.sysfs.node("vfio0")):
        cdev = Cdev.open(name, host.sysfs)
        assert (cdev.name, cdev.rid, str(cdev)) == ("vfio0", NIC, "0000:00:03.0 (vfio0)")
        assert os.fstat(cdev.fd).st_rdev == os.stat("/dev/null").st_rdev
        assert not os.get_inheritable(cdev.fd)
        cdev.close()
        cdev.close()


def test_a_folder_without_dev(host: Host) -> None:
    host.cdev = False
    host.driver("vfio-pci")
    host.device(str(NIC), driver="vfio-pci")
    with pytest.raises(BackendUnavailable, match="vfio0 has no node") as refused:
        Cdev.open("vfio0", host.sysfs)
    assert "CONFIG_VFIO_DEVICE_CDEV" in refused.value.because


def test_a_node_that_nothing_has_made(cdev: Cdev) -> None:
    os.unlink(cdev.sysfs.node("vfio0"))
    with pytest.raises(BackendUnavailable, match="vfio0 does not exist") as refused:
        Cdev.open("vfio0", cdev.sysfs)
    assert "udev" in refused.value.because
    assert f"mknod {cdev.sysfs.node('vfio0')} c 1 7" in refused.value.hint


def test_a_device_that_is_not_with_vfio(host: Host) -> None:
    with pytest.raises(NoSuchDevice, match="no VFIO device vfio3") as refused:
        Cdev.open("vfio3", host.sysfs)
    assert "iommuctl device bind" in refused.value.hint


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EACCES, PermissionRefused), (errno.EPERM, PermissionRefused), (errno.EIO, KernelRefused)],
)
def test_a_node_that_cannot_be_opened(
    cdev: Cdev, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[IommuError]
) -> None:
    def refusing(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("iommuctl.iommufd.vfio.os.open", refusing)
    with pytest.raises(kind):
        Cdev.open("vfio0", cdev.sysfs)


def test_a_second_bind_names_the_holder(host: Host, terminal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    host.node = os.ttyname(terminal)
    host.driver("vfio-pci")
    host.device(str(NIC), driver="vfio-pci")
    cdev = Cdev(terminal, "vfio0", host.sysfs)
    said = refused(monkeypatch, errno.EINVAL, lambda: cdev.bind(5))
    assert said.what == "the kernel refused VFIO_DEVICE_BIND_IOMMUFD of 0000:00:03.0 (vfio0): EINVAL"
    assert "this process may have bound it already" in said.because
    assert said.hint.endswith("`iommuctl exec --device 0000:00:03.0 -- PROGRAM`")
    actions = [(os.POSIX_SPAWN_DUP2, terminal, 0)]
    pid = os.posix_spawnp("sleep", ["sleep", "60"], {}, file_actions=actions)
    try:
        said = refused(monkeypatch, errno.EINVAL, lambda: cdev.bind(5))
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert f"process {pid} (sleep) has the node open" in said.because


def test_a_bind_while_the_older_interface_is_in_use(
    cdev: Cdev, host: Host, terminal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (host.dev / "vfio/1").symlink_to(os.ttyname(terminal))
    said = refused(monkeypatch, errno.EBUSY, lambda: cdev.bind(5))
    assert said.because.startswith(f"the older interface is in use: /dev/vfio/1 is open in process {os.getpid()} (")


def test_a_bind_that_is_not_permitted(cdev: Cdev, host: Host, terminal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three reasons have one error: drivers of the host in the group, another iommufd, interrupts."""
    said = refused(monkeypatch, errno.EPERM, lambda: cdev.bind(5))
    assert "does not isolate interrupts" in said.because
    assert f"echo Y > {host.sys}/module/iommufd/parameters/allow_unsafe_interrupts" in said.hint
    host.node = os.ttyname(terminal)
    host.device("0000:00:04.0", driver="vfio-pci")
    said = refused(monkeypatch, errno.EPERM, lambda: cdev.bind(5))
    assert said.because.startswith("another device of its IOMMU group is bound to another iommufd: open in process")
    host.driver("nvme")
    host.device("0000:00:05.0", driver="nvme")
    said = refused(monkeypatch, errno.EPERM, lambda: cdev.bind(5))
    assert isinstance(said, GroupNotViable)
    assert "0000:00:05.0 (driver nvme)" in said.because


@pytest.mark.parametrize(
    ("number", "pasid", "because"),
    [
        (errno.EADDRINUSE, None, "touch IOVAs that the device reserves: 0xfee00000..0xfeefffff (msi)"),
        (errno.EINVAL, None, "another device of its IOMMU group has another page table"),
        (errno.EINVAL, 5, "field pasid is beyond what the group's devices have"),
        (errno.EFAULT, None, "the process that it belonged to has ended"),
        (errno.ENOMEM, None, "RLIMIT_MEMLOCK"),
        (errno.EBUSY, None, "is being reset"),
        (errno.ENODEV, None, "Linux has not enabled the device's PRI"),
        (errno.ENOENT, None, "field pt_id: there is no object 9"),
        (errno.EOPNOTSUPP, 5, "a slot of a PASID"),
        (errno.ENOTTY, None, "this kernel has no such call"),
        (errno.EIO, None, os.strerror(errno.EIO)),
    ],
)
def test_an_attach_that_is_refused(
    cdev: Cdev, monkeypatch: pytest.MonkeyPatch, number: int, pasid: int | None, because: str
) -> None:
    said = refused(monkeypatch, number, lambda: cdev.attach(9, pasid))
    slot = "0000:00:03.0 (vfio0)" + (f" PASID {pasid}" if pasid else "")
    assert isinstance(said, KernelRefused)
    assert said.errno == number
    assert said.what.startswith(f"the kernel refused VFIO_DEVICE_ATTACH_IOMMUFD_PT of table 9 to {slot}: E")
    assert because in said.because


def test_other_calls_that_are_refused(cdev: Cdev, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not bound" in refused(monkeypatch, errno.EINVAL, cdev.detach).because
    assert "not bound" in refused(monkeypatch, errno.EINVAL, cdev.info).because
    assert "no such region" in refused(monkeypatch, errno.EINVAL, lambda: cdev.region(77)).because
    said = refused(monkeypatch, errno.EINVAL, lambda: cdev.dma_buf(2, 0x800, 0x1000))
    assert said.because.startswith("0x800+0x1000 is not in BAR 2")
    assert "CONFIG_VFIO_PCI_DMABUF" in refused(monkeypatch, errno.ENOTTY, lambda: cdev.dma_buf(2, 0, 4096)).hint
    assert "no BAR 3" in refused(monkeypatch, errno.ENODEV, lambda: cdev.dma_buf(3, 0, 4096)).because
