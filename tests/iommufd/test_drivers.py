# SPDX-License-Identifier: Apache-2.0
"""A device goes to vfio-pci and back: refusals that change nothing, and kills between any two writes."""

import errno
import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

import pytest

from iommuctl.errors import GroupNotViable, InUse, KernelRefused, NoSuchDevice, PermissionRefused, Unsupported
from iommuctl.iommufd.bounded import StillWriting
from iommuctl.iommufd.drivers import bind_to_vfio, give_back
from iommuctl.model import Rid
from tests.iommufd.host import Host, Killed

NIC = Rid(0, 0, 3, 0)
NAME = str(NIC)


class Before(NamedTuple):
    """How a device was found. `matches`: its driver knows it by its table."""

    driver: str | None
    override: str | None
    matches: bool = True


BEFORE = [
    Before(None, None),
    Before("e1000e", None),
    Before("e1000e", None, matches=False),
    Before("e1000e", "e1000e", matches=False),
    Before(None, "vfio-pci"),
    Before(None, "none"),
    Before("e1000e", "other"),
]


def plug(host: Host, before: Before) -> None:
    host.driver("e1000e", [NAME] if before.matches else [])
    host.driver("vfio-pci")
    host.device(NAME, driver=before.driver, override=before.override)


@pytest.mark.parametrize("before", BEFORE)
def test_there_and_back(host: Host, before: Before) -> None:
    plug(host, before)
    assert bind_to_vfio(host.sysfs, NIC, host.write) == before.driver
    assert host.state(NIC) == ("vfio-pci", "vfio-pci", True)
    assert give_back(host.sysfs, NIC, before.driver, before.override, host.write) == before.driver
    assert host.state(NIC) == (before.driver, before.override, False)


@pytest.mark.parametrize("before", BEFORE)
def test_killed_between_any_two_writes_and_repaired(host: Host, before: Before) -> None:
    """Killed after each number of writes of the way there, then after each of the way back; the third one repairs."""
    plug(host, before)
    found = host.state(NIC)
    states = set()
    for there in range(4):
        for on_the_way_back in range(6):
            kill(host, there, lambda: bind_to_vfio(host.sysfs, NIC, host.write))
            states.add(host.state(NIC))
            kill(host, on_the_way_back, lambda: give_back(host.sysfs, NIC, *before[:2], host.write))
            states.add(host.state(NIC))
            give_back(host.sysfs, NIC, *before[:2], host.write)
            assert host.state(NIC) == found
            host.writes.clear()
            give_back(host.sysfs, NIC, *before[:2], host.write)
            assert not host.writes
    assert len(states) >= 2


def kill(host: Host, lives: int, command: Callable[[], object]) -> None:
    host.lives = lives
    try:
        command()
    except Killed:
        pass
    finally:
        host.lives = None


def test_the_writes_in_their_order(host: Host) -> None:
    plug(host, Before("e1000e", None))
    bind_to_vfio(host.sysfs, NIC, host.write)
    folder = f"{host.sys}/bus/pci"
    assert host.writes == [
        (f"{folder}/devices/{NAME}/driver_override", "vfio-pci"),
        (f"{folder}/drivers/e1000e/unbind", NAME),
        (f"{folder}/drivers_probe", NAME),
    ]
    host.writes.clear()
    give_back(host.sysfs, NIC, "e1000e", None, host.write)
    assert host.writes == [
        (f"{folder}/devices/{NAME}/driver_override", "e1000e"),
        (f"{folder}/drivers/vfio-pci/unbind", NAME),
        (f"{folder}/drivers/e1000e/bind", NAME),
        (f"{folder}/devices/{NAME}/driver_override", "\n"),
    ]


@pytest.mark.parametrize("driver", ["vfio-pci", "vfio_variant"])
def test_a_device_that_a_vfio_driver_has_stays_with_it(host: Host, driver: str) -> None:
    host.driver("vfio-pci")
    host.driver("vfio_variant")
    host.device(NAME, driver=driver)
    assert bind_to_vfio(host.sysfs, NIC, host.write) == driver
    assert give_back(host.sysfs, NIC, driver, None, host.write) == driver
    assert host.writes == []


def test_another_driver_that_came_meanwhile_keeps_the_device(host: Host) -> None:
    host.driver("e1000e", [NAME])
    host.driver("other", [NAME])
    host.device(NAME, driver="other", override="vfio-pci")
    assert give_back(host.sysfs, NIC, "e1000e", None, host.write) == "other"
    assert host.state(NIC) == ("other", None, False)


def test_group_not_viable_names_every_device_in_the_way(host: Host) -> None:
    """The bridge, the one without driver, the one with pci-stub and that with vfio-pci are not."""
    plug(host, Before("e1000e", None))
    for name in ("nvme", "xhci_hcd", "pcieport", "pci-stub"):
        host.driver(name)
    host.device("0000:00:04.0", driver="nvme")
    host.device("0000:00:05.0", driver="xhci_hcd")
    host.device("0000:00:06.0", driver="pcieport", class_code=0x060400)
    host.device("0000:00:07.0")
    host.device("0000:00:08.0", driver="pci-stub")
    host.device("0000:00:09.0", driver="vfio-pci")
    with pytest.raises(GroupNotViable) as refused:
        bind_to_vfio(host.sysfs, NIC, host.write)
    assert refused.value.because.endswith(" 0000:00:04.0 (driver nvme), 0000:00:05.0 (driver xhci_hcd)")
    assert f"echo 0000:00:04.0 > {host.sys}/bus/pci/drivers/nvme/unbind" in refused.value.hint
    assert host.writes == []


