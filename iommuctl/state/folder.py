# SPDX-License-Identifier: Apache-2.0
"""Where the state is kept when nobody says. Imports little: a completion asks, too."""

import os


def default_folder() -> str:
    """`$IOMMUCTL_STATE`, else /var/lib/iommuctl for root, else the XDG state folder."""
    if named := os.environ.get("IOMMUCTL_STATE"):
        return named
    if os.geteuid() == 0:
        return "/var/lib/iommuctl"
    states = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(states, "iommuctl")
