# SPDX-License-Identifier: Apache-2.0
"""What all suites stand on: a fresh state folder with two devices and some memory."""

import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest

from iommuctl.capabilities import Capabilities
from iommuctl.iommu import Iommu
from iommuctl.model import Memory
from iommuctl.testing.probes import RAM, RAM_SIZE


class BackendSuite:
    """Base of the suites. Subclasses set the attributes, and override the fixtures where their backend differs."""

    backend: ClassVar[str] = ""
    """The backend's name."""
    architecture: ClassVar[str | None] = None
    """Which architecture a simulator is to simulate; None leaves the choice to it."""
    options: ClassVar[Mapping[str, str]] = {}
    """Options of `sim init` for simulators, to test another configuration."""
    declares: ClassVar[Capabilities | None] = None
    """What the backend is meant to declare. None takes its word for it."""
    rids: ClassVar[tuple[str, str]] = ("0000:00:01.0", "0000:00:02.0")
    """Two devices, each with as many PASID bits as the backend declares. On a simulator they are made."""
    largest: ClassVar[int] = 1 << 30
    """The largest pages to try, in bytes. Hardware needs memory for two of them, which cannot be swapped."""
    ats: ClassVar[bool] = False
    """Whether the devices that are made on a simulator have ATS."""

    @classmethod
    def open(cls, folder: Path) -> Iommu:
        """The backend in a state folder that does not exist yet."""
        iommu = Iommu(folder, backend=cls.backend)
        if cls.architecture or cls.options:
            iommu.setup(architecture=cls.architecture, options=cls.options)
        return iommu

    @classmethod
    @cache
    def declared(cls) -> Capabilities:
        """What selects the tests: the author's `declares`, else what the backend says."""
        if cls.declares is not None:
            return cls.declares
        with tempfile.TemporaryDirectory(prefix="iommuctl-") as folder, cls.open(Path(folder)) as iommu:
            return iommu.capabilities()

    @classmethod
    def furnish(cls, iommu: Iommu) -> None:
        """Make what every test finds in its folder. Hardware's devices are there, and are bound where they are not."""
        declared = cls.declared()
        if declared.simulates:
            for rid in cls.rids:
                iommu.device_add(rid, ats=cls.ats, pasid_bits=declared.pasid_bits)
        iommu.memory_create(RAM, RAM_SIZE)
        # Before any domain, as some backends know by their devices alone what pages there are.
        for rid in cls.rids:
            if not iommu.device(rid).bound:
                iommu.device_bind(rid)

    @pytest.fixture
    def iommu(self, tmp_path: Path) -> Iterator[Iommu]:
        """A fresh state folder with two devices and some memory. At the end, tables and rows must agree."""
        with self.open(tmp_path / "state") as iommu:
            self.furnish(iommu)
            yield iommu
            iommu.dry_run = False
            assert iommu.check() == []

    @pytest.fixture
    def rid1(self) -> str:
        """The first device."""
        return self.rids[0]

    @pytest.fixture
    def rid2(self) -> str:
        """The second device."""
        return self.rids[1]

    @pytest.fixture
    def ram(self, iommu: Iommu) -> Memory:
        """The named memory that the domains of the tests map."""
        return iommu.memory(RAM)

    @pytest.fixture
    def page(self) -> int:
        """The smallest page size."""
        return self.declared().page_sizes[0]

    @pytest.fixture
    def pasids(self) -> list[int | None]:
        """Slots of a device to try: the RID's own, and two PASIDs where there are any."""
        return [None, 1, 2] if self.declared().pasid_bits > 1 else [None]
