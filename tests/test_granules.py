# SPDX-License-Identifier: Apache-2.0
"""Page sizes by granule: a domain has those of one, and page tables are aligned to that of their format."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from iommuctl.__main__ import main
from iommuctl.capabilities import Capabilities
from iommuctl.errors import Misaligned, Unsupported
from iommuctl.iommu import Iommu
from iommuctl.rules import check_page_sizes
from iommuctl.session import Operation
from iommuctl_vtd.scalable_driver import ScalableDriver

K4, K16, K64, M2, M32, M512, G1 = (1 << shift for shift in (12, 14, 16, 21, 25, 29, 30))
THREE = Capabilities(page_sizes=(K4, M2, G1), granules=((K16, M32), (K64, M512)))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, (K4, M2, G1)),
        ([G1, K4, K4], (K4, G1)),
        ([M2], (M2,)),
        ([K16], (K16,)),
        ([M32, K16], (K16, M32)),
        ([M512], (M512,)),
        ([K64, M512], (K64, M512)),
    ],
)
def test_page_sizes_of_one_granule(wanted: Sequence[int] | None, found: tuple[int, ...]) -> None:
    assert check_page_sizes(wanted, THREE) == found


@pytest.mark.parametrize("wanted", [[K4, K16], [M2, M32], [K64, G1], [K4, M2, G1, K16, M32]])
def test_page_sizes_of_two_granules(wanted: Sequence[int]) -> None:
    with pytest.raises(Unsupported) as caught:
        check_page_sizes(wanted, THREE)
    assert caught.value.because == (
        "its tables are of one granule, with pages of 4K,2M,1G or of 16K,32M or of 64K,512M"
    )


@pytest.mark.parametrize("wanted", [[], [8192], [K4, 8192], [K16, 8192]])
def test_page_sizes_of_no_granule(wanted: Sequence[int]) -> None:
    with pytest.raises(Unsupported) as caught:
        check_page_sizes(wanted, THREE)
    assert "granule" not in caught.value.because
    assert "16K,32M" in caught.value.because


def test_at_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Operation, "capabilities", THREE)
    assert main(["--state", str(tmp_path / "s"), "domain", "create", "d", "--page-sizes", "4K,64K"]) == 3
    assert "its tables are of one granule" in capsys.readouterr().err
    assert main(["--state", str(tmp_path / "s"), "backend", "show", "sim"]) == 0
    shown = capsys.readouterr().out
    assert "page sizes               4K,2M,1G\n" in shown
    assert "granules                 4K,2M,1G or 16K,32M or 64K,512M\n" in shown


def test_a_page_table_is_aligned_to_the_granule_of_its_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root to the size of the root table, which can be less than a page."""
    with Iommu(tmp_path / "state", backend="sim") as iommu:
        iommu.device_add("0000:00:01.0")
        iommu.domain_create("vm", nest_parent=True)
        iommu.map("vm", iova=0, size=G1, pa=0)
        iommu.attach("vm", "0000:00:01.0")
        coarse = SimpleNamespace(page_sizes=(K16, M32), levels=4, entries=lambda level: 2 if level == 4 else 2048)
        monkeypatch.setattr(ScalableDriver, "stage1_format", lambda *_: coarse)
        for pool, size in ((K4, K64), (K16, K64 + K4)):
            with pytest.raises(Misaligned) as caught:
                iommu.pgtable_create("t", parent="vm", pool=pool, pool_size=size)
            assert "0x4000" in caught.value.what
        with pytest.raises(Misaligned) as caught:
            iommu.bind_pgtable("vm", "0000:00:01.0", addr=K64 + 8)
        assert "not a multiple of 0x10" in caught.value.what
        monkeypatch.undo()
        with pytest.raises(Misaligned) as caught:
            iommu.bind_pgtable("vm", "0000:00:01.0", addr=K64 + 16)
        assert "not a multiple of 0x1000" in caught.value.what
