# SPDX-License-Identifier: Apache-2.0
"""Tests of iommuctl.kernel on a kernel in the process of the test, with a real keeper and real state folders."""

import pytest

for name in ("asking", "bench", "smmuv3_bench", "rules", "table_rules"):
    pytest.register_assert_rewrite(f"tests.kernel.{name}")
