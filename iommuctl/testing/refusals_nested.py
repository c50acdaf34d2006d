# SPDX-License-Identifier: Apache-2.0
"""Every refusal around page tables, bindings and invalidation: its id, its exit code, and that it changed nothing."""

from functools import partial

import pytest

from iommuctl.iommu import Iommu
from iommuctl.testing.nesting import BASE, GUEST, POOL, POOL_SIZE, NestingBase
from iommuctl.testing.probes import IOVA, lands, put
from iommuctl.testing.refusals import NOBODY, WORD, check
from iommuctl.testing.selection import needs


@needs("nesting")
class NestedRefusalSuite(NestingBase):
    """Refusals in a folder where page tables are bound."""

    @pytest.fixture
    def nested(self, iommu: Iommu, rid1: str, rid2: str, vm1: str, vm2: str) -> Iommu:
        """Domain `d` in the slot of RID1; page table `t` of `vm1` in that of RID2; `u` of `vm2` nowhere."""
        iommu.domain_create("d")
        put(iommu, "d", IOVA, 0x1_0000)
        iommu.attach("d", rid1)
        self.build(iommu, "t", vm1, 0x20_0000)
        self.build(iommu, "u", vm2, 0x20_0000)
        iommu.attach(vm1, rid2)
        iommu.bind_pgtable(vm1, rid2, pgtable="t")
        assert lands(iommu, rid2, IOVA) == 0x20_0000
        return iommu

    def test_bind(self, nested: Iommu, rid1: str, rid2: str) -> None:
        other = self.declared().pgtable_formats[0] + "x"
        width = nested.domain("vm2").width
        nested.attach("vm2", rid1, replace=True)
        bind, at = nested.bind_pgtable, partial(nested.bind_pgtable, "vm2", rid1)
        check(
            nested,
            [
                ("not-nest-parent", partial(bind, "d", rid1, addr=POOL)),
                ("parent-not-attached", partial(bind, "vm1", rid1, pgtable="t")),
                ("slot-occupied", partial(bind, "vm1", rid2, pgtable="t")),
                ("cannot-nest", partial(at, pgtable="t")),
                ("usage", partial(at)),
                ("usage", partial(at, addr=POOL, label="\udcff")),
                ("usage", partial(at, addr=POOL, pgtable="u")),
                ("usage", partial(at, pgtable="u", format=other)),
                ("unsupported", partial(at, addr=POOL, format="of-nobody")),
                ("misaligned", partial(at, addr=POOL + 8)),
                ("out-of-aperture", partial(at, addr=1 << width)),
                ("bad-number", partial(at, addr=-4096)),
                ("bad-number", partial(at, addr=WORD)),
                ("pasid-zero", partial(at, addr=POOL, pasid=0)),
                ("no-such-domain", partial(bind, "nobody", rid1, addr=POOL)),
                ("no-such-device", partial(bind, "vm2", NOBODY, addr=POOL)),
                ("no-such-pgtable", partial(at, pgtable="nobody")),
                ("nothing-bound", partial(nested.unbind_pgtable, "vm2", rid1)),
                ("slot-empty", partial(nested.unbind_pgtable, "vm2", rid2)),
                ("slot-bound", partial(nested.detach, "vm1", rid2)),
                ("slot-bound", partial(nested.attach, "vm1", rid2, replace=True)),
                ("slot-bound", partial(nested.attach, "d", rid2, replace=True)),
                ("in-use", partial(nested.domain_destroy, "vm1")),
                ("in-use", partial(nested.domain_destroy, "vm2")),
                ("in-use", partial(nested.pgtable_destroy, "t")),
            ],
        )
        nested.detach("vm2", rid1)
        check(nested, [("parent-not-attached", partial(at, pgtable="u"))])

    @needs("pasid_bits")
    def test_bind_with_pasid(self, nested: Iommu, rid1: str, rid2: str) -> None:
        nested.attach("d", rid1, pasid=3)
        nested.bind_pgtable("vm1", rid2, pgtable="t", pasid=3)
        wide = 1 << nested.device(rid1).pasid_bits
        check(
            nested,
            [
                ("slot-occupied", partial(nested.bind_pgtable, "vm2", rid1, pgtable="u", pasid=3)),
                ("slot-occupied", partial(nested.bind_pgtable, "vm1", rid2, pgtable="t", pasid=3)),
                ("pasid-too-wide", partial(nested.bind_pgtable, "vm1", rid2, pgtable="t", pasid=wide)),
                ("slot-bound", partial(nested.detach, "vm1", rid2, pasid=3)),
                ("slot-empty", partial(nested.unbind_pgtable, "vm1", rid2, pasid=4)),
                ("slot-empty", partial(nested.unbind_pgtable, "vm2", rid2, pasid=3)),
                ("nothing-bound", partial(nested.unbind_pgtable, "d", rid1, pasid=3)),
                ("nothing-bound", partial(nested.invalidate, "vm1", device=rid1, pasid=3)),
            ],
        )

    def test_page_tables(self, nested: Iommu, page: int) -> None:
        to = partial(nested.pgtable_map, "u")
        create = partial(nested.pgtable_create, "v", parent="vm1")
        width = nested.domain("vm1").width
        check(
            nested,
            [
                ("overlap", partial(to, iova=IOVA, size=page, gpa=0)),
                ("overlap", partial(to, iova=IOVA - page, size=2 * page, gpa=0)),
                ("misaligned", partial(to, iova=1, size=page, gpa=0)),
                ("misaligned", partial(to, iova=0, size=page, gpa=8)),
                ("out-of-aperture", partial(to, iova=1 << 57, size=page, gpa=0)),
                ("out-of-aperture", partial(to, iova=0, size=page, gpa=1 << width)),
                ("zero-size", partial(to, iova=0, size=0, gpa=0)),
                ("bad-number", partial(to, iova=0, size=page, gpa=WORD)),
                ("usage", partial(to, iova=0, size=page, gpa=0, prot="z")),
                ("partial-unmap", partial(nested.pgtable_unmap, "u", iova=0, size=page)),
                ("zero-size", partial(nested.pgtable_unmap, "u", iova=IOVA, size=0)),
                ("misaligned", partial(nested.pgtable_unmap, "u", iova=IOVA + 1, size=page)),
                ("no-such-pgtable", partial(nested.pgtable_unmap, "nobody", iova=IOVA, size=page)),
                ("name-taken", partial(nested.pgtable_create, "t", parent="vm1", pool=BASE, pool_size=POOL_SIZE)),
                ("overlap", partial(create, pool=POOL, pool_size=POOL_SIZE)),
                ("outside-memory", partial(create, pool=BASE + GUEST, pool_size=POOL_SIZE)),
                ("zero-size", partial(create, pool=BASE, pool_size=0)),
                ("misaligned", partial(create, pool=BASE + 8, pool_size=POOL_SIZE)),
                ("not-nest-parent", partial(nested.pgtable_create, "v", parent="d", pool=IOVA, pool_size=page)),
                ("no-such-domain", partial(nested.pgtable_create, "v", parent="nobody", pool=BASE, pool_size=page)),
            ],
        )

    def test_invalidate(self, nested: Iommu, rid1: str, page: int) -> None:
        call = nested.invalidate
        check(
            nested,
            [
                ("nothing-bound", partial(call, "d")),
                ("nothing-bound", partial(call, "vm2")),
                ("nothing-bound", partial(call, "vm1", device=rid1)),
                ("zero-size", partial(call, "vm1", iova=IOVA, size=0)),
                ("usage", partial(call, "vm1", iova=IOVA)),
                ("usage", partial(call, "vm1", size=page)),
                ("bad-number", partial(call, "vm1", iova=-1, size=page)),
                ("out-of-aperture", partial(call, "vm1", iova=WORD - 1, size=2)),
                ("no-such-domain", partial(call, "nobody")),
                ("no-such-device", partial(call, "vm1", device=NOBODY)),
                ("bad-rid", partial(call, "vm1", device="x")),
                ("pasid-zero", partial(call, "vm1", pasid=0)),
                ("pasid-zero", partial(call, "vm1", device=rid1, pasid=0)),
            ],
        )
