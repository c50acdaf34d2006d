# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells a vIOMMU of SMMUv3: struct iommu_vevent_arm_smmuv3, the four words of an event record.

The kernel forwards C_BAD_STE, F_STREAM_DISABLED, C_BAD_SUBSTREAMID, C_BAD_CD and the faults of stage 1, of devices that
are nested and have a vDEVICE, with its number as StreamID: arm_smmu_handle_event and arm_vmaster_report_event in
drivers/iommu/arm/arm-smmu-v3 of Linux 7.3.
"""

from collections.abc import Iterable

from iommuctl.recorded import RecordedFault
from iommuctl_smmuv3.recorded_faults import RECORD, recorded

SIZE = RECORD
"""Bytes of an event."""


def faults(events: Iterable[bytes]) -> list[RecordedFault]:
    """The faults that events tell of, in their order. A vDEVICE's number is its RID's, with the segment above it."""
    found = (recorded(int.from_bytes(event, "little")) for event in events)
    return [fault for fault in found if fault]
