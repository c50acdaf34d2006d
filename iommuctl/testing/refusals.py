# SPDX-License-Identifier: Apache-2.0
"""Every refusal of the generic layer: its id, its exit code, and that it changed nothing."""

from collections.abc import Callable
from functools import partial

import pytest

from iommuctl.iommu import Iommu
from iommuctl.model import Memory
from iommuctl.plugins import BACKENDS
from iommuctl.testing.base import BackendSuite
from iommuctl.testing.probes import IOVA, RAM, lands, put, refused
from iommuctl.testing.selection import needs

NOBODY = "0000:7f:1f.7"
NO_NAMES = ("", "a b", "a/b", "-x", "id:1", "é", "x" * 64)
WORD = 1 << 64
FREE = 3 * IOVA
"""Where nothing is mapped, and nothing is reserved."""
Cases = list[tuple[str, Callable[..., object]]]


def check(iommu: Iommu, cases: Cases) -> None:
    """Each call is refused with the error of that id, and a dry run of it as well."""
    for error, call in cases:
        for iommu.dry_run in (True, False):
            with refused(iommu, error):
                call()


class RefusalSuite(BackendSuite):
    """Refusals in a folder that is in use. No device of the tests has the RID 0000:7f:1f.7."""

    @pytest.fixture
    def busy(self, iommu: Iommu, rid1: str, page: int) -> Iommu:
        """Domain `d` in the slot of RID1, `e` in no slot."""
        for name in ("d", "e"):
            iommu.domain_create(name)
            put(iommu, name, IOVA, 4 * page)
        iommu.attach("d", rid1)
        assert lands(iommu, rid1, IOVA) == 0
        return iommu

    def test_map(self, busy: Iommu, ram: Memory, page: int) -> None:
        top = 1 << busy.domain("d").width
        to = partial(put, busy, "d")
        check(
            busy,
            [
                ("overlap", partial(to, IOVA, page)),
                ("overlap", partial(to, IOVA - page, 2 * page)),
                ("overlap", partial(to, IOVA + 3 * page, 2 * page)),
                ("overlap", partial(to, IOVA - page, 8 * page)),
                ("misaligned", partial(to, 1, page)),
                ("misaligned", partial(to, 0, page + 1)),
                ("misaligned", partial(to, 0, page // 2)),
                ("misaligned", partial(to, 0, page, 8)),
                ("out-of-aperture", partial(to, top, page)),
                ("out-of-aperture", partial(to, top - page, 2 * page)),
                ("out-of-aperture", partial(to, WORD - page, 2 * page)),
                ("outside-memory", partial(to, FREE, page, ram.size)),
                ("outside-memory", partial(to, FREE, ram.size + page)),
                ("outside-memory", partial(to, FREE, 2 * page, ram.size - page)),
                ("zero-size", partial(to, 0, 0)),
                ("bad-number", partial(to, -page, page)),
                ("bad-number", partial(to, 0, -page)),
                ("bad-number", partial(to, WORD, page)),
                ("bad-number", partial(to, 0, page, -page)),
                ("usage", partial(to, FREE, page, prot="")),
                ("usage", partial(to, FREE, page, prot="wr")),
                ("usage", partial(busy.map, "d", iova=FREE, size=page)),
                ("usage", partial(busy.map, "d", iova=FREE, size=page, pa=0, memory=RAM)),
                ("no-such-domain", partial(put, busy, "nobody", 0, page)),
                ("no-such-domain", partial(put, busy, "id:4711", 0, page)),
                ("no-such-memory", partial(busy.map, "d", iova=FREE, size=page, memory="nobody")),
            ],
        )

    @needs("physical_addresses")
    def test_map_to_physical_addresses(self, busy: Iommu, ram: Memory, page: int) -> None:
        to = partial(busy.map, "d", iova=0)
        check(
            busy,
            [
                ("misaligned", partial(to, size=page, pa=ram.pa + 1)),
                ("out-of-aperture", partial(to, size=2 * page, pa=WORD - page)),
                ("bad-number", partial(to, size=page, pa=WORD)),
                ("bad-number", partial(to, size=page, pa=-page)),
            ],
        )

    @needs("simulates")
    def test_no_device_reaches_the_tables(self, busy: Iommu, page: int) -> None:
        tables = busy.describe()["memory"]["tables"]
        low, end = tables["base"], tables["base"] + tables["size"]
        for pa, size in ((low, page), (end - page, page), (low - page, 2 * page)):
            check(busy, [("reserved-range", partial(busy.map, "d", iova=FREE, size=size, pa=pa))])

    def test_unmap(self, busy: Iommu, page: int) -> None:
        out = partial(busy.unmap, "d")
        top = 1 << busy.domain("d").width
        check(
            busy,
            [
                ("partial-unmap", partial(out, iova=IOVA, size=page)),
                ("partial-unmap", partial(out, iova=IOVA + page, size=8 * page)),
                ("partial-unmap", partial(out, iova=IOVA - page, size=4 * page)),
                ("partial-unmap", partial(out, iova=IOVA + page, size=page)),
                ("partial-unmap", partial(out, iova=0, size=page)),
                ("misaligned", partial(out, iova=IOVA + 1, size=page)),
                ("misaligned", partial(out, iova=IOVA, size=4 * page - 1)),
                ("out-of-aperture", partial(out, iova=top, size=page)),
                ("out-of-aperture", partial(out, iova=WORD - page, size=2 * page)),
                ("zero-size", partial(out, iova=IOVA, size=0)),
                ("bad-number", partial(out, iova=-page, size=page)),
                ("no-such-domain", partial(busy.unmap, "nobody", iova=IOVA, size=page)),
            ],
        )

    def test_attach_and_detach(self, busy: Iommu, rid1: str, rid2: str) -> None:
        check(
            busy,
            [
                ("slot-occupied", partial(busy.attach, "e", rid1)),
                ("slot-occupied", partial(busy.attach, "d", rid1)),
                ("slot-empty", partial(busy.detach, "d", rid2)),
                ("slot-empty", partial(busy.detach, "e", rid1)),
                ("slot-empty", partial(busy.detach, "e", rid1, force=True)),
                ("no-such-domain", partial(busy.attach, "nobody", rid2)),
                ("no-such-domain", partial(busy.detach, "nobody", rid2)),
                ("no-such-device", partial(busy.attach, "d", NOBODY)),
                ("no-such-device", partial(busy.detach, "d", NOBODY)),
                ("bad-rid", partial(busy.attach, "d", "00:1.8")),
                ("bad-rid", partial(busy.attach, "d", "")),
                ("in-use", partial(busy.domain_destroy, "d")),
                ("pasid-zero", partial(busy.attach, "d", rid2, pasid=0)),
                ("pasid-zero", partial(busy.detach, "d", rid1, pasid=0)),
                ("bad-number", partial(busy.attach, "d", rid2, pasid=-1)),
            ],
        )

    @needs("pasid_bits")
    def test_pasids(self, busy: Iommu, rid1: str, rid2: str) -> None:
        busy.attach("d", rid2, pasid=1)
        wide = 1 << busy.device(rid2).pasid_bits
        check(
            busy,
            [
                ("pasid-too-wide", partial(busy.attach, "d", rid2, pasid=wide)),
                ("pasid-too-wide", partial(busy.attach, "d", rid2, pasid=1 << 70)),
                ("pasid-too-wide", partial(busy.detach, "d", rid2, pasid=wide)),
                ("pasid-too-wide", partial(busy.translate, rid2, IOVA, pasid=wide)),
                ("pasid-zero", partial(busy.translate, rid2, IOVA, pasid=0)),
                ("slot-occupied", partial(busy.attach, "d", rid2, pasid=1)),
                ("slot-empty", partial(busy.detach, "d", rid1, pasid=1)),
                ("slot-empty", partial(busy.detach, "d", rid2, pasid=wide - 1)),
                ("slot-empty", partial(busy.detach, "d", rid2)),
            ],
        )

    def test_names_and_objects(self, busy: Iommu, rid2: str, page: int) -> None:
        check(
            busy,
            [
                ("name-taken", partial(busy.domain_create, "d")),
                ("name-taken", partial(busy.memory_create, RAM, page)),
                *(("usage", partial(busy.domain_create, name)) for name in NO_NAMES),
                ("usage", partial(busy.memory_create, "a+b", page)),
                ("usage", partial(busy.domain_create, "x", label="\udcff")),
                ("usage", partial(busy.attach, "e", rid2, label="\udcff")),
                ("no-such-domain", partial(busy.domain, "\udcff")),
                ("zero-size", partial(busy.memory_create, "m", 0)),
                ("misaligned", partial(busy.memory_create, "m", page // 2)),
                ("bad-number", partial(busy.memory_create, "m", WORD)),
                ("in-use", partial(busy.memory_destroy, RAM)),
                ("no-such-memory", partial(busy.memory_destroy, "nobody")),
                ("no-such-domain", partial(busy.domain_destroy, "nobody", force=True)),
                ("no-such-domain", partial(busy.mappings, "id:" + "9" * 40)),
                ("no-such-device", partial(busy.translate, NOBODY, IOVA)),
                ("bad-number", partial(busy.translate, "0000:00:01.0", WORD)),
                ("bad-rid", partial(busy.device, "0000:00:20.0")),
                ("no-such-pgtable", partial(busy.pgtable, "nobody")),
                ("no-such-pgtable", partial(busy.pgtable_destroy, "nobody")),
            ],
        )

    @needs("simulates")
    def test_simulation(self, busy: Iommu, rid1: str) -> None:
        ram = busy.describe()["memory"]
        end = ram["base"] + ram["size"]
        check(
            busy,
            [
                ("name-taken", partial(busy.device_add, rid1)),
                ("in-use", partial(busy.device_remove, rid1)),
                ("bad-rid", partial(busy.device_add, "nonsense")),
                ("no-such-device", partial(busy.device_remove, NOBODY)),
                ("no-such-device", partial(busy.dma, NOBODY, IOVA, size=1)),
                ("usage", partial(busy.dma, rid1, IOVA)),
                ("usage", partial(busy.dma, rid1, IOVA, size=1, data=b"x")),
                ("usage", partial(busy.dma, rid1, WORD - 1, size=2)),
                ("usage", partial(busy.dma, rid1, IOVA, size=1 << 40)),
                ("zero-size", partial(busy.dma, rid1, IOVA, size=0)),
                ("zero-size", partial(busy.dma, rid1, IOVA, data=b"")),
                ("bad-number", partial(busy.dma, rid1, WORD, size=1)),
                ("pasid-zero", partial(busy.dma, rid1, IOVA, size=1, pasid=0)),
                ("outside-memory", partial(busy.read_memory, end - 1, 2)),
                ("outside-memory", partial(busy.write_memory, end - 1, b"xx")),
                ("bad-number", partial(busy.read_memory, -1, 2)),
            ],
        )

    def test_another_backend(self, busy: Iommu) -> None:
        other = next(name for name in BACKENDS if name != self.backend)
        with Iommu(busy.state, backend=other) as wrong:
            check(
                wrong,
                [
                    ("other-backend", wrong.domains),
                    ("other-backend", partial(wrong.domain_create, "x")),
                    ("other-backend", wrong.setup),
                    ("other-backend", wrong.reset),
                ],
            )
        with Iommu(busy.state) as same:
            assert same.domains() == busy.domains()
