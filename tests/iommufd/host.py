# SPDX-License-Identifier: Apache-2.0
"""A host made of files: the parts of /sys and /dev that are read, and a kernel that answers writes as Linux does."""

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from iommuctl.iommufd.sysfs import Sysfs
from iommuctl.model import Rid

NODE = "/dev/full"
"""A character device that nobody has open, to stand for that of VFIO. Tests run side by side, so none may open it."""
MSI = "0x00000000fee00000 0x00000000feefffff msi\n"


class Killed(BaseException):
    """Stands for SIGKILL: whatever the victim still tries does not happen."""


class Host:
    """Devices are made with `device`; `write` is what a process does with the files of drivers."""

    def __init__(self, folder: Path) -> None:
        self.sys = folder / "sys"
        self.dev = folder / "dev"
        self.cdev = True
        self.node = NODE
        self.empty_override = "(null)"
        self.matches: dict[str, set[str]] = {}
        self.broken: dict[str, int] = {}
        """By the end of a path, the error that a write to it gives."""
        self.shy: set[str] = set()
        """Drivers whose probe fails."""
        self.writes: list[tuple[str, str]] = []
        self.lives: int | None = None
        self.sysfs = Sysfs(str(self.sys), str(self.dev))
        for path in ("bus/pci/devices", "bus/pci/drivers", "class/iommu", "class/vfio-dev", "kernel/iommu_groups"):
            (self.sys / path).mkdir(parents=True)
        (self.dev / "vfio/devices").mkdir(parents=True)
        (self.sys / "bus/pci/drivers_probe").touch()

    def driver(self, name: str, matches: Iterable[str] = ()) -> None:
        """Load a driver, with the devices that are in its table."""
        folder = self.sys / "bus/pci/drivers" / name
        folder.mkdir()
        for file in ("bind", "unbind"):
            (folder / file).touch()
        self.matches[name] = set(matches)

    def device(
        self,
        rid: str,
        *,
        group: int | None = 1,
        unit: str | None = None,
        driver: str | None = None,
        override: str | None = None,
        class_code: int = 0x020000,
        config: bytes = bytes(256),
    ) -> Rid:
        """Plug a device in."""
        folder = self.sys / "devices/pci0000:00" / rid
        folder.mkdir(parents=True)
        texts = {"vendor": "0x8086", "device": "0x10d3", "class": f"{class_code:#08x}"}
        for name, text in (texts | {"driver_override": override or self.empty_override}).items():
            (folder / name).write_text(text + "\n")
        (folder / "config").write_bytes(config)
        (self.sys / "bus/pci/devices" / rid).symlink_to(f"../../../devices/pci0000:00/{rid}")
        if group is not None:
            self.member(group, rid, folder)
        if unit is not None:
            (folder / "iommu").symlink_to(self.sys / "class/iommu" / unit)
            (self.sys / "class/iommu" / unit / "devices" / rid).symlink_to(folder)
        if driver is not None:
            self._bind(rid, driver)
        return Rid.parse(rid)

    def member(self, group: int, name: str, folder: Path) -> None:
        """Put a device, of whatever bus, into an IOMMU group."""
        path = self.sys / "kernel/iommu_groups" / str(group)
        (path / "devices").mkdir(parents=True, exist_ok=True)
        (path / "type").write_text("DMA-FQ\n")
        (path / "reserved_regions").write_text(MSI)
        (path / "devices" / name).symlink_to(folder)
        (folder / "iommu_group").symlink_to(path)

    def state(self, rid: Rid) -> tuple[str | None, str | None, bool]:
        """What has to be as before: driver, driver_override and whether VFIO has the device."""
        device = self.sysfs.device(rid)
        return device.driver, device.driver_override, device.vfio is not None

    def write(self, path: str, text: str) -> None:
        """One write to a file below the root, as the kernel takes it."""
        if self.lives is not None:
            if self.lives == 0:
                raise Killed
            self.lives -= 1
        self.writes.append((path, text))
        for end, number in self.broken.items():
            if path.endswith(end):
                raise OSError(number, os.strerror(number), path)
        if not os.path.exists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        parts = path.split("/")
        match parts[-1]:
            case "driver_override":
                Path(path).write_text((text.strip() or self.empty_override) + "\n")
            case "drivers_probe":
                takers = [name for name in self.matches if self._takes(name, text)]
                if takers and self._driver(text) is None:
                    self._bind(text, takers[0])
            case "unbind":
                self._check(self._driver(text) == parts[-2], errno.ENODEV)
                self._unbind(text)
            case "bind":
                self._check(self._takes(parts[-2], text), errno.ENODEV)
                self._check(self._driver(text) is None, errno.EBUSY)
                self._bind(text, parts[-2])
            case other:
                raise AssertionError(f"nothing is written to {other}")

    def _check(self, holds: bool, number: int) -> None:
        if not holds:
            raise OSError(number, os.strerror(number))

    def _driver(self, rid: str) -> str | None:
        return self.sysfs.device(Rid.parse(rid)).driver

    def _takes(self, name: str, rid: str) -> bool:
        """vfio-pci has an empty table and takes what is sent to it by name."""
        override = self.sysfs.device(Rid.parse(rid)).driver_override
        return name not in self.shy and (name == override if override else rid in self.matches[name])

    def _bind(self, rid: str, driver: str) -> None:
        folder = self.sys / "bus/pci/devices" / rid
        (folder / "driver").symlink_to(self.sys / "bus/pci/drivers" / driver)
        if driver.startswith("vfio"):
            name = f"vfio{len(list((self.sys / 'class/vfio-dev').iterdir()))}"
            inner = folder / "vfio-dev" / name
            inner.mkdir(parents=True)
            (inner / "device").symlink_to(folder.resolve())
            (self.sys / "class/vfio-dev" / name).symlink_to(inner.resolve())
            if self.cdev:
                node = os.stat(self.node).st_rdev
                (inner / "dev").write_text(f"{os.major(node)}:{os.minor(node)}\n")
                (self.dev / "vfio/devices" / name).symlink_to(self.node)

    def _unbind(self, rid: str) -> None:
        folder = self.sys / "bus/pci/devices" / rid
        (folder / "driver").unlink()
        for inner in (folder / "vfio-dev").iterdir() if (folder / "vfio-dev").exists() else ():
            (self.dev / "vfio/devices" / inner.name).unlink(missing_ok=True)
            (self.sys / "class/vfio-dev" / inner.name).unlink()
        shutil.rmtree(folder / "vfio-dev", ignore_errors=True)
