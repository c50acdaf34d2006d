# SPDX-License-Identifier: Apache-2.0
"""VMIDs and ASIDs: what may not alias has a tag of its own, and numbers come back."""

import pytest

from iommuctl.errors import NoRoom
from iommuctl.model import Binding, Domain, Rid, Slot
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.register_bank import DEFAULTS
from iommuctl_smmuv3.tags import Tag, Tags
from tests.machine import DictRows

FEATURES = Features.of(DEFAULTS)
SLOT = Slot(Rid(0, 0, 1, 0), 5)


def domain(number: int, *, nest_parent: bool = False) -> Domain:
    return Domain(number, f"domain{number}", None, nest_parent, 48, (4096,))


def binding(parent: Domain, root: int, fmt: str = "smmuv3.stage-1-4k-48") -> Binding:
    return Binding(SLOT, parent, root, fmt)


def tags(features: Features = FEATURES) -> Tags:
    return Tags(DictRows(), features)


def test_domains() -> None:
    given = tags()
    kinds = [False, True, False, True]
    made = [domain(number, nest_parent=nest) for number, nest in enumerate(kinds, 1)]
    for each in made:
        given.create(each)
    assert [given.of_domain(each) for each in made] == [Tag(0, 1), Tag(1), Tag(0, 2), Tag(2)]
    given.destroy(made[0])
    given.destroy(made[1])
    given.create(domain(5, nest_parent=True))
    given.create(domain(6))
    assert [given.of_domain(domain(5, nest_parent=True)), given.of_domain(domain(6))] == [Tag(1), Tag(0, 1)]


def test_page_tables() -> None:
    """An ASID for each page table on each parent; the same table in two slots has one."""
    given = tags()
    one, other = domain(1, nest_parent=True), domain(2, nest_parent=True)
    for parent in (one, other):
        given.create(parent)
    pairs = [binding(one, 0x1000), binding(one, 0x2000), binding(other, 0x1000), binding(one, 0x1000, "another")]
    for pair in [*pairs, pairs[0]]:
        given.acquire(pair)
    assert [given.of(pair) for pair in pairs] == [Tag(1, 1), Tag(1, 2), Tag(2, 1), Tag(1, 3)]
    given.release(pairs[0])
    given.acquire(binding(one, 0x3000))
    assert given.of(binding(one, 0x3000)) == Tag(1, 4)
    given.release(pairs[0])
    given.acquire(binding(one, 0x4000))
    assert given.of(binding(one, 0x4000)) == Tag(1, 1)


@pytest.mark.parametrize(("wide", "limit"), [(False, 255), (True, 65535)])
def test_how_many_there_are(wide: bool, limit: int) -> None:
    given = tags(FEATURES._replace(asid16=wide, vmid16=not wide))
    for number in range(limit):
        given.create(domain(number))
    assert given.of_domain(domain(limit - 1)) == Tag(0, limit)
    with pytest.raises(NoRoom, match="no ASID is left"):
        given.create(domain(limit))
    given.create(domain(limit, nest_parent=True))
    given.acquire(binding(domain(limit, nest_parent=True), 0x1000))


def test_how_many_vmids_there_are() -> None:
    given = tags(FEATURES._replace(vmid16=False))
    for number in range(255):
        given.create(domain(number, nest_parent=True))
    with pytest.raises(NoRoom, match="no VMID is left"):
        given.create(domain(255, nest_parent=True))
