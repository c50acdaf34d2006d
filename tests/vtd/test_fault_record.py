# SPDX-License-Identifier: Apache-2.0
"""The fault reasons: one name for one code, and which of them an FPD bit can silence."""

from iommuctl_vtd.fault_record import REASONS, FaultRecord

# Faults from before hardware has found an entry with FPD.
UNQUALIFIED = {0x01, 0x08, 0x09, 0x0A, 0x30, 0x31, 0x32, 0x38, 0x39, 0x3A, 0x40, 0x50, 0x58}


def test_codes_fit_the_record() -> None:
    for code in REASONS:
        assert FaultRecord.FR.get(FaultRecord.encode(FR=code)) == code


def test_names_and_sentences() -> None:
    assert len({reason.name for reason in REASONS.values()}) == len(REASONS)
    assert all(reason.sentence[0].isupper() and reason.sentence.endswith(".") for reason in REASONS.values())
    assert REASONS[0x59].name == "SPT.2"
    assert REASONS[0x91].name == "SFS.10"


def test_qualified() -> None:
    assert {code for code, reason in REASONS.items() if not reason.qualified} == UNQUALIFIED


def test_codes_whose_meaning_nobody_confirmed_are_not_named() -> None:
    assert not {0x33, 0x88, 0x89} & set(REASONS)
