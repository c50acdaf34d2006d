# SPDX-License-Identifier: Apache-2.0
"""ASIDs where the kernel keeps the VMIDs: one for each nest parent, which it puts into the commands of a vIOMMU."""

from iommuctl.model import Domain
from iommuctl_smmuv3.tags import Tag, Tags

SOME_VMID = 1
"""Stands for whichever the kernel has given the parent: it is not that of streams without stage 2."""


class KernelTags(Tags):
    """An ASID stands for one page table of a unit, on whichever parent, as long as some slot holds it."""

    def of_domain(self, domain: Domain) -> Tag:  # noqa: ARG002
        return Tag(SOME_VMID)

    def vmid(self, parent: int) -> int:  # noqa: ARG002 - there is one space of ASIDs
        return SOME_VMID
