# SPDX-License-Identifier: Apache-2.0
"""A real machine as one transaction sees it: the keeper, the iommufd that it holds, and the rows about them."""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from iommuctl.errors import Lost
from iommuctl.hookspecs import HardwareContext
from iommuctl.iommufd.keeper_client import Keeper
from iommuctl.iommufd.session import Iommufd
from iommuctl.kernel.records import Records
from iommuctl.kernel.vendor import Devices, Slots, Vendor
from iommuctl.model import Call

if TYPE_CHECKING:
    from iommuctl.iommufd.session import Log

IOMMUFD = "iommufd"
"""The name under which the keeper holds it."""


class Connection:
    """The connection to the keeper of a state folder, kept from one transaction to the next."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keeper: Keeper | None = None

    def running(self) -> Keeper | None:
        """The keeper, if there is one now."""
        if self._keeper is not None and not self._keeper.is_there():
            self.close()
        if self._keeper is None:
            self._keeper = Keeper.connect(self._folder)
        return self._keeper

    def started(self) -> Keeper:
        """The keeper, started if there is none."""
        found = self.running()
        if found is None:
            found = self._keeper = Keeper.start(self._folder)
        return found

    def close(self) -> None:
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None


class Machine:
    """What the operations of this package work on."""

    def __init__(self, context: HardwareContext, vendor: Vendor) -> None:
        self.context = context
        self.vendor = vendor
        self.records = Records(context.rows, vendor.name)

    @property
    def dry(self) -> bool:
        """Whether calls are logged and not made."""
        return self.context.dry_run

    @cached_property
    def devices(self) -> Devices:
        return self.vendor.devices(self)

    @cached_property
    def slots(self) -> Slots:
        return self.vendor.slots(self)

    @property
    def log(self) -> "Log":
        """Notes a call to the kernel, for `calls[]`."""

        def note(name: str, fields: Mapping[str, int]) -> None:
            self.context.log_call(Call(name, fields))

        return note

    def lost(self) -> str:
        """Why the objects that rows name are gone; "" when they are there, or when there never were any."""
        boot = self.records.boot
        if boot is None:
            return ""
        keeper = self.context.kept(Connection).running()
        if keeper is None:
            return "the keeper, whose file descriptors they lived by, does not run"
        if keeper.boot != boot:
            return "the keeper was started anew, without the file descriptors that they lived by"
        return ""

    @cached_property
    def keeper(self) -> Keeper:
        """The keeper that holds our objects; before the first of them it is started. Raises Lost."""
        if because := self.lost():
            raise Lost.all_of_it(because)
        found = self.context.kept(Connection).started()
        if self.records.boot is None and not self.dry:
            self.records.boot = found.boot
        return found

    @cached_property
    def iommufd(self) -> Iommufd:
        """Our /dev/iommu, opened at the first use. Raises Lost, BackendUnavailable, PermissionRefused."""
        if self.dry and self.records.boot is None:
            return Iommufd(None, log=self.log, dry=True)
        held = self.keeper.get(IOMMUFD)
        if held is None:
            held = self._open()
        return Iommufd(held, log=self.log, dry=self.dry)

    def _open(self) -> int:
        opened = Iommufd.open()
        try:
            # What a killed command put there before any row named it is found above, and used.
            self.keeper.put(IOMMUFD, opened.fd)
        finally:
            os.close(opened.fd)
        held = self.keeper.get(IOMMUFD)
        assert held is not None
        return held

    def keep(self, name: str, descriptor: int) -> None:
        """Have the keeper hold a descriptor, unless nothing is to be done."""
        if not self.dry:
            self.keeper.put(name, descriptor)

    def kept(self, name: str) -> int | None:
        """What the keeper holds under a name. It belongs to the connection."""
        if self.dry and self.records.boot is None:
            return None
        return self.keeper.get(name)

    def drop(self, name: str) -> None:
        """Have whatever keeper runs let go of a name, unless nothing is to be done."""
        if not self.dry and (running := self.context.kept(Connection).running()):
            running.drop(name)

    def intend(self, intent: dict[str, object]) -> None:
        """Note what is about to be done, unless nothing is."""
        if not self.dry:
            self.context.intend(intent)
