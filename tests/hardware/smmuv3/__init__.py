# SPDX-License-Identifier: Apache-2.0
"""Tests on an SMMUv3 that Linux drives."""
