# SPDX-License-Identifier: Apache-2.0
"""What the keeper of a state folder holds, for a test that looks at it from outside."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iommuctl.iommufd.evidence import exists
from iommuctl.iommufd.keeper_client import Keeper
from tests.hardware.edu import Edu

MOST_OBJECTS = 100
"""More than any test makes."""


class Held:
    """Copies of descriptors: of devices, of named memory, of the iommufd."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def edu(self, rid: str) -> Edu:
        """An edu device that is bound."""
        found = self._keeper.get(f"vfio-{rid}")
        assert found is not None, f"the keeper does not hold {rid}: {self._keeper.names()}"
        return Edu(found)

    def memory(self, number: int) -> int:
        """The file of the named memory with that id."""
        found = self._keeper.get(f"memory-{number}")
        assert found is not None, f"the keeper does not hold memory {number}: {self._keeper.names()}"
        return found

    def read(self, number: int, offset: int, size: int) -> bytes:
        return os.pread(self.memory(number), size, offset)

    def write(self, number: int, offset: int, data: bytes) -> None:
        assert os.pwrite(self.memory(number), data, offset) == len(data)

    def objects(self) -> int:
        """How many objects the iommufd has, each looked up by its id: there may be holes between them."""
        descriptor = self._keeper.get("iommufd")
        if descriptor is None:
            return 0
        return sum(exists(descriptor, object_id) for object_id in range(1, MOST_OBJECTS))


@contextmanager
def held(folder: Path) -> Iterator[Held]:
    """What is held now. Nothing of it is kept open beyond the block."""
    keeper = Keeper.connect(folder)
    assert keeper is not None, "no keeper runs"
    try:
        yield Held(keeper)
    finally:
        keeper.close()
