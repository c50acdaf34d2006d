# SPDX-License-Identifier: Apache-2.0
"""Who serves page requests in the foreground, and who watches them: above the generic layer, below the command line."""
