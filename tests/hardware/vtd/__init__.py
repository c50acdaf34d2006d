# SPDX-License-Identifier: Apache-2.0
"""What needs a Linux with an emulated VT-d and devices behind it."""
