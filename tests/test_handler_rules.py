# SPDX-License-Identifier: Apache-2.0
"""What a handler must be to be stored, and what becomes of one whose memory or domain goes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuctl import Iommu
from iommuctl.errors import InUse, IommuError
from iommuctl.handlers import Handler, HandlerOf, Pages
from tests.serving.asking import A

GUEST_RAM, POOL = 1 << 20, 0x80000


@pytest.fixture
def iommu(tmp_path: Path) -> Iterator[Iommu]:
    """A domain d, and a nest parent with a page table; the RID is attached to the parent, PASID 3 holds the table."""
    with Iommu(tmp_path / "state", backend="sim") as made:
        made.device_add(A, ats=True, pri=True, pasid_bits=8)
        made.memory_create("m", 0x4000)
        made.domain_create("d")
        made.domain_create("parent", nest_parent=True)
        made.map("parent", iova=0, size=GUEST_RAM, pa=32 << 20)
        made.map("parent", iova=GUEST_RAM, size=GUEST_RAM, pa=0x100000, prot="rw")
        made.attach("parent", A)
        made.pgtable_create("t", parent="parent", pool=POOL, pool_size=0x40000)
        made.bind_pgtable("parent", A, pgtable="t", pasid=3)
        made.bind_pgtable("parent", A, addr=0x10000, pasid=4)
        yield made


@pytest.mark.parametrize(
    "handler",
    [
        Handler("exec"), Handler("queue", ("true",)), Handler("exec", ("true",), Pages("m", 0, 0x1000)),
        Handler("demand-map"), Handler("reject", pages=Pages("m", 0, 0x1000)),
    ],
)  # fmt: skip
def test_what_belongs_to_a_kind(iommu: Iommu, handler: Handler) -> None:
    with pytest.raises(IommuError) as error:
        iommu.handler_set("d", handler)
    assert error.value.id == "usage"
    assert iommu.handlers() == []


def test_programs_are_stored_by_their_paths(iommu: Iommu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program"
    program.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"/nowhere{os.pathsep}{tmp_path}")
    for name in ("program", "./program", str(program)):
        iommu.handler_set("d", Handler("exec", (name, "./an argument", "")))
        assert iommu.handlers()[0].handler.program == (str(program), "./an argument", "")
        iommu.handler_clear("d")
    program.chmod(0o644)
    for name, kind, because in (
        ("./program", "permission", "it is no file that this user may execute"),
        (str(tmp_path), "permission", "it is no file that this user may execute"),
        ("./other", "system", "there is no such file"),
        ("other", "system", "it is in no directory of PATH"),
        ("", "system", "it is in no directory of PATH"),
    ):
        with pytest.raises(IommuError) as error:
            iommu.handler_set("d", Handler("exec", (name,)))
        assert (error.value.id, error.value.because) == (kind, because)


@pytest.mark.parametrize(
    ("owner", "pasid", "pages", "kind"),
    [
        ("d", None, Pages("nobody", 0, 0x1000), "no-such-memory"),
        ("d", None, Pages("m", 0, 0x5000), "outside-memory"),
        ("d", None, Pages("m", 0x4000, 0x1000), "outside-memory"),
        ("d", None, Pages("m", 0x10, 0x1000), "misaligned"),
        ("d", None, Pages("m", 0, 0x1010), "misaligned"),
        ("d", None, Pages("m", 0, 0), "zero-size"),
        ("d", None, Pages("m", 0, 0x1000, 0x10), "misaligned"),
        ("d", None, Pages("m", 0, 0x1000, 0x2000), "misaligned"),
        ("d", None, Pages(None, 0x1F0000000, 0x1000), "reserved-range"),
        ("d", None, Pages(None, 1 << 50, 0x1000), "outside-memory"),
        ("d", None, Pages(None, (1 << 64) - 0x1000, 0x1000), "outside-memory"),
        ("d", None, Pages(None, -0x1000, 0x1000), "bad-number"),
        ("parent", None, Pages("m", 0, 0x1000), "usage"),
        ("parent", None, Pages(None, 2 * GUEST_RAM - 0x1000, 0x2000), "outside-memory"),
        ("parent", None, Pages(None, 1 << 63, 0x1000), "out-of-aperture"),
        ("parent", None, Pages(None, POOL + 0x1000, 0x1000), "reserved-range"),
        (str(A), 3, Pages(None, 1 << 30, 0x1000), "outside-memory"),
        (str(A), 4, Pages(None, 0x10000, 0x1000), "unsupported"),
        (str(A), 7, Pages("nobody", 0, 0x1000), "no-such-memory"),
        (str(A), 7, Pages(None, 0x800, 0x1000), "misaligned"),
    ],
)
def test_pages_that_are_none(iommu: Iommu, owner: str, pasid: int | None, pages: Pages, kind: str) -> None:
    with pytest.raises(IommuError) as error:
        iommu.handler_set(owner, Handler("demand-map", pages=pages), pasid=pasid)
    assert error.value.id == kind
    assert iommu.handlers() == []


@pytest.mark.parametrize(
    ("owner", "pasid", "pages"),
    [
        ("d", None, Pages("id:1", 0x1000, 0x3000)),
        ("d", None, Pages(None, 0x100000, 0x3000)),
        ("parent", None, Pages(None, GUEST_RAM - 0x1000, 0x2000)),
        (str(A), 3, Pages(None, GUEST_RAM, GUEST_RAM)),
        (str(A), 7, Pages("m", 0, 0x4000)),
        (str(A), 7, Pages(None, 1 << 50, 0x1000)),
    ],
)
def test_pages_that_are_there(iommu: Iommu, owner: str, pasid: int | None, pages: Pages) -> None:
    """Of an empty slot nobody knows yet whether addresses are a guest's."""
    iommu.handler_set(owner, Handler("demand-map", pages=pages), pasid=pasid)
    (stored,) = iommu.handlers()
    assert stored.handler.pages == (pages._replace(memory="m") if pages.memory else pages)


def test_memory_that_a_handler_takes_pages_of_is_in_use(iommu: Iommu) -> None:
    demand = Handler("demand-map", pages=Pages("m", 0, 0x1000))
    iommu.handler_set("d", demand)
    iommu.handler_set(str(A), demand, pasid=7)
    iommu.handler_set("parent", Handler("reject"))
    with pytest.raises(InUse) as error:
        iommu.memory_destroy("m")
    assert error.value.because == (
        "its users: the fault handler of d takes pages of it, "
        "the fault handler of 0000:00:01.0 PASID 7 takes pages of it"
    )
    iommu.memory_destroy("m", force=True)
    assert iommu.handlers() == [HandlerOf("parent", None, Handler("reject"))]
    iommu.domain_destroy("parent", force=True)
    assert iommu.handlers() == []
