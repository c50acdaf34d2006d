# SPDX-License-Identifier: Apache-2.0
"""Faults out of lines that Linux 7.3.4 logged on an SMMUv3 that QEMU emulates, and out of lines that anybody wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iommuctl.iommufd.kernel_log import Record
from iommuctl.model import Rid
from iommuctl_smmuv3.kernel_log import faults

UNIT = "arm-smmu-v3 9050000.smmuv3: "
STAGE_1 = """\
event 0x10 received:
 0x0000008800000010
 0x0000020800000000
 0x0000000000005004
 0x0000000000000000
event: F_TRANSLATION client: 0000:00:11.0 sid: 0x88 ssid: 0x0 iova: 0x5004 ipa: 0x0
unpriv data read s1 "Input address caused fault" stag: 0x0"""
STAGE_2 = """\
event 0x10 received:
 0x0000008000000010
 0x0000028800000000
 0x0000000000040000
 0x0000000050100000
event: F_TRANSLATION client: 0000:00:10.0 sid: 0x80 ssid: 0x0 iova: 0x40000 ipa: 0x50100000
unpriv data read s2 "Input address caused fault" stag: 0x0"""


def log(*texts: str, first: int = 100, unit: str = UNIT) -> list[Record]:
    lines = [unit + line for text in texts for line in text.split("\n")]
    return [Record(first + number, line) for number, line in enumerate(lines)]


def test_what_no_viommu_is_told_of() -> None:
    """Stage 2, and a device that is not nested: the words are those of event records, IHI0070 G.b section 7.3."""
    found = faults(log(STAGE_1, STAGE_2))
    assert [(str(one.rid), one.name, one.iova, one.access) for one in found.faults] == [
        ("0000:00:11.0", "F_TRANSLATION", 0x5004, "r"),
        ("0000:00:10.0", "F_TRANSLATION", 0x40000, "r"),
    ]
    assert [one.reason.rpartition(" (")[2] for one in found.faults] == ["stage 1)", "stage 2)"]
    assert found.faults[1].raw == (0x8000000010, 0x28800000000, 0x40000, 0x50100000)
    assert (found.lost, found.exact, found.last) == (0, True, 111)


def test_a_device_whose_stream_id_is_another_number() -> None:
    text = STAGE_1.replace("0000:00:11.0", "0001:02:03.4")
    assert [one.rid for one in faults(log(text)).faults] == [Rid(1, 2, 3, 4)]
    assert [one.rid for one in faults(log(text.replace("0001:02:03.4", "9000000.serial"))).faults] == [Rid(0, 0, 17, 0)]


def test_lines_of_two_units_that_are_mixed() -> None:
    mixed = [each for pair in zip(log(STAGE_1), log(STAGE_2, unit="arm-smmu-v3 other: "), strict=True) for each in pair]
    assert sorted(str(one.rid) for one in faults(mixed).faults) == ["0000:00:10.0", "0000:00:11.0"]


def test_two_units_with_the_same_stream_ids() -> None:
    """Each is named by the line of its own unit."""
    one = log(STAGE_1.replace("0000:00:11.0", "0001:00:11.0"))
    other = log(STAGE_1.replace("0000:00:11.0", "0002:00:11.0"), unit="arm-smmu-v3 other: ")
    mixed = [*one[:5], *other[:5], *one[5:], *other[5:]]
    assert [str(fault.rid) for fault in faults(mixed).faults] == ["0001:00:11.0", "0002:00:11.0"]


def test_what_only_contains_such_a_line() -> None:
    assert faults(Record(one.sequence, f"usb 1-1: Product: {one.text}") for one in log(STAGE_1)).faults == []


@pytest.mark.parametrize("length", range(6))
def test_an_event_that_is_not_all_there_yet(length: int) -> None:
    """It is told when the rest has come: the number of the line up to which all is told comes before it."""
    found = faults(log(STAGE_1, STAGE_2)[: 7 + min(length, 4)])
    assert len(found.faults) == 1
    assert found.last == 104


def test_what_the_kernel_left_out() -> None:
    lines = [
        Record(7, "arm_smmu_dump_event: 12 callbacks suppressed"),
        Record(9, UNIT + "EVTQ overflow detected -- events lost"),
        Record(10, "usb 1-1: new device"),
    ]
    assert faults(lines) == ([], 13, False, 9)
    assert faults(lines[:1]) == ([], 12, True, 7)


@given(
    st.lists(
        st.one_of(
            st.text(max_size=60),
            st.sampled_from([record.text for record in log(STAGE_1, STAGE_2)]),
            st.integers(0, 2**64 - 1).map(lambda word: f"{UNIT} {word:#018x}"),
        ),
        max_size=40,
    )
)
def test_any_lines(lines: list[str]) -> None:
    found = faults(Record(number, line) for number, line in enumerate(lines))
    assert found.lost == 0
    assert len(found.faults) <= len(lines) // 5
    assert -1 <= found.last < len(lines)
