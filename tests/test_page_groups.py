# SPDX-License-Identifier: Apache-2.0
"""Groups of page requests, out of a queue that has overflowed."""

import pytest

from iommuctl.architecture import PageRequest
from iommuctl.model import Rid, Slot
from iommuctl.page_groups import whole_groups

RID = Rid(0, 0, 1, 0)
PART = PageRequest(Slot(RID, 5), 0x1000, read=True, write=False, group=1, last=False)
LAST = PART._replace(iova=0x2000, last=True)
OTHER = PART._replace(group=2)
ELSEWHERE = LAST._replace(slot=Slot(RID))
STOP = LAST._replace(read=False)


@pytest.mark.parametrize(
    ("requests", "kept"),
    [
        ([], []),
        ([PART, LAST], [PART, LAST]),
        ([PART, OTHER, PART, LAST], [PART, PART, LAST]),
        # An index that is used again, by a group that has no end.
        ([PART, LAST, PART], [PART, LAST]),
        ([LAST, PART, LAST], [LAST, PART, LAST]),
        # The same index without PASID is another group's, and a stop marker ends none.
        ([PART, ELSEWHERE], [ELSEWHERE]),
        ([PART, STOP], [STOP]),
        # Without PASID, a request for nothing is the end of its group.
        ([PART._replace(slot=Slot(RID)), STOP._replace(slot=Slot(RID))],) * 2,
    ],
)
def test_parts_of_groups_are_left_out(requests: list[PageRequest], kept: list[PageRequest]) -> None:
    assert whole_groups(requests) == kept
