# SPDX-License-Identifier: Apache-2.0
"""Tests on a kernel with the mock driver of iommufd (CONFIG_IOMMUFD_TEST)."""
