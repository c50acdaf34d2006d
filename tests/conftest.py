# SPDX-License-Identifier: Apache-2.0
"""Plugins that tests use: the one that is shipped for backends' authors, and pytest's own for testing it."""

pytest_plugins = ["iommuctl.testing.plugin", "pytester"]
