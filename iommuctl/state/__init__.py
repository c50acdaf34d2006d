# SPDX-License-Identifier: Apache-2.0
"""What survives between two commands: a folder with SQLite rows, the memory file, and a lock."""
