# SPDX-License-Identifier: Apache-2.0
"""Tests of what talks to the kernel; none of them needs one that has /dev/iommu."""
