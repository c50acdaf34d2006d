# SPDX-License-Identifier: Apache-2.0
"""What the unit tells devices: to forget translations, and what becomes of their page requests."""

from typing import NamedTuple

from iommuctl.architecture import Completion, PageResponse
from iommuctl_sim.device_tlb import DeviceTlbs
from iommuctl_sim.page_groups import PageGroups


class DeviceBus(NamedTuple):
    """The devices behind the unit (iommuctl.architecture.Bus)."""

    tlbs: DeviceTlbs
    groups: PageGroups

    def respond(self, source_id: int, pasid: int | None, group: int, response: PageResponse) -> None:
        self.groups.respond(source_id, pasid, group, response)

    def invalidate(self, source_id: int, pasid: int | None, first: int, last: int) -> Completion:
        return self.tlbs.invalidate(source_id, pasid, first, last)

    def invalidate_pasids(self, source_id: int, first: int, last: int) -> Completion:
        return self.tlbs.invalidate_pasids(source_id, first, last)
