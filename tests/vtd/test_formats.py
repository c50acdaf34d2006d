# SPDX-License-Identifier: Apache-2.0
"""The suite of formats on VT-d's page tables: every geometry, and units that lack something."""

from iommuctl_vtd.first_stage import FirstStageFormat
from iommuctl_vtd.second_stage import SecondStageFormat
from tests.formats.format_suite import FormatSuite


class TestFirstStage(FormatSuite):
    formats = (
        FirstStageFormat(4),
        FirstStageFormat(5),
        FirstStageFormat(4, haw=39, one_gib_pages=False),
    )
    kinds = (FirstStageFormat(5), FirstStageFormat(4, haw=39, one_gib_pages=False))
    prots = ("r", "rw", "rp", "rwp")


class TestSecondStage(FormatSuite):
    formats = (
        SecondStageFormat(39),
        SecondStageFormat(48),
        SecondStageFormat(57),
        SecondStageFormat(48, haw=46, snoop_control=False),
        SecondStageFormat(39, haw=39, page_sizes=(1 << 12, 1 << 21)),
        SecondStageFormat(57, page_sizes=(1 << 12,)),
    )
    kinds = (SecondStageFormat(39), SecondStageFormat(48), SecondStageFormat(57, page_sizes=(1 << 12,)))
    prots = ("r", "w", "rw")
