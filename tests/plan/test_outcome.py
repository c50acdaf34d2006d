# SPDX-License-Identifier: Apache-2.0
"""What applying a document tells: the commands, words and warnings of every call, also where a step takes several."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuctl import Iommu
from iommuctl.plan.applying import apply
from iommuctl.plan.reading import read
from iommuctl.plan.source import Source
from iommuctl.session import Outcome

DOCUMENT = """
schema = 1
[domain.vm]
nest_parent = true
mappings = [{ iova = 0, size = "16M", pa = "0x40000000" }]
[pgtable.process]
parent = "vm"
pool = "8M+64K"
mappings = [
    { iova = "1G", size = "8K", gpa = "1M" },
    { iova = "2G", size = "8K", gpa = "2M" },
]
[device."0000:00:01.0"]
ats = true
pasid_bits = 8
bindings = [{ pasid = 1, domain = "vm", pgtable = "process" }, { pasid = 2, domain = "vm", pgtable = "process" }]
"""


@pytest.fixture
def iommu(tmp_path: Path) -> Iterator[Iommu]:
    with Iommu(tmp_path / "state", backend="sim") as opened:
        yield opened


def applied(iommu: Iommu, text: str, *, dry_run: bool = False) -> Outcome:
    source = Source("file", text)
    iommu.dry_run = dry_run
    outcome = apply(iommu, source, read(source)).outcome
    iommu.dry_run = False
    return outcome


def test_each_slot_of_a_page_table_is_invalidated_and_all_of_it_told(iommu: Iommu) -> None:
    applied(iommu, DOCUMENT)
    changed = DOCUMENT.replace('gpa = "1M"', 'gpa = "3M"')
    commands = applied(iommu, changed, dry_run=True).commands
    assert applied(iommu, changed).commands == commands
    told = [command.fields["PASID"] for command in commands if command.name == "vtd.pasid-iotlb-invalidate"]
    assert told == [1, 2]


def test_a_dry_run_shows_the_words_of_all_mappings_of_a_page_table(iommu: Iommu) -> None:
    applied(iommu, DOCUMENT.replace("mappings = [\n", "mappings = [] # [\n").split("[pgtable.")[0])
    words = [write.new for write in applied(iommu, DOCUMENT, dry_run=True).writes]
    pages = [gpa + page for gpa in (0x10_0000, 0x20_0000) for page in (0, 0x1000)]
    assert [word & ~0xFFF for word in words if word & ~0xFFF in pages and word & 0xFFF] == pages
