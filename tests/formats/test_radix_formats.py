# SPDX-License-Identifier: Apache-2.0
"""The suite of formats on formats that no hardware has: the engine knows no geometry."""

from tests.formats.format_suite import FormatSuite
from tests.formats.toy import RunFormat, SplitFormat, ToyFormat, WideFormat


class TestToyFormats(FormatSuite):
    formats = (
        ToyFormat(4096, width=39, levels=3, page_levels=3),
        ToyFormat(4096, width=48, levels=4, page_levels=1),
        # Two levels fewer would do for one table; this root is two concatenated pages.
        ToyFormat(4096, width=31, levels=2, page_levels=2),
    )
    prots = ("r", "rw", "rx", "rwx", "rwp", "x")


class TestWideFormats(FormatSuite):
    formats = (
        WideFormat(16384, width=40, levels=3, page_levels=2),
        WideFormat(16384, width=48, levels=3, page_levels=2),
        WideFormat(65536, width=42, levels=2, page_levels=2),
    )
    prots = ("r", "rw", "rx", "rwx")


class TestRunFormats(FormatSuite):
    formats = (
        RunFormat(4096, width=39, levels=3, page_levels=3),
        RunFormat(4096, width=31, levels=2, page_levels=2),
        RunFormat(4096, width=16, levels=1, page_levels=1),
    )
    prots = ("r", "rw", "rx", "rwx", "rwp", "x")


class TestSplitFormats(FormatSuite):
    formats = (SplitFormat(4096, width=39, levels=3, page_levels=2),)
    prots = ("r", "rwx")
