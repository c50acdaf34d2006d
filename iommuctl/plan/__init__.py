# SPDX-License-Identifier: Apache-2.0
"""Topology documents: a TOML file that says what should be there, and the way from what is there to that."""
