# SPDX-License-Identifier: Apache-2.0
"""Slots: attach, detach and replace, and what is known afterwards of who is attached to what."""

from iommuctl.iommu import Iommu
from iommuctl.model import Attachment, Rid, Slot
from iommuctl.testing.base import BackendSuite
from iommuctl.testing.probes import IOVA, lands, put, refused
from iommuctl.testing.selection import lacks, needs


class SlotSuite(BackendSuite):
    """The rules of `iommu_attach_device`, with and without PASID."""

    def test_a_slot_works_from_attach_to_detach(
        self, iommu: Iommu, rid1: str, page: int, pasids: list[int | None]
    ) -> None:
        iommu.domain_create("d")
        put(iommu, "d", IOVA, page)
        for pasid in pasids:
            assert lands(iommu, rid1, IOVA, pasid=pasid) is None
            made = iommu.attach("d", rid1, pasid=pasid, label="a b")
            assert made == Attachment(Slot(Rid.parse(rid1), pasid), iommu.domain("d"), "a b")
            assert iommu.slots() == [made]
            assert lands(iommu, rid1, IOVA, pasid=pasid) == 0
            iommu.detach("d", rid1, pasid=pasid)
            assert iommu.slots() == []
            assert lands(iommu, rid1, IOVA, pasid=pasid) is None

    def test_slots_are_listed_in_order(self, iommu: Iommu, rid1: str, rid2: str, pasids: list[int | None]) -> None:
        iommu.domain_create("d")
        iommu.domain_create("e")
        wanted = [iommu.attach("e", rid2)]
        for pasid in reversed(pasids):
            wanted.insert(0, iommu.attach("d", rid1, pasid=pasid))
        assert iommu.slots() == wanted
        assert iommu.slots(rid=rid1) == iommu.slots(domain="d") == wanted[:-1]
        assert iommu.slots(rid=rid2) == iommu.slots(domain="e") == wanted[-1:]
        assert iommu.slots(domain="d", rid=rid2) == []

    def test_devices_and_pasids_are_different_slots(
        self, iommu: Iommu, rid1: str, rid2: str, page: int, pasids: list[int | None]
    ) -> None:
        slots = [(rid, pasid) for rid in (rid1, rid2) for pasid in pasids]
        for index, (rid, pasid) in enumerate(slots):
            iommu.domain_create(f"d{index}")
            put(iommu, f"d{index}", IOVA, page, index * page)
            iommu.attach(f"d{index}", rid, pasid=pasid)
        for _ in range(2):
            assert [lands(iommu, rid, IOVA, pasid=pasid) for rid, pasid in slots] == [
                index * page for index in range(len(slots))
            ]
        iommu.detach("d0", rid1)
        assert [lands(iommu, rid, IOVA, pasid=pasid) for rid, pasid in slots] == [
            index * page or None for index in range(len(slots))
        ]

    def test_replace(self, iommu: Iommu, rid1: str, rid2: str, page: int, pasids: list[int | None]) -> None:
        for name, offset in (("d", 0), ("e", page)):
            iommu.domain_create(name)
            put(iommu, name, IOVA, page, offset)
        for pasid in pasids:
            for rid in (rid1, rid2):
                iommu.attach("d", rid, pasid=pasid, label="old")
                assert lands(iommu, rid, IOVA, pasid=pasid) == 0
        for pasid in pasids:
            with refused(iommu, "slot-occupied"):
                iommu.attach("e", rid1, pasid=pasid)
            assert iommu.attach("e", rid1, pasid=pasid, replace=True).label is None
            assert lands(iommu, rid1, IOVA, pasid=pasid) == page
            assert lands(iommu, rid2, IOVA, pasid=pasid) == 0
        assert {(str(o.slot.rid), o.domain.name, o.label) for o in iommu.slots()} == {
            (rid1, "e", None),
            (rid2, "d", "old"),
        }
        put(iommu, "d", IOVA + page, page)
        put(iommu, "e", IOVA + page, page, 4 * page)
        assert lands(iommu, rid1, IOVA + page, pasid=pasids[-1]) == 4 * page

    def test_replace_by_the_same_domain_and_into_an_empty_slot(self, iommu: Iommu, rid1: str, page: int) -> None:
        iommu.domain_create("d")
        put(iommu, "d", IOVA, page)
        for label in ("one", "two"):
            iommu.attach("d", rid1, replace=True, label=label)
            assert [o.label for o in iommu.slots()] == [label]
            assert lands(iommu, rid1, IOVA) == 0

    def test_a_domain_that_comes_back_is_not_the_one_that_left(
        self, iommu: Iommu, rid1: str, page: int, pasids: list[int | None]
    ) -> None:
        """Nobody is attached while it changes, so nothing is flushed then: detach and replace must have done it."""
        for name in ("d", "e"):
            iommu.domain_create(name)
        for pasid in pasids:
            for offset, replaced in ((0, False), (page, True), (2 * page, False)):
                put(iommu, "d", IOVA, page, offset)
                iommu.attach("d", rid1, pasid=pasid, replace=True)
                assert lands(iommu, rid1, IOVA, pasid=pasid) == offset
                if replaced:
                    iommu.attach("e", rid1, pasid=pasid, replace=True)
                else:
                    iommu.detach("d", rid1, pasid=pasid)
                iommu.unmap("d", iova=IOVA, size=page)

    @needs("pasid_bits")
    def test_the_highest_pasid(self, iommu: Iommu, rid1: str, rid2: str, page: int) -> None:
        highest = (1 << iommu.device(rid1).pasid_bits) - 1
        iommu.domain_create("d")
        put(iommu, "d", IOVA, page)
        iommu.attach("d", rid1, pasid=highest)
        assert lands(iommu, rid1, IOVA, pasid=highest) == 0
        assert lands(iommu, rid2, IOVA, pasid=highest) is None
        assert lands(iommu, rid1, IOVA, pasid=highest - 1) is None
        with refused(iommu, "pasid-too-wide"):
            iommu.attach("d", rid1, pasid=highest + 1)
        with refused(iommu, "pasid-zero"):
            iommu.attach("d", rid1, pasid=0)

    @lacks("pasid_bits")
    def test_pasids_that_are_not_declared_are_refused(self, iommu: Iommu, rid1: str) -> None:
        iommu.domain_create("d")
        for pasid in (1, "auto"):
            with refused(iommu, "no-pasid-support"):
                iommu.attach("d", rid1, pasid=pasid)

    @needs("pasid_bits")
    def test_auto_takes_a_free_pasid(self, iommu: Iommu, rid1: str, rid2: str) -> None:
        iommu.domain_create("d")
        highest = (1 << iommu.device(rid1).pasid_bits) - 1
        taken = {iommu.attach("d", rid1, pasid="auto").slot.pasid for _ in range(min(3, highest))}
        assert len(taken) == min(3, highest)
        assert None not in taken
        if highest not in taken:
            iommu.attach("d", rid1, pasid=highest)
            free = iommu.attach("d", rid1, pasid="auto").slot.pasid
            assert free
            assert 0 < free < highest
        assert iommu.attach("d", rid2, pasid="auto").slot.pasid

    @needs("simulates", "pasid_bits")
    def test_no_pasid_is_left(self, iommu: Iommu) -> None:
        iommu.device_add("0000:00:03.0", pasid_bits=1)
        iommu.domain_create("d")
        assert iommu.attach("d", "0000:00:03.0", pasid="auto").slot.pasid == 1
        with refused(iommu, "no-room"):
            iommu.attach("d", "0000:00:03.0", pasid="auto")

    @needs("simulates")
    def test_a_device_without_pasids(self, iommu: Iommu) -> None:
        iommu.device_add("0000:00:03.0")
        iommu.domain_create("d")
        iommu.attach("d", "0000:00:03.0")
        with refused(iommu, "no-pasid-support"):
            iommu.attach("d", "0000:00:03.0", pasid=1)
        with refused(iommu, "no-pasid-support"):
            iommu.dma("0000:00:03.0", IOVA, size=1, pasid=1)

    @needs("simulates")
    def test_devices_come_and_go(self, iommu: Iommu, rid1: str, rid2: str, page: int, pasids: list[int | None]) -> None:
        assert [str(device.rid) for device in iommu.devices()] == [rid1, rid2]
        iommu.domain_create("d")
        put(iommu, "d", IOVA, page)
        for pasid in pasids:
            iommu.attach("d", rid1, pasid=pasid)
            assert lands(iommu, rid1, IOVA, pasid=pasid) == 0
        with refused(iommu, "in-use"):
            iommu.device_remove(rid1)
        iommu.device_remove(rid1, force=True)
        assert [str(device.rid) for device in iommu.devices()] == [rid2]
        assert iommu.slots() == []
        with refused(iommu, "no-such-device"):
            iommu.attach("d", rid1)
        iommu.device_add(rid1)
        assert lands(iommu, rid1, IOVA) is None
