# SPDX-License-Identifier: Apache-2.0
"""The STE by which the kernel leads a device to CDs in guest memory: stage 1 alone, as stage 2 is the kernel's."""

from iommuctl_smmuv3.entries import stream_entry
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.ste import LINEAR, Ste
from iommuctl_smmuv3.streams import Stream


def stage_1_entry(features: Features, stream: Stream) -> int:
    """The STE of a stream that has CDs. A table that a guest owns is linear."""
    ste = stream_entry(features, ats=stream.ats, contexts=stream.contexts, dss=stream.dss, stage_2_fields=0)
    return ste & ~Ste.S1Fmt.mask | Ste.S1Fmt.put(LINEAR) if stream.foreign else ste
