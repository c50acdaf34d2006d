# SPDX-License-Identifier: Apache-2.0
"""Units, drivers and VFIO devices of a real kernel: a virtual machine with VT-d, two edu devices and bridges.

The two edu devices at 00:10.0 and 00:11.0 have no driver, 04:00.0 is a virtio device with ATS and a driver, and
03:01.0 and 03:02.0 share a group behind a conventional bridge; 03:03.0 may be there with a driver, for a group that is
not viable.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from ctypes import Structure, sizeof
from fcntl import ioctl
from pathlib import Path

import pytest

from iommuctl.errors import (
    BackendUnavailable,
    GroupNotViable,
    InUse,
    IommuError,
    KernelRefused,
    NoSuchDevice,
    PermissionRefused,
)
from iommuctl.iommufd import drivers, uapi
from iommuctl.iommufd.bounded import write_bounded
from iommuctl.iommufd.drivers import bind_to_vfio, give_back
from iommuctl.iommufd.sysfs import Sysfs
from iommuctl.iommufd.vfio import Cdev
from iommuctl.model import Rid
from iommuctl_vtd.host import registers

SYSFS = Sysfs()
EDU, OTHER_EDU, VIRTIO = Rid(0, 0, 0x10, 0), Rid(0, 0, 0x11, 0), Rid(0, 4, 0, 0)
PORT = Rid(0, 0, 0x13, 0)
SHARED = Rid(0, 3, 1, 0), Rid(0, 3, 2, 0)
IN_THE_WAY = Rid(0, 3, 3, 0)
NOBODY = 65534


class Killed(BaseException):
    """Stands for SIGKILL between two writes."""


def state(rid: Rid) -> tuple[str | None, str | None]:
    device = SYSFS.device(rid)
    return device.driver, device.driver_override


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Whatever a test does, drivers and overrides are as before at its end."""
    before = {device.rid: state(device.rid) for device in SYSFS.devices()}
    yield
    after = {rid: state(rid) for rid in before}
    for rid, (driver, override) in before.items():
        give_back(SYSFS, rid, driver, override)
    assert after == before


@pytest.fixture
def bound() -> Iterator[Callable[[Rid], str]]:
    """Binds devices to vfio-pci, for the time of the test, and gives the names of their cdevs."""
    found: list[tuple[Rid, str | None, str | None]] = []

    def bind(rid: Rid) -> str:
        found.append((rid, *state(rid)))
        bind_to_vfio(SYSFS, rid)
        cdev = SYSFS.device(rid).cdev
        assert cdev
        return cdev

    yield bind
    for one in found:
        give_back(SYSFS, *one)