def test_vfio_pci_that_is_not_loaded(host: Host) -> None:
    host.driver("e1000e", [NAME])
    host.device(NAME, driver="e1000e")
    with pytest.raises(KernelRefused, match=r"0000:00:03\.0 cannot go to vfio-pci") as refused:
        bind_to_vfio(host.sysfs, NIC, host.write)
    assert refused.value.hint == "modprobe vfio-pci"
    assert host.writes == []


def test_devices_that_vfio_pci_does_not_take(host: Host) -> None:
    host.driver("vfio-pci")
    bridge = host.device("0000:00:15.0", class_code=0x060400)
    lonely = host.device("0000:00:16.0", group=None)
    physical = host.device("0000:00:17.0", group=2)
    (host.sys / "bus/pci/devices/0000:00:17.0/sriov_numvfs").write_text("2\n")
    with pytest.raises(Unsupported, match="bridge"):
        bind_to_vfio(host.sysfs, bridge, host.write)
    with pytest.raises(Unsupported, match="behind no IOMMU"):
        bind_to_vfio(host.sysfs, lonely, host.write)
    with pytest.raises(InUse, match="2 virtual functions"):
        bind_to_vfio(host.sysfs, physical, host.write)
    assert host.writes == []


@pytest.mark.parametrize("before", BEFORE)
def test_a_probe_that_fails_leaves_all_as_before(host: Host, before: Before) -> None:
    plug(host, before)
    host.shy.add("vfio-pci")
    found = host.state(NIC)
    with pytest.raises(KernelRefused, match=r"vfio-pci did not take 0000:00:03\.0") as refused:
        bind_to_vfio(host.sysfs, NIC, host.write)
    assert "dmesg" in refused.value.hint
    assert host.state(NIC) == found


@pytest.mark.parametrize("where", ["driver_override", "e1000e/unbind", "drivers_probe"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOMEM])
def test_a_write_that_fails_leaves_all_as_before(host: Host, where: str, number: int) -> None:
    plug(host, Before("e1000e", None))
    found = host.state(NIC)
    host.broken[where] = number
    with pytest.raises(KernelRefused if number == errno.ENOMEM else PermissionRefused) as refused:
        bind_to_vfio(host.sysfs, NIC, host.write)
    assert where in refused.value.what
    assert getattr(refused.value, "errno", number) == number
    assert refused.value.hint
    assert host.state(NIC) == found


@pytest.mark.parametrize("step", [0, 1, 2])
def test_an_interrupt_leaves_all_as_before(host: Host, step: int) -> None:
    plug(host, Before("e1000e", None))
    found = host.state(NIC)
    interrupted: list[str] = []

    def write(path: str, text: str) -> None:
        if len(host.writes) == step and not interrupted:
            interrupted.append(path)
            raise KeyboardInterrupt
        host.write(path, text)

    with pytest.raises(KeyboardInterrupt):
        bind_to_vfio(host.sysfs, NIC, write)
    assert interrupted
    assert host.state(NIC) == found


def test_an_unbind_that_blocks(host: Host) -> None:
    plug(host, Before("e1000e", None))
    found = host.state(NIC)

    def write(path: str, text: str) -> None:
        if path.endswith("/unbind"):
            raise StillWriting(4711, 15.0)
        host.write(path, text)

    with pytest.raises(KernelRefused, match=r"does not finish `echo 0000:00:03\.0 > .*/unbind` within 15 s") as refused:
        bind_to_vfio(host.sysfs, NIC, write)
    assert refused.value.because == ("0000:00:03.0 is still in use by driver e1000e; process 4711 waits for the kernel")
    assert host.state(NIC) == found


def test_a_device_that_goes_away_in_the_middle(host: Host) -> None:
    plug(host, Before("e1000e", None))

    def write(path: str, text: str) -> None:
        host.write(path, text)
        if path.endswith("/unbind"):
            (host.sys / "bus/pci/devices" / NAME).unlink()
            shutil.rmtree(host.sys / "devices/pci0000:00" / NAME)

    with pytest.raises((NoSuchDevice, KernelRefused)):
        bind_to_vfio(host.sysfs, NIC, write)
    with pytest.raises(NoSuchDevice):
        give_back(host.sysfs, NIC, "e1000e", None, host.write)


def test_the_old_driver_is_gone(host: Host) -> None:
    plug(host, Before("e1000e", None))
    bind_to_vfio(host.sysfs, NIC, host.write)
    shutil.rmtree(host.sys / "bus/pci/drivers/e1000e")
    with pytest.raises(KernelRefused, match="e1000e/bind") as refused:
        give_back(host.sysfs, NIC, "e1000e", None, host.write)
    assert refused.value.because == "that driver is not loaded any more"
    assert host.state(NIC) == (None, None, False)
    host.driver("e1000e", [NAME])
    give_back(host.sysfs, NIC, "e1000e", None, host.write)
    assert host.state(NIC) == ("e1000e", None, False)


def test_a_device_that_is_held_open_is_not_taken(host: Host, terminal: int) -> None:
    host.node = os.ttyname(terminal)
    plug(host, Before("e1000e", None))
    bind_to_vfio(host.sysfs, NIC, host.write)
    host.writes.clear()
    with pytest.raises(InUse, match="cannot be taken from vfio-pci") as refused:
        give_back(host.sysfs, NIC, "e1000e", None, host.write)
    assert f"process {os.getpid()} (" in refused.value.because
    assert host.writes == []
