# SPDX-License-Identifier: Apache-2.0
"""Events that Linux logs: those that no vIOMMU is told of, as of stage 2 and of devices that are not nested.

Source: arm_smmu_dump_event in drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c of Linux 7.3: a line that names the event,
one for each of its four words, and in newer kernels one that names the device. Of many at once some are left out.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from iommuctl.errors import IommuError
from iommuctl.iommufd.kernel_log import Record
from iommuctl.model import Rid
from iommuctl.recorded import RecordedFault
from iommuctl_smmuv3.recorded_faults import recorded

_EVENT = re.compile(r"arm-smmu-v3 (\S+): event 0x[0-9a-f]{2} received:")
_WORD = re.compile(r"arm-smmu-v3 (\S+):\s+0x([0-9a-f]{16})$")
_CLIENT = re.compile(r"arm-smmu-v3 (\S+): event: \S+ client: (\S+) sid: (0x[0-9a-f]{1,8}) ")
_SUPPRESSED = re.compile(r"arm_smmu_(?:dump_event|evtq_thread): ([0-9]{1,9}) callbacks suppressed")
_OVERFLOW = re.compile(r"arm-smmu-v3 \S+: EVTQ overflow detected")
_WORDS = 4


class Logged(NamedTuple):
    """What lines tell: faults in their order, and how many more there were, at least where not `exact`.

    `last` is the number of the line by which the last of it was told.
    """

    faults: list[RecordedFault]
    lost: int
    exact: bool
    last: int


def faults(lines: Iterable[Record]) -> Logged:
    """The faults that lines of the log tell of. Lines of several units may be mixed; what is cut off is left out."""
    found: list[RecordedFault] = []
    words: dict[str, list[int]] = {}
    lost, exact, last = 0, True, -1
    named: dict[str, int] = {}
    for number, line in lines:
        if event := _EVENT.match(line):
            words[event[1]] = []
        elif (word := _WORD.match(line)) and word[1] in words:
            known = words[word[1]]
            known.append(int(word[2], 16))
            if len(known) == _WORDS:
                raw = sum(value << 64 * index for index, value in enumerate(words.pop(word[1])))
                last = number
                if fault := recorded(raw):
                    named[word[1]] = len(found)
                    found.append(fault)
        elif (client := _CLIENT.match(line)) and (index := named.pop(client[1], None)) is not None:
            found[index] = _named(found[index], client[2], int(client[3], 16))
        elif suppressed := _SUPPRESSED.match(line):
            lost, last = lost + int(suppressed[1]), number
        elif _OVERFLOW.match(line):
            lost, exact, last = lost + 1, False, number
    return Logged(found, lost, exact, last)


def _named(fault: RecordedFault, name: str, stream: int) -> RecordedFault:
    """The device by its name, as StreamIDs may be other numbers than RIDs."""
    if Rid.of(stream) != fault.rid:
        return fault
    try:
        return fault._replace(rid=Rid.parse(name))
    except IommuError:
        # Nobody's StreamID, or a device that is not PCI.
        return fault
