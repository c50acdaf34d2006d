# SPDX-License-Identifier: Apache-2.0
"""Plugins that tests use, and the counts that some of them have to show."""

import pytest

pytest_plugins = ["iommuctl.testing.plugin", "pytester"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded: how many times a change was killed, and which state was left."""
    counts = [
        f"{name}: {value}"
        for report in terminalreporter.getreports("passed")
        for name, value in getattr(report, "user_properties", ())
    ]
    if counts:
        terminalreporter.section("counts")
        for line in sorted(counts):
            terminalreporter.line(line)
