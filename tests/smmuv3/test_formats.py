# SPDX-License-Identifier: Apache-2.0
"""The suite of formats on VMSAv8-64: granules, start levels, 48 and 52 bits, start tables side by side."""

from iommuctl_smmuv3.stage1 import Stage1Format
from iommuctl_smmuv3.stage2 import Stage2Format
from tests.formats.format_suite import FormatSuite

K4, K16, K64 = 1 << 12, 1 << 14, 1 << 16


class TestStage1(FormatSuite):
    formats = (
        Stage1Format(),
        Stage1Format(K4, 39, output=40),
        Stage1Format(K4, 31, output=36),
        Stage1Format(K4, 20),
        Stage1Format(K4, 52, output=52, ds=True),
        Stage1Format(K16, 48),
        Stage1Format(K16, 47, output=44),
        Stage1Format(K16, 36),
        Stage1Format(K16, 52, output=52, ds=True),
        Stage1Format(K64, 48),
        Stage1Format(K64, 52, output=52),
        Stage1Format(K64, 42, output=48, oas=52),
        Stage1Format(K64, 30),
    )
    # One table that is not full, levels of each granule, and both ways to pack 52 bits.
    kinds = (
        Stage1Format(K4, 20),
        Stage1Format(),
        Stage1Format(K16, 47, output=44),
        Stage1Format(K4, 52, output=52, ds=True),
        Stage1Format(K64, 52, output=52),
    )
    prots = ("r", "rw", "rx", "rwx", "rp", "rwp", "rxp", "rwxp")


class TestStage2(FormatSuite):
    formats = (
        Stage2Format(),
        Stage2Format(K4, 40, output=40),
        Stage2Format(K4, 44, output=44, start_level=0, fwb=True),
        Stage2Format(K4, 43, output=44, start_level=1, xnx=False),
        Stage2Format(K4, 32, start_level=2),
        Stage2Format(K4, 52, output=52, ds=True, start_level=0),
        Stage2Format(K4, 52, output=52, ds=True),
        Stage2Format(K16, 48),
        Stage2Format(K16, 40, output=40),
        Stage2Format(K16, 52, output=52, ds=True),
        Stage2Format(K64, 46, output=52, start_level=2),
        Stage2Format(K64, 33, start_level=3),
        Stage2Format(K64, 48),
    )
    # Start tables side by side.
    kinds = (
        Stage2Format(K4, 43, output=44, start_level=1, xnx=False),
        Stage2Format(K16, 40, output=40),
        Stage2Format(K64, 46, output=52, start_level=2),
    )
    prots = ("r", "w", "rw", "rx", "wx", "x", "rwx")
