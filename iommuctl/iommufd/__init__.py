# SPDX-License-Identifier: Apache-2.0
"""All that talks to the kernel about I/O page tables, but for what vendors put into it."""