@pytest.fixture
def iommufd() -> Iterator[int]:
    fd = os.open("/dev/iommu", os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture
def cdevs(bound: Callable[[Rid], str]) -> Iterator[Callable[[Rid], Cdev]]:
    """Opens devices, which are closed before their drivers come back."""
    opened: list[Cdev] = []

    def open_cdev(rid: Rid) -> Cdev:
        opened.append(Cdev.open(bound(rid)))
        return opened[-1]

    yield open_cdev
    for cdev in opened:
        cdev.close()


def call(fd: int, request: int, argument: Structure) -> None:
    argument.size = sizeof(argument)
    ioctl(fd, request, argument)


def address_space(iommufd: int) -> int:
    alloc = uapi.iommu_ioas_alloc()
    call(iommufd, uapi.IOMMU_IOAS_ALLOC, alloc)
    return int(alloc.out_ioas_id)


def map_page(iommufd: int, ioas: int, iova: int) -> None:
    memory = os.memfd_create("page")
    os.truncate(memory, 4096)
    flags = uapi.IOMMU_IOAS_MAP_FIXED_IOVA | uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE
    argument = uapi.iommu_ioas_map_file(flags=flags, ioas_id=ioas, fd=memory, start=0, length=4096, iova=iova)
    call(iommufd, uapi.IOMMU_IOAS_MAP_FILE, argument)
    os.close(memory)


def refusal(kind: type[IommuError], command: Callable[[], object]) -> IommuError:
    with pytest.raises(kind) as refused:
        command()
    print(refused.value)
    return refused.value


def test_the_registers_of_the_unit_are_those_that_debugfs_shows() -> None:
    (unit,) = [unit for unit in SYSFS.units() if unit.kind == "intel-iommu"]
    regset = Path("/sys/kernel/debug/iommu/intel/iommu_regset")
    if not regset.exists():
        pytest.skip("needs debugfs at /sys/kernel/debug, and CONFIG_INTEL_IOMMU_DEBUGFS")
    shown = dict(re.findall(r"^(\w+)\s+0x\w+\s+0x(\w+)$", regset.read_text(), re.MULTILINE))
    assert registers(unit) == {name: int(shown[name], 16) for name in ("VER", "CAP", "ECAP")}


def test_every_device_is_behind_the_unit() -> None:
    (unit,) = [unit for unit in SYSFS.units() if unit.kind == "intel-iommu"]
    devices = SYSFS.devices()
    assert [str(device.rid) for device in devices] == sorted(os.listdir("/sys/bus/pci/devices"))
    assert [device.rid for device in devices] == list(unit.devices)
    assert {device.unit for device in devices} == {unit.name}


def test_what_devices_are_and_can_do() -> None:
    edu, virtio, port = (SYSFS.device(rid) for rid in (EDU, VIRTIO, PORT))
    assert (edu.vendor, edu.device, edu.driver, edu.driver_override) == (0x1234, 0x11E8, None, None)
    assert (edu.ats, edu.pri, edu.pasid_bits) == (False, False, 0)
    assert (virtio.driver, virtio.ats) == ("virtio-pci", True)
    assert (port.driver, port.class_code >> 8) == ("pcieport", 0x0604)


def test_a_group_with_its_reserved_ranges() -> None:
    number = SYSFS.device(SHARED[0]).group
    assert number is not None
    group = SYSFS.group(number)
    assert group.type in ("DMA", "DMA-FQ")
    assert [str(member.rid) for member in group.members if member.bridge] == ["0000:00:15.0"]
    assert set(SHARED) <= {member.rid for member in group.members}
    assert (0xFEE0_0000, 0xFEEF_FFFF, "msi") in group.reserved


@pytest.mark.parametrize("rid", [EDU, VIRTIO])
def test_to_vfio_and_back(rid: Rid) -> None:
    before = state(rid)
    assert bind_to_vfio(SYSFS, rid) == before[0]
    device = SYSFS.device(rid)
    assert (device.driver, device.driver_override) == ("vfio-pci", "vfio-pci")
    assert device.cdev
    assert SYSFS.rid_of(device.cdev) == rid
    assert bind_to_vfio(SYSFS, rid) == "vfio-pci"
    assert give_back(SYSFS, rid, *before) == before[0]
    assert state(rid) == before
    assert give_back(SYSFS, rid, *before) == before[0]


def killed_after(number: int) -> drivers.Writer:
    """Writes by this process, as many as it lives for."""
    left = [number]

    def write(path: str, text: str) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        Path(path).write_text(text)

    return write


@pytest.mark.parametrize("rid", [EDU, VIRTIO])
def test_killed_between_any_two_writes_and_repaired(rid: Rid) -> None:
    before = state(rid)
    seen = set()
    for there in range(4):
        for on_the_way_back in range(5):
            with suppress(Killed):
                bind_to_vfio(SYSFS, rid, killed_after(there))
            seen.add(state(rid))
            with suppress(Killed):
                give_back(SYSFS, rid, *before, killed_after(on_the_way_back))
            seen.add(state(rid))
            give_back(SYSFS, rid, *before, killed_after(9))
            assert state(rid) == before
    print(f"{len(seen)} states: {sorted(seen, key=str)}")
    assert len(seen) >= 3


def test_both_devices_of_a_group_in_one_iommufd(cdevs: Callable[[Rid], Cdev], iommufd: int) -> None:
    """The group has one page table: a sibling that is to have another one is refused."""
    if os.path.exists(SYSFS.device_path(IN_THE_WAY)):
        pytest.skip("the group is not viable here")
    first, second = (cdevs(rid) for rid in SHARED)
    assert first.bind(iommufd) != second.bind(iommufd)
    first.attach(address_space(iommufd))
    said = refusal(KernelRefused, lambda: second.attach(address_space(iommufd)))
    assert "another device of its IOMMU group has another page table" in said.because
    first.detach()


def test_a_group_has_one_iommufd(cdevs: Callable[[Rid], Cdev], iommufd: int) -> None:
    if os.path.exists(SYSFS.device_path(IN_THE_WAY)):
        pytest.skip("the group is not viable here")
    first, second = (cdevs(rid) for rid in SHARED)
    first.bind(iommufd)
    other = os.open("/dev/iommu", os.O_RDWR)
    said = refusal(KernelRefused, lambda: second.bind(other))
    os.close(other)
    assert f"bound to another iommufd: open in process {os.getpid()}" in said.because


@pytest.mark.group
def test_a_group_that_is_not_viable(iommufd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(GroupNotViable, lambda: bind_to_vfio(SYSFS, SHARED[0]))
    assert f"{IN_THE_WAY} (driver virtio-pci)" in said.because
    assert SYSFS.device(SHARED[0]).driver is None
    monkeypatch.setattr(drivers, "check_viable", lambda *_: None)
    bind_to_vfio(SYSFS, SHARED[0])
    cdev = Cdev.open(SYSFS.device(SHARED[0]).cdev or "")
    refusal(GroupNotViable, lambda: cdev.bind(iommufd))
    cdev.close()
    give_back(SYSFS, SHARED[0], None, None)


def test_a_probe_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """vfio-pci refuses a port in its probe; our own look before is left out."""
    refusal(IommuError, lambda: bind_to_vfio(SYSFS, PORT))
    monkeypatch.setattr(drivers, "_check_vfio_can_take", lambda *_: None)
    said = refusal(KernelRefused, lambda: bind_to_vfio(SYSFS, PORT))
    assert said.what == f"vfio-pci did not take {PORT}"
    assert "failed with error -22" in said.because
    assert state(PORT) == ("pcieport", None)


def test_bind_info_and_regions(cdevs: Callable[[Rid], Cdev], iommufd: int) -> None:
    cdev = cdevs(EDU)
    assert "not bound" in refusal(KernelRefused, cdev.info).because
    assert cdev.bind(iommufd) > 0
    assert cdev.info().regions == 9
    assert cdev.region(0).size == 1 << 20
    assert cdev.region(0).mappable
    assert cdev.region(3).size == 0


def test_a_bar_as_a_dma_buf(cdevs: Callable[[Rid], Cdev], iommufd: int) -> None:
    cdev = cdevs(EDU)
    cdev.bind(iommufd)
    fd = cdev.dma_buf(0, 0x1000, 0x2000)
    assert os.lseek(fd, 0, os.SEEK_END) == 0x2000
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert "BAR 0" in refusal(KernelRefused, lambda: cdev.dma_buf(0, 0x800, 0x1000)).because
    assert "BAR 0" in refusal(KernelRefused, lambda: cdev.dma_buf(0, 0, 2 << 20)).because
    assert "no BAR 3" in refusal(KernelRefused, lambda: cdev.dma_buf(3, 0, 0x1000)).because


def test_a_second_bind(cdevs: Callable[[Rid], Cdev], iommufd: int) -> None:
    """By the same descriptor, and by another one while a process has inherited the first."""
    cdev = cdevs(EDU)
    cdev.bind(iommufd)
    assert "this process may have bound it" in refusal(KernelRefused, lambda: cdev.bind(iommufd)).because
    pid = os.posix_spawnp("sleep", ["sleep", "60"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, cdev.fd, 9)])
    second = Cdev.open(cdev.name)
    cdev.close()
    said = refusal(KernelRefused, lambda: second.bind(iommufd))
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert f"process {pid} (sleep) has the node open" in said.because
    assert f"exec --device {EDU}" in said.hint
    second.bind(iommufd)
    second.close()


def test_a_bind_while_the_older_interface_is_in_use(cdevs: Callable[[Rid], Cdev], iommufd: int) -> None:
    cdev = cdevs(EDU)
    legacy = os.open(f"/dev/vfio/{SYSFS.device(EDU).group}", os.O_RDWR)
    said = refusal(KernelRefused, lambda: cdev.bind(iommufd))
    os.close(legacy)
    assert "the older interface is in use" in said.because
    assert f"process {os.getpid()} (" in said.because


def test_something_that_is_no_iommufd(cdevs: Callable[[Rid], Cdev]) -> None:
    with open("/dev/null") as null:
        assert "no /dev/iommu" in refusal(KernelRefused, lambda: cdevs(EDU).bind(null.fileno())).because


def test_attach_replace_and_detach(cdevs: Callable[[Rid], Cdev], iommufd: int) -> None:
    cdev = cdevs(EDU)
    cdev.bind(iommufd)
    first, second = address_space(iommufd), address_space(iommufd)
    table = cdev.attach(first)
    assert table not in (first, second)
    assert cdev.attach(second) not in (first, second, table)
    cdev.detach()
    cdev.detach()
    assert "no object 4711" in refusal(KernelRefused, lambda: cdev.attach(4711)).because


def test_an_attach_with_mappings_in_reserved_ranges(cdevs: Callable[[Rid], Cdev], iommufd: int) -> None:
    cdev = cdevs(EDU)
    cdev.bind(iommufd)
    ioas = address_space(iommufd)
    map_page(iommufd, ioas, 0xFEE0_0000)
    said = refusal(KernelRefused, lambda: cdev.attach(ioas))
    assert "0xfee00000..0xfeefffff (msi)" in said.because


def test_a_device_that_is_held_open_is_not_taken_from_vfio(cdevs: Callable[[Rid], Cdev]) -> None:
    cdev = cdevs(EDU)
    said = refusal(InUse, lambda: give_back(SYSFS, EDU, None, None))
    assert f"process {os.getpid()} (" in said.because
    assert state(EDU) == ("vfio-pci", "vfio-pci")
    assert SYSFS.device(EDU).cdev == cdev.name


def test_an_unbind_that_blocks_is_given_up_and_finished_later(
    cdevs: Callable[[Rid], Cdev], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look for holders is left out. The kernel finishes when the device is closed."""
    cdev = cdevs(EDU)
    monkeypatch.setattr(drivers, "_check_not_held", lambda *_: None)
    said = refusal(
        KernelRefused, lambda: give_back(SYSFS, EDU, None, None, lambda path, text: write_bounded(path, text, 1))
    )
    assert "does not finish" in said.what
    assert f"open in process {os.getpid()} (" in said.because
    assert SYSFS.device(EDU).driver_override is None
    cdev.close()
    pid = int(re.findall(r"process (\d+) waits", said.because)[0])
    os.waitpid(pid, 0)
    assert give_back(SYSFS, EDU, None, None) is None


def test_a_cdev_whose_node_is_gone(bound: Callable[[Rid], str], tmp_path: Path) -> None:
    name = bound(EDU)
    node = SYSFS.node(name)
    os.rename(node, node + "-away")
    try:
        assert (SYSFS.device(EDU).vfio, SYSFS.device(EDU).cdev) == (name, None)
        said = refusal(BackendUnavailable, lambda: Cdev.open(name))
    finally:
        os.rename(node + "-away", node)
    number = os.stat(node).st_rdev
    assert f"mknod {node} c {os.major(number)} {os.minor(number)}" in said.hint


def test_a_device_that_is_unplugged() -> None:
    rid = Rid(0, 0, 0x12, 0)
    Path(SYSFS.device_path(rid, "remove")).write_text("1")
    try:
        refusal(NoSuchDevice, lambda: bind_to_vfio(SYSFS, rid))
        refusal(NoSuchDevice, lambda: give_back(SYSFS, rid, None, None))
    finally:
        Path("/sys/bus/pci/rescan").write_text("1")


def test_without_root(bound: Callable[[Rid], str]) -> None:
    """In a child that gives root up: nothing can be changed or opened, and capabilities are not known."""
    name = bound(OTHER_EDU)
    pid = os.fork()
    if pid == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            refusal(PermissionRefused, lambda: bind_to_vfio(SYSFS, VIRTIO))
            refusal(PermissionRefused, lambda: give_back(SYSFS, OTHER_EDU, None, None))
            refusal(PermissionRefused, lambda: Cdev.open(name))
            assert SYSFS.device(VIRTIO).ats is None
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert state(VIRTIO) == ("virtio-pci", None)


@pytest.mark.skipif("intremap=off" not in Path("/proc/cmdline").read_text(), reason="interrupts are remapped here")
def test_interrupts_that_are_not_isolated(cdevs: Callable[[Rid], Cdev], iommufd: int) -> None:
    said = refusal(KernelRefused, lambda: cdevs(EDU).bind(iommufd))
    assert "allow_unsafe_interrupts" in said.hint
    assert errno.errorcode[errno.EPERM] in said.what
