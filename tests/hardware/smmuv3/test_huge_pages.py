# SPDX-License-Identifier: Apache-2.0
"""Guest memory in huge pages of hugetlbfs, with tables in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuctl.formats.memory import FileMemory
from tests.hardware.conftest import lacking
from tests.hardware.held import held
from tests.hardware.shell import Shell
from tests.hardware.smmuv3.nest import RID

_RESERVED = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
SIZE = 2 << 20


@pytest.fixture
def reserved() -> Iterator[None]:
    """One huge page."""
    if not _RESERVED.exists():
        lacking("the kernel has no huge pages of 2 MiB (CONFIG_HUGETLBFS)")
    before = _RESERVED.read_text("ascii")
    _RESERVED.write_text("1", "ascii")
    yield
    _RESERVED.write_text(before, "ascii")


@pytest.mark.usefixtures("reserved")
def test_a_page_table_in_them(shell: Shell, state: Path) -> None:
    """hugetlbfs takes no write(2), and what a table's words become is written when there is no way back any more."""
    shell.batch(f"""
    device bind {RID}
    memory create ram --size 2M --hugepages
    domain create vm --nest-parent
    domain map vm --iova 0 --size 2M --memory ram
    attach vm {RID}
    pgtable create t --parent vm --pool 1M+64K
    pgtable map t --iova 64M --size 64K --gpa 0
    bind-pgtable vm {RID} --pgtable t
    pgtable map t --iova 80M --size 64K --gpa 64K
    """)
    with held(state) as machine:
        view = FileMemory(machine.memory(1), 0, SIZE)
        view.write(0, b"huge")
        machine.edu(RID).load(64 << 20, 4)
        machine.edu(RID).store(80 << 20, 4)
        assert view.read(64 << 10, 4) == b"huge"
    assert shell("check").startswith("ok")
