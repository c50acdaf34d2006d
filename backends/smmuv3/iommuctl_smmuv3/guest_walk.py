# SPDX-License-Identifier: Apache-2.0
"""The hardware side in guest memory alone: CDs and stage 1, where the tables of stage 2 are the kernel's."""

from iommuctl.errors import OutsideMemory
from iommuctl.formats.memory import Memory
from iommuctl.model import Fault, Translation
from iommuctl.requests import TranslateRequest
from iommuctl_smmuv3 import permissions
from iommuctl_smmuv3.cd_rules import StreamWorld
from iommuctl_smmuv3.context_lookup import find_cd
from iommuctl_smmuv3.events import CLASS_IN
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.guest_entry import stage_1_entry
from iommuctl_smmuv3.permissions import ALL
from iommuctl_smmuv3.refused import F_TRANSLATION, REASONS, Refused
from iommuctl_smmuv3.stage1_walk import Stage1
from iommuctl_smmuv3.stage2_walk import Access, Mapped
from iommuctl_smmuv3.streams import Stream, stream_id
from iommuctl_smmuv3.tlb import Page
from iommuctl_smmuv3.visits import Visits

_ANY = 63
"""log2 of the size of the pages of a stage 2 that is seen as one."""


def walk(features: Features, stream: Stream, guest: Memory, request: TranslateRequest) -> Translation:
    """Where a request goes in guest memory: `pa`, and the addresses of `steps`, are GPAs.

    `guest` is the memory of the parent by GPA. What cannot be read there faults as stage 2 does.
    """
    slot, visits = request.slot, Visits(guest, None)
    ste = stage_1_entry(features, stream)
    privileged = request.privileged and slot.pasid is not None
    parent = _Parent(guest)
    try:
        cd = find_cd(visits, stream_id(slot.rid), slot.pasid or 0, ste, parent, features, e2h=False)
        stage1 = Stage1(cd, 0, StreamWorld.NS_EL1, features, visits, parent)
        mapped = stage1.translate(request.iova, permissions.needed(request.access, privileged=privileged))
    except Refused as refused:
        name = REASONS[refused.event].name
        fault = Fault(refused.event, name, refused.because, slot.rid, slot.pasid, request.iova, request.access)
        return Translation(slot, request.iova, None, None, None, fault, tuple(visits.trace))
    prot = permissions.letters(mapped.page.stage1, privileged=privileged)
    return Translation(slot, request.iova, mapped.pa, 1 << mapped.page.run, prot, None, tuple(visits.trace))


class _Parent:
    """The parent in the place of Stage2: each GPA is its own address, if there is memory."""

    def __init__(self, guest: Memory) -> None:
        self._guest = guest

    def translate(self, address: int, access: Access) -> Mapped:
        if access.kind != CLASS_IN:
            try:
                self._guest.read(address & -8, 8)
            except OutsideMemory as error:
                raise Refused(F_TRANSLATION, f"stage 2: {error.what}") from None
        return Mapped(address, Page(0, _ANY, _ANY, ALL, ALL, 3, 12, _ANY, True, False, []))
